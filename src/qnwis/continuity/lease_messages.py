"""What agents and runs say to each other about leases, and what all of a cluster must agree on.

Asks, grants and releases travel between agents; a run only requests promises, and passes on releases that a
holder gave it. Times are durations in seconds: no moment of one clock is told to another node.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from .model import Model


class LeaseTerms(Model):
    """The settings of leases. Agents should have the same; while they differ, a holder does without grants
    that bind their grantors for less than it counts on."""

    duration_s: float = Field(default=3.0, gt=0)
    """How long a grant binds its grantor, by the grantor's clock."""
    renew_every_s: float = Field(default=0.5, gt=0)
    """How often a holder asks."""
    drift_margin: float = Field(default=0.01, ge=0, lt=1)
    """Share of the duration by which the holder's clock may lag behind a grantor's while a lease lasts."""
    stop_margin_s: float = Field(default=0.15, ge=0)
    """So long before its lease ends a holder begins to end its database: what that takes, and by how much it
    can be late. Twice what `tests/bench/stopping.py` measured at most on two loaded cores, 75 ms."""
    reserve_s: float = Field(default=10.0, ge=0)
    """How long a promise to a run keeps the former holder from taking the lease up again by itself: the time
    in which a run promotes, withdraws or promises again. Not a matter of safety."""

    @property
    def held_s(self) -> float:
        """How long a grant counts for its holder, from before it asked."""
        return self.duration_s * (1 - self.drift_margin)

    @model_validator(mode="after")
    def _renews_in_time(self) -> Self:
        if self.renew_every_s >= self.held_s - self.stop_margin_s:
            raise ValueError(
                f"expected renew_every_s ({self.renew_every_s}) below the {self.held_s} s held less"
                f" stop_margin_s ({self.stop_margin_s})"
            )
        return self


class Membership(Model):
    """Whose grants count; witnesses included. A new agent starts with version 0 and no members."""

    version: int = Field(default=0, ge=0)
    members: tuple[str, ...] = ()
    """node_ids"""
    disks: tuple[tuple[str, str], ...] = ()
    """node_id and `disk_id` of each member that was added later."""

    @property
    def majority(self) -> int:
        return len(self.members) // 2 + 1


class Pending(Model):
    """A change of membership that a grantor accepted and does not yet know to be agreed."""

    epoch: int
    """Of the holder that proposed it."""
    membership: Membership


class Ask(Model):
    """A holder asks every member for a grant, first or renewed."""

    ask_id: str
    """Never used before by this holder, restarts included."""
    holder: str
    epoch: int = Field(ge=1)
    run_id: str
    """To whom the epoch was promised."""
    membership_version: int


class Granted(Model):
    """The answer to one ask: nobody else is granted anything here until this has run out or is released."""

    ask_id: str
    member: str
    holder: str
    epoch: int
    duration_s: float = Field(gt=0)
    """From now on, by the grantor's clock."""
    pending: Pending | None = None


class PromiseRequest(Model):
    """Grant nothing below this epoch any more, and promise it to nobody else."""

    epoch: int = Field(ge=1)
    run_id: str
    """Who asks: a run, or a name that a former holder never used before."""
    membership_version: int
    former_holder: str | None = None
    """Set by an agent that would take the lease up again itself; it gives way to runs."""
    served_epoch: int | None = None
    """The last one that this former holder held: only whoever was granted a later one was primary since. None
    where it does not say; agents from before this field refuse a request that has it."""


class Withdrawal(Model):
    """A run gave up the epoch that was promised to it."""

    epoch: int
    run_id: str


class LastGrant(Model):
    """The newest grant an agent gave, but for one of which nothing came."""

    epoch: int
    holder: str
    duration_s: float = Field(gt=0)
    """For how long each time; where an earlier, longer one still binds, of that."""
    released: bool = False


class Binding(Model):
    """A grant that still keeps an agent from granting to another holder."""

    holder: str
    epoch: int
    remaining_s: float = Field(ge=0)
    """By its own clock when it answered."""


class Promised(Model):
    """A member's promise, and what it has granted so far. Nothing below the epoch is added after it."""

    member: str
    epoch: int
    run_id: str
    membership_version: int
    granted: LastGrant | None = None
    remaining_s: float = Field(ge=0)
    """How long that grant still keeps it from granting another, by its clock when it answered."""


class Release(Model):
    """No process of the holder's database is left, and it never serves under this epoch or below again."""

    holder: str
    epoch: int
    never_primary: bool | None = None
    """True where besides its database never was a primary under this epoch: a promotion that was lost. What
    was granted before is the last word then. None says nothing of it; agents from before this field refuse a
    release that has it, so they are told one without it as well."""
