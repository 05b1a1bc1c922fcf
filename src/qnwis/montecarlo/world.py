"""The world that failures happen in: how often, how long, how fast the parts around a primary answer.

A file in YAML; `config/simulator` has some, each figure with its source. What the file does not say is
decided by `cluster.yaml` and `policy.yaml`.
"""

from __future__ import annotations

from enum import StrEnum
from math import erf, exp, log, sqrt
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from qnwis.config.load import validated
from qnwis.config.problem import ConfigError, Problem
from qnwis.config.shipped import shipped
from qnwis.config.yaml_source import read_yaml
from qnwis.continuity.model import Identifier, Model

Z99 = 2.3263478740408408
"""The standard normal value below which 99 of 100 lie."""
MOST_PER_YEAR = 100_000.0
SOURCE = Field(min_length=1)


class Spread(Model):
    """A log-normal distribution, by two of its values; equal ones make a constant."""

    median: float = Field(ge=0)
    p99: float = Field(ge=0)

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.p99 < self.median or (self.median == 0 < self.p99):
            raise ValueError(f"expected p99 ({self.p99:g}) of at least the median ({self.median:g}), above 0")
        return self

    @property
    def sigma(self) -> float:
        return log(self.p99 / self.median) / Z99 if self.p99 > self.median else 0.0

    def below(self, value: float) -> float:
        """The share of values that are at most this one."""
        if value <= 0:
            return 0.0
        if self.sigma == 0:
            return float(self.median <= value)
        return (1 + erf((log(value) - log(self.median)) / self.sigma / sqrt(2))) / 2

    def at(self, z: float) -> float:
        """The value as many standard deviations from the median, on the scale of logarithms."""
        return self.median * exp(self.sigma * z)


class FaultKind(StrEnum):
    """How a primary is lost for good."""

    KILLED = "killed"  # its processes are gone: connections break at once and new ones are refused
    BLACKHOLED = "blackholed"  # its node is gone, or its packets: nothing answers, nothing is refused
    CRASHED_DATABASE = "crashed_database"  # the database ends under an agent that lives and says so


class Rate(Model):
    per_year: float = Field(ge=0, le=MOST_PER_YEAR)
    source: str = SOURCE


class Faults(Model):
    """Of the primary; they do not end by themselves."""

    killed: Rate
    blackholed: Rate
    crashed_database: Rate

    def rates(self) -> dict[FaultKind, float]:
        return {kind: getattr(self, kind.value).per_year for kind in FaultKind}

    @model_validator(mode="after")
    def _happen(self) -> Self:
        if not sum(self.rates().values()) > 0:
            raise ValueError("expected a kind of fault that happens: per_year above 0")
        return self


class Silence(Model):
    """Times in which a primary is not heard of that end by themselves. Nobody would miss a failover."""

    name: Identifier
    per_year: float = Field(ge=0, le=MOST_PER_YEAR)
    lasts_s: Spread
    standbys_hear_it: bool
    """Only the watchers are cut off from it; it serves. Otherwise it stands still, or is cut off from all."""
    source: str = SOURCE


class Network(Model):
    """Between the vantages and the primary's node."""

    round_trip_ms: Spread
    loss_percent: float = Field(ge=0, le=50)
    """Of packets, in each direction."""
    retransmit_s: float = Field(gt=0)
    """After which a lost packet is sent again; each further time after twice as long."""
    source: str = SOURCE

    def miss_chance(self, timeout_s: float) -> float:
        """Of one question to a node that is well, to be unanswered after the timeout."""
        lost = 1 - (1 - self.loss_percent / 100) ** 2
        answered, sent_at_s, pause_s, reached = 0.0, 0.0, self.retransmit_s, 1.0
        while sent_at_s < timeout_s:
            answered += reached * (1 - lost) * self.round_trip_ms.below((timeout_s - sent_at_s) * 1000)
            reached *= lost
            sent_at_s, pause_s = sent_at_s + pause_s, 2 * pause_s
        return 1 - answered


class Lease(Model):
    """As the agents' files have it."""

    duration_s: float = Field(gt=0, le=3600)
    renew_every_s: float = Field(gt=0, le=3600)
    back_s: Spread
    """Until a primary whose lease ran out, and which is well again, has a new one and serves."""
    source: str = SOURCE

    @model_validator(mode="after")
    def _renews_in_time(self) -> Self:
        if self.renew_every_s >= self.duration_s:
            raise ValueError(f"expected renew_every_s below duration_s, which is {self.duration_s:g}")
        return self


class Control(Model):
    """The control plane's own time."""

    report_ms: Spread
    """From a vantage's conclusion until the guardian has judged it."""
    assess_ms: Spread
    """From the guardian's decision until the run has looked again and has its plan."""
    prepare_ms: Spread
    """From the plan until its first action: rehearsal, approval's end."""
    source: str = SOURCE


class Steps(Model):
    """What the actions of a plan take, beyond waiting for the lease and for nodes that are silent."""

    fence_primary: Spread
    promote_target: Spread
    repoint_standbys: Spread
    flip_dns: Spread
    source: str = SOURCE


class Replication(Model):
    """Asynchronous: how far each standby is behind, independently."""

    lag_s: Spread
    write_bytes_per_s: float = Field(ge=0, le=1e12)
    source: str = SOURCE


class People(Model):
    """With `strategy: manual`: who is called, and votes."""

    answer_s: Spread
    source: str = SOURCE


class Finds(StrEnum):
    NAME = "name"  # by the service's name, whose TTL they honour
    HOSTS = "hosts"  # they know the nodes, and look for the one that takes writes


class Clients(Model):
    finds: Finds = Finds.NAME
    retry_ms: float = Field(ge=0, le=3_600_000)
    """So often one that failed tries again."""
    count: int = Field(default=1, ge=1, le=1_000_000)
    """The outage is that of the last of so many."""
    source: str = SOURCE


class World(Model):
    name: Identifier
    faults: Faults
    silences: tuple[Silence, ...] = ()
    network: Network
    lease: Lease
    control: Control
    steps_ms: Steps | None = None
    """None: `estimates_ms` of the policy, of which each action takes 0.7 to 1.1."""
    replication: Replication
    people: People
    clients: Clients

    def sources(self) -> dict[str, str]:
        """Of each figure, by the field."""
        found = {f"faults.{kind.value}": getattr(self.faults, kind.value).source for kind in FaultKind}
        found |= {f"silences.{silence.name}": silence.source for silence in self.silences}
        for part in ("network", "lease", "control", "steps_ms", "replication", "people", "clients"):
            if (value := getattr(self, part)) is not None:
                found[part] = value.source
        return found


def load_world(named: str) -> World:
    """The world in a file, or the shipped one of that name. Raises ConfigError."""
    path = Path(named)
    if path.suffix not in {".yaml", ".yml"} and not path.exists():
        own = {file.stem: file for file in sorted((shipped("config") / "simulator").glob("*.yaml"))}
        if named not in own:
            expected = f"a file, or one of {', '.join(own)}"
            raise ConfigError([Problem(Path(named), None, None, "", "no such world", expected)])
        path = own[named]
    return validated(World, read_yaml(path))
