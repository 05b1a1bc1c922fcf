"""The figures as people read them: a row a figure, a column a number of clusters. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.bench.document import Row, markdown_table

from .figures import Figures, Steady, growth, percentile
from .goals import Goal
from .names import BARE, BLACKBOX
from .world import MANY, ONE, WAVE

GOAL_HEAD = ("goal", "found", "")

Value = Callable[[Figures], float | None]


def of_steady(value: Callable[[Steady], float | None]) -> Value:
    return lambda one: None if one.steady is None else value(one.steady)


ROWS: tuple[tuple[str, Value, str], ...] = (
    ("health questions answered, per s", of_steady(lambda s: s.counts.probes / s.seconds), ".0f"),
    ("CPU per question: this project, µs", of_steady(lambda s: s.us_per_probe), ".0f"),
    (f"CPU per question: {BARE}, µs", lambda one: one.beside_named(BARE), ".0f"),
    (f"CPU per question: {BLACKBOX}, µs", lambda one: one.beside_named(BLACKBOX), ".0f"),
    ("worker, cores", of_steady(lambda s: s.worker.cpu_s / s.seconds), ".2f"),
    ("worker without a cluster, cores", of_steady(lambda s: s.worker.idle_cpu_s / s.seconds), ".2f"),
    ("Temporal server, cores", of_steady(lambda s: s.temporal.cpu_s / s.seconds), ".2f"),
    ("the agents' server, cores", of_steady(lambda s: s.agents_cpu_s / s.seconds), ".2f"),
    ("worker, MiB (PSS)", of_steady(lambda s: s.worker.memory.pss / 1024), ".0f"),
    ("worker, KiB per cluster", lambda one: one.kib_per_cluster, ".0f"),
    ("Temporal server, MiB (PSS)", of_steady(lambda s: s.temporal.memory.pss / 1024), ".0f"),
    ("Temporal server, KiB per cluster", lambda one: one.temporal_kib_per_cluster, ".0f"),
    ("guardians that saw every node healthy", lambda one: float(one.ready), ".0f"),
    ("until they all did, s", lambda one: one.ready_s, ".1f"),
    ("heartbeats past their deadline", of_steady(lambda s: float(s.counts.late)), ".0f"),
    ("longest time between two heartbeats, s", of_steady(lambda s: s.counts.longest_s), ".2f"),
    ("health questions that failed", of_steady(lambda s: float(sum(s.errors.values()))), ".0f"),
    (f"the same by {BLACKBOX}", lambda one: one.failed_beside(BLACKBOX), ".0f"),
    ("longest scrape of the worker's metrics, s", of_steady(lambda s: s.scrape_s), ".2f"),
    ("history events per guardian and hour", lambda one: one.events_per_hour, ".2f"),
    ("failure to the run's start: P50, s", lambda one: percentile(one.after_s, 50), ".2f"),
    ("failure to the run's start: P99, s", lambda one: percentile(one.after_s, 99), ".2f"),
    ("one cluster leaves its region, s", lambda one: one.took_s(ONE), ".1f"),
    ("one wave of clusters does, s", lambda one: one.took_s(WAVE), ".1f"),
    ("up to 100 clusters do, s", lambda one: one.took_s(MANY), ".1f"),
    ("worker killed: until another holds all, s", lambda one: one.taken_over_s, ".1f"),
)


def head(every: Sequence[Figures]) -> Row:
    return ("", *(f"{one.clusters:,} clusters" for one in every), "growth")


def rows(every: Sequence[Figures]) -> list[Row]:
    return [
        (
            what,
            *(_text(value(one), form) for one in every),
            _text(growth({one.clusters: value(one) for one in every}), ".2f"),
        )
        for what, value, form in ROWS
    ]


def _text(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def goal_rows(goals: Sequence[Goal]) -> list[Row]:
    return [(goal.text, goal.found, str(goal.verdict)) for goal in goals]


def section(
    every: Sequence[Figures],
    goals: Sequence[Goal],
    *,
    measured_on: Sequence[str],
    how: Sequence[str],
    pictures: Sequence[tuple[str, str]],
    failures: Sequence[str],
) -> list[str]:
    """The paragraphs of this bench in the document. `pictures`: what each shows, and its address."""
    return [
        "## Cost and scale",
        "Written by `make bench-scale`. One worker process, which is the only vantage too, and one Temporal"
        " development server hold clusters of five nodes, whose agents one process plays. The last column is"
        " how a figure grows with the number of clusters: 0 not at all, 1 in proportion.",
        "\n".join(f"- {line}" for line in measured_on),
        markdown_table(head(every), rows(every)),
        markdown_table(GOAL_HEAD, goal_rows(goals)),
        *(f"![{what}]({at})" for what, at in pictures),
        "\n".join(f"- {line}" for line in how),
        "\n".join(f"- {line}" for line in failures),
    ]
