"""What one number of clusters cost, and how that grows: pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from qnwis.continuity.model import Model

from .cost import Memory
from .counting import Counts


class Party(Model):
    """A process over a phase in which nothing happens."""

    cpu_s: float
    """In that phase."""
    idle_cpu_s: float = 0.0
    """What it would have taken in as long a time without any cluster."""
    memory: Memory
    idle_memory: Memory
    """Before there was a cluster."""


class Steady(Model):
    """A phase in which nothing happens."""

    seconds: float
    counts: Counts
    errors: Mapping[str, int]
    """Health questions that failed, by the worker's own metrics, by the type of the failure."""
    worker: Party
    temporal: Party
    agents_cpu_s: float
    scrape_s: float | None = None
    """How long the longest of the scrapes of the worker's metrics took meanwhile."""
    events: int
    """By which the guardians' histories grew from a little before to a little after."""
    grown: int
    """Guardians of which it did."""
    hours: float
    """Between the two looks at the histories."""

    @property
    def us_per_probe(self) -> float | None:
        """The worker's CPU time, without what it takes idle, for each health question that was answered."""
        probes = self.counts.probes
        return 1e6 * (self.worker.cpu_s - self.worker.idle_cpu_s) / probes if probes else None


class Started(Model):
    """One primary that failed, and the run that it led to."""

    cluster: int
    after_s: float | None
    """From the failure to the start of the run by Temporal's clock; None where none started."""
    outcome: str | None
    """How that ended; None where it did not in time."""


class Evacuation(Model):
    """A region that was left."""

    region: str
    clusters: int
    """At home in it."""
    moved: int
    waves: int
    took_s: float
    outcome: str
    reason: str


class Beside(Model):
    """The same questions, at the same rate, asked by something else."""

    name: str
    seconds: float
    cpu_s: float
    counts: Counts
    failed: int
    """Questions that were not answered in time, or could not be asked."""

    @property
    def us_per_probe(self) -> float | None:
        probes = self.counts.probes
        return 1e6 * self.cpu_s / probes if probes else None


class Figures(Model):
    """Of one number of clusters."""

    clusters: int
    ready: int = 0
    """Guardians that saw all nodes healthy before anything was measured."""
    ready_s: float | None = None
    """How long that took, from the first guardian's start; None if not all did."""
    steady: Steady | None = None
    starts: tuple[Started, ...] = ()
    evacuations: tuple[Evacuation, ...] = ()
    taken_over_s: float | None = None
    """From another worker's start after the first was killed until all guardians saw all nodes healthy by it;
    None if not all did."""
    beside: tuple[Beside, ...] = ()
    load: float = 0.0
    """The machine's load average of one minute, when it began."""
    problem: str | None = None
    """Why what is not there could not be measured."""

    @property
    def kib_per_cluster(self) -> float | None:
        """By which the worker's memory (PSS) grew for each cluster."""
        return None if self.steady is None else _grown(self.steady.worker) / self.clusters

    @property
    def temporal_kib_per_cluster(self) -> float | None:
        return None if self.steady is None else _grown(self.steady.temporal) / self.clusters

    @property
    def events_per_hour(self) -> float | None:
        """By which a guardian's history grows in an hour while nothing happens."""
        if self.steady is None:
            return None
        return self.steady.events / self.clusters / self.steady.hours

    @property
    def after_s(self) -> list[float]:
        """From each failure to the start of its run."""
        return [one.after_s for one in self.starts if one.after_s is not None]

    def beside_named(self, name: str) -> float | None:
        """CPU time per question, µs."""
        return next((one.us_per_probe for one in self.beside if one.name == name), None)

    def failed_beside(self, name: str) -> float | None:
        """Of the questions that were asked that way."""
        return next((float(one.failed) for one in self.beside if one.name == name), None)

    def took_s(self, region: str) -> float | None:
        """Until all clusters of the region had left it; None where they did not."""
        found = next((one for one in self.evacuations if one.region == region), None)
        return found.took_s if found is not None and found.moved == found.clusters else None


def _grown(party: Party) -> int:
    return party.memory.pss - party.idle_memory.pss


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that so many percent of all do not exceed; None of none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def growth(values: Mapping[int, float | None]) -> float | None:
    """How a figure grows with the number of clusters: the exponent of the power law through its logarithms.
    0: not at all, 1: in proportion. None where fewer than two are known and above 0."""
    known = [(math.log(n), math.log(value)) for n, value in values.items() if value is not None and value > 0]
    if len(known) < 2:
        return None
    mean_x, mean_y = (sum(each) / len(known) for each in zip(*known, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in known)
    return sum((x - mean_x) * (y - mean_y) for x, y in known) / spread if spread else None
