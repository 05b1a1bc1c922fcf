"""A study as text for people: on a terminal, in Markdown and as a page."""

from __future__ import annotations

from collections.abc import Iterator

from qnwis.continuity.report_text import Document, Section

from .figures import Distribution, Figures
from .result import StudyResult

HEADER = ("", "P50", "P95", "P99", "mean", "most")


def document_of(result: StudyResult, pictures: dict[str, str]) -> Document:
    """`pictures`: SVG by title."""
    comparison = result.comparison
    sections = [
        Section("Figures", tuple(rows(result.figures)), HEADER),
        Section("A year", tuple(yearly(result.figures))),
        Section("Which setting buys how much", tuple((one.words,) for one in result.settings)),
    ]
    if comparison is not None:
        sections += [
            Section(f"Compared with {comparison.name}", tuple(compared(result))),
            Section(f"Figures of {comparison.name}", tuple(rows(comparison.figures)), HEADER),
        ]
    sections += [Section(title, (), picture=svg) for title, svg in pictures.items()]
    sections += [
        Section("Assumptions", tuple((one,) for one in result.assumptions)),
        Section("Sources", tuple(result.sources.items()), ("figures", "source")),
    ]
    return Document(
        title=f"{result.runs} failures of the primary of {result.cluster_id}",
        id=f"seed {result.seed}, policy {result.policy_id}, world {result.world}, {result.years:g} years;"
        " nothing real was read or changed",
        good=True,
        verdict=verdict(result.figures),
        sections=tuple(section for section in sections if section.rows or section.picture),
    )


def verdict(figures: Figures) -> str:
    return (
        f"95 of 100 failures are over within {figures.rto_s.p95:.1f} s;"
        f" {figures.availability_percent.p95:.4f} % availability in 95 of 100 years;"
        f" {figures.false_failovers_per_year:.2f} false failovers a year"
    )


def rows(figures: Figures) -> Iterator[tuple[str, ...]]:
    for name, of in (
        ("detection", figures.detection_s),
        ("RTO", figures.rto_s),
        ("run, without people", figures.run_s),
        ("RPO", figures.rpo_s),
    ):
        yield name, *(_seconds(value) for value in _values(of))


def yearly(figures: Figures) -> Iterator[tuple[str, ...]]:
    up = figures.availability_percent
    yield (
        "availability",
        (
            f"{up.mean:.5f} % on average, at least {up.p50:.5f} % in half of the years,"
            f" {up.p95:.5f} % in 95 of 100, {up.p99:.5f} % in 99 of 100"
        ),
    )
    yield "downtime", f"{figures.downtime_s_per_year:.1f} s a year on average"
    yield "false failovers", f"{figures.false_failovers_per_year:.2f} a year"
    yield "runs past max_failover_time_s", f"{figures.overrun_percent:g} %"
    yield "held back by a cooldown", str(figures.held_back)


def compared(result: StudyResult) -> Iterator[tuple[str, ...]]:
    comparison = result.comparison
    assert comparison is not None
    yield (comparison.words,)
    difference = comparison.rto_difference_s
    yield (
        f"its RTO is shorter in {comparison.rto_shorter_percent:g} % of the failures; the difference is"
        f" {difference.p50:+.2f} s (P50), {difference.p95:+.2f} s (P95), {difference.mean:+.2f} s on average",
    )


def _values(of: Distribution) -> tuple[float, ...]:
    return of.p50, of.p95, of.p99, of.mean, of.most


def _seconds(value: float) -> str:
    return f"{value:.2f} s"
