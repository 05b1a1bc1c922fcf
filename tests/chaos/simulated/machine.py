"""What a node is made of besides its programs: a clock of its own and a disk that outlives them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from qnwis.continuity.leases import GrantorRecord, HolderRecord
from qnwis.continuity.orders import Receipt

from .kernel import Kernel

DRIFT = 0.002
"""A clock is faster or slower by up to this share, well within the leases' margin of 0.01."""


BEGIN = datetime(2000, 1, 1, tzinfo=UTC)
"""Simulated time 0; any fixed moment would do."""


def moment(now_s: float) -> datetime:
    return BEGIN + timedelta(seconds=now_s)


class Clock:
    """Monotonic, begins anywhere, drifts."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._rate = 1 + kernel.rng.uniform(-DRIFT, DRIFT)
        self._offset_s = kernel.rng.uniform(0, 1000)

    def now(self) -> float:
        return self._offset_s + self._rate * self._kernel.now_s

    def true_s(self, shown_s: float) -> float:
        """The kernel's time at which this clock shows `shown_s`."""
        return (shown_s - self._offset_s) / self._rate


@dataclass(frozen=True)
class Held:
    """A standby's receiver, kept from its upstream since a promise to a run."""

    epoch: int
    run_id: str
    upstream: str | None
    """What it goes on to receive from, when no order comes."""


@dataclass
class Disk:
    """The agent's state directory."""

    grantor: GrantorRecord
    holder: HolderRecord
    full: bool = False
    receipts: dict[str, Receipt] = field(default_factory=dict)
    """Of effects done, by effect id."""
    begun: set[str] = field(default_factory=set)
    rejoined_since: set[str] = field(default_factory=set)
    """Effects that were begun before a rejoin was."""
    unfinished_rejoin: str | None = None
    """Effect id of a rejoin that began and is not known to be done."""
    held: Held | None = None
    changes: list[str] = field(default_factory=list)
    """Effect id of each effect that changed the state, once for each time."""
    count: int = 0

    def unused(self, prefix: str) -> str:
        """A name that was never used before, restarts included."""
        self.count += 1
        return f"{prefix}-{self.count}"
