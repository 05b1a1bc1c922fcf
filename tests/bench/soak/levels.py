"""What is sampled after each cycle, how fast it may grow, and whether it did: pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from qnwis.continuity.model import Model

from .slope import theil_sen

WARM_UP = 0.2
"""The part of the cycles, the first ones, in which caches fill; they do not count."""
WARM_UP_AT_LEAST = 3
JUDGED_FROM = 20
"""Cycles after the warm-up from which on a slope fails the soak: that of a few is noise."""


class Measure(StrEnum):
    MEMORY = "memory"  # PSS of the process
    DESCRIPTORS = "descriptors"  # that the process has open
    PROCESSES = "processes"  # of a node, its guards and its database among them
    LOG_FILES = "log of writes"  # files of pg_wal, timelines apart
    DATABASE = "database"  # the data directory without its log and without what the clients write
    GUARDIAN_EVENTS = "guardian's events"  # that its history grew by in the cycle
    GUARDIAN_BYTES = "guardian's history"  # that it grew by in the cycle
    RUN_EVENTS = "run's events"  # in the history of the cycle's run
    RUN_BYTES = "run's history"  # the size of that
    GUARDIAN_WHOLE = "guardian's whole history"
    TEMPORAL = "Temporal's database"
    AUDIT = "audit trail"
    WRITTEN = "clients' table"
    TIMELINES = "timelines"
    RECORDS = "agent's records"
    LOGS = "logs of processes"


class Reading(Model):
    """One value of one series, taken after a cycle."""

    measure: Measure
    of: str
    """The process, node or run, by its role: a process that a cycle kills is another one in the next."""
    value: float


@dataclass(frozen=True)
class Bound:
    """By how much a series may grow in a cycle."""

    unit: str
    per_cycle: float


BOUNDS: Mapping[Measure, Bound] = {
    Measure.MEMORY: Bound("KiB", 64),
    Measure.DESCRIPTORS: Bound("", 0.1),
    Measure.PROCESSES: Bound("", 0.05),
    Measure.LOG_FILES: Bound("KiB", 512),
    Measure.DATABASE: Bound("KiB", 64),
    Measure.GUARDIAN_EVENTS: Bound("", 0.5),
    Measure.GUARDIAN_BYTES: Bound("KiB", 0.5),
    Measure.RUN_EVENTS: Bound("", 0.1),
    Measure.RUN_BYTES: Bound("KiB", 0.1),
}
"""What has none grows by right."""
OF_TEMPORAL = Bound("KiB", 512)
"""Of the memory of Temporal's server, which moves by tens of MiB between two collections of its garbage."""
BY_RIGHT: Mapping[Measure, tuple[str, str]] = {
    Measure.GUARDIAN_WHOLE: (
        "KiB",
        "goes on as a new one where the server says so: at 4,096 events or 4 MiB",
    ),
    Measure.TEMPORAL: ("KiB", "keeps the histories of closed runs for its retention, a day by default"),
    Measure.AUDIT: ("KiB", "every run and every word of a person stays on record, with a bundle"),
    Measure.WRITTEN: ("KiB", "what the clients write"),
    Measure.TIMELINES: ("KiB", "PostgreSQL keeps the history file of each timeline, and names all before it"),
    Measure.RECORDS: (
        "KiB",
        "orders obeyed, and what a rewind discarded, which is kept for people to look at",
    ),
    Measure.LOGS: ("KiB", "nothing rotates the logs of a lab"),
}
"""Its unit, and why."""


class Trend(Model):
    """How one series went."""

    measure: Measure
    of: str
    unit: str
    first: float
    last: float
    most: float
    median: float
    """After the warm-up, where there were cycles after it."""
    slope: float | None
    """Per cycle, after the warm-up; None where there were not two cycles."""
    cycles: int
    """That the slope is of."""
    bound: float | None
    """None for what grows by right."""

    @property
    def judged(self) -> bool:
        return self.bound is not None and self.slope is not None and self.cycles >= JUDGED_FROM

    @property
    def within(self) -> bool | None:
        """None for what has no bound, or no slope."""
        if self.bound is None or self.slope is None:
            return None
        return self.slope <= self.bound


def trends(cycles: Sequence[Sequence[Reading]]) -> list[Trend]:
    """Of every series, in the order of `Measure`; a cycle may lack some of them."""
    series: dict[tuple[Measure, str], list[tuple[float, float]]] = {}
    for number, readings in enumerate(cycles):
        for reading in readings:
            series.setdefault((reading.measure, reading.of), []).append((number, reading.value))
    order = list(Measure)
    names = sorted(series, key=lambda name: (order.index(name[0]), name[1]))
    return [_trend(measure, of, series[measure, of], len(cycles)) for measure, of in names]


def _trend(measure: Measure, of: str, points: Sequence[tuple[float, float]], cycles: int) -> Trend:
    settled = [point for point in points if point[0] >= warm_up(cycles)] or list(points)
    bound = bound_of(measure, of)
    return Trend(
        measure=measure,
        of=of,
        unit=bound.unit if bound is not None else BY_RIGHT[measure][0],
        first=points[0][1],
        last=points[-1][1],
        most=max(value for _, value in points),
        median=statistics.median(value for _, value in settled),
        slope=theil_sen(settled),
        cycles=len(settled),
        bound=None if bound is None else bound.per_cycle,
    )


def bound_of(measure: Measure, of: str) -> Bound | None:
    """None for what grows by right."""
    if (measure, of) == (Measure.MEMORY, "temporal"):
        return OF_TEMPORAL
    return BOUNDS.get(measure)


def warm_up(cycles: int) -> int:
    """How many cycles come first and do not count."""
    return max(WARM_UP_AT_LEAST, round(WARM_UP * cycles))


def beyond(found: Sequence[Trend]) -> list[str]:
    """Which series grew faster than they may, a sentence each."""
    return [
        f"{trend.measure} of {trend.of} grows by {trend.slope:.2f} {trend.unit} a cycle;"
        f" its bound is {trend.bound:g}"
        for trend in found
        if trend.judged and not trend.within
    ]
