"""The soak's figures as people read them: a line for a cycle, tables for the end. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.document import Row, markdown_table

from .cycles import Cycle
from .levels import BY_RIGHT, JUDGED_FROM, Measure, Trend, trends, warm_up
from .spread import spread

TIMES_HEAD = ("ms", "n", "mean", "P95", "deviation", "min", "max")
LEVELS_HEAD = ("what must level off", "of", "unit", "first", "median", "last", "slope", "bound", "")
GROWTH_HEAD = ("what grows by right, KiB", "of", "first", "most", "last", "slope", "why")


def line(cycle: Cycle) -> str:
    """Of one cycle, as soon as it is over."""
    memory = {r.of: r.value / 1024 for r in cycle.readings if r.measure is Measure.MEMORY}
    return (
        f"cycle {cycle.number}: failover gap {_ms(cycle.failover_gap_ms)} (run {_ms(cycle.failover_run_ms)}),"
        f" rejoin {_ms(cycle.rejoin_ms)}, switchover gap {_ms(cycle.switchover_gap_ms)}"
        f" (run {_ms(cycle.switchover_run_ms)}), {cycle.writes} writes, {len(cycle.violations)} violations,"
        f" {cycle.took_ms / 1000:.0f} s; MiB: {', '.join(f'{of} {mib:.0f}' for of, mib in memory.items())}"
    )


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} ms"


def times(cycles: Sequence[Cycle]) -> list[Row]:
    series: dict[str, list[float | None]] = {
        "write gap, failover": [c.failover_gap_ms for c in cycles],
        "write gap, switchover": [c.switchover_gap_ms for c in cycles],
        "from the kill to the run's start": [c.started_ms for c in cycles],
        "failover run": [c.failover_run_ms for c in cycles],
        "switchover run": [c.switchover_run_ms for c in cycles],
        "killed node back as a standby": [c.rejoin_ms for c in cycles],
        "whole cycle": [c.took_ms for c in cycles],
    }
    found = {what: spread([ms for ms in each if ms is not None]) for what, each in series.items()}
    return [
        (
            *(what, str(s.count)),
            *(f"{value:.0f}" for value in (s.mean, s.p95, s.deviation, s.least, s.most)),
        )
        for what, s in found.items()
        if s is not None
    ]


def levels(found: Sequence[Trend]) -> list[Row]:
    """Of what has a bound."""
    return [
        (
            *(str(t.measure), t.of, t.unit or "–"),
            *(_amount(value) for value in (t.first, t.median, t.last)),
            *(_slope(t.slope), f"{t.bound:g}", _verdict(t)),
        )
        for t in found
        if t.bound is not None
    ]


def growth(found: Sequence[Trend]) -> list[Row]:
    """Of what has none."""
    return [
        (
            *(str(t.measure), t.of),
            *(_amount(value) for value in (t.first, t.most, t.last)),
            *(_slope(t.slope), BY_RIGHT[t.measure][1]),
        )
        for t in found
        if t.bound is None
    ]


def _amount(value: float) -> str:
    return f"{value:.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.1f}"


def _slope(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _verdict(trend: Trend) -> str:
    if not trend.judged:
        return "not judged"
    return "levels off" if trend.within else "beyond"


def note(cycles: Sequence[Cycle]) -> str:
    """How the slopes are to be read."""
    return (
        f"Slopes are per cycle (Theil-Sen), without the first {warm_up(len(cycles))} cycles, and judged from"
        f" {JUDGED_FROM} further ones on. Memory is PSS. The agent of node-1, which each cycle kills, is"
        " another process in each; every other series is of one."
    )


def section(cycles: Sequence[Cycle], failures: Sequence[str], measured_on: Sequence[str]) -> list[str]:
    """The paragraphs of the soak in the document."""
    found = trends([cycle.readings for cycle in cycles])
    return [
        "## Soak",
        "Written by `make soak`. Each cycle kills the primary's node under writes, has it failed over, brings"
        " it back and moves the service back by planned maintenance, on one lab and one control plane.",
        "\n".join(f"- {line}" for line in measured_on),
        f"{len(cycles)} cycles, {sum(cycle.writes for cycle in cycles)} acknowledged writes,"
        f" {sum(len(cycle.violations) for cycle in cycles)} violations.",
        markdown_table(TIMES_HEAD, times(cycles)),
        note(cycles),
        markdown_table(LEVELS_HEAD, levels(found)),
        markdown_table(GROWTH_HEAD, growth(found)),
        *(f"**Failed:** {failure}." for failure in failures),
    ]
