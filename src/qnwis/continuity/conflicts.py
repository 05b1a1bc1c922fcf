"""Two versions of one row, written in different regions: which one stays, and how that is taken back.

`qnwis/sql/active_active.sql` decides the same inside the database, where the writes arrive; a test holds
the two equal.

The stamp of a write is later than that of the version it was written on top of, even where a region's wall
clock runs behind. So the later of two versions is never before the other by vector clock, and taking the
later one gives every region the same row in whatever order versions reach it. Where its author had not seen
the other version, the stamp alone has decided: that is a conflict, and it is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from pydantic import AwareDatetime, JsonValue

from .clocks import Clock, merge
from .model import Identifier, Model, sha256_digest
from .refusal import Refusal


class Version(Model):
    """A row as one write left it."""

    region: Identifier
    """Where it was written."""
    clock: Clock
    """What it has seen. Once another version lost against it, it has seen that one too."""
    written_at: AwareDatetime
    """By the writing region's clock, to the microsecond, and later than what it was written on top of."""
    row: Mapping[str, JsonValue] | None
    """The columns; None for a deletion."""

    @property
    def write(self) -> str:
        """The one write of this row that left it so. A region never gives two of them one stamp; a count of
        its clock it may, once it has lost its newest writes."""
        return f"{self.region}@{self.written_at.isoformat(timespec='microseconds')}"

    @property
    def rank(self) -> tuple[AwareDatetime, str]:
        """Of two versions the one that ranks higher stays."""
        return self.written_at, self.region

    def told(self) -> str:
        """For people."""
        deleted = "" if self.row is not None else ", deletion"
        return f"{self.region} {self.written_at:%F %T.%f}{deleted}"


class Why(StrEnum):
    """What decided."""

    SEEN = "seen"  # the winner was written on top of the other: no conflict
    LATER = "later"  # neither had seen the other, and the winner was written later
    REGION = "region"  # and at the same microsecond: the name of its region sorts higher


class Resolution(Model):
    """What stays of two versions."""

    winner: Version
    loser: Version
    why: Why
    clock: Clock
    """Of the row from now on: it has seen both."""

    @property
    def is_conflict(self) -> bool:
        """Whether a write was overwritten that the winner's author had not seen."""
        return self.why is not Why.SEEN


def resolve(one: Version, other: Version) -> Resolution:
    """Which of two versions of a row stays; the same whichever is named first.

    A clock that has seen the other although its stamp is earlier is not believed: a region that lost its
    newest writes counts from an old count again. Such versions are in conflict.
    """
    clock = merge(one.clock, other.clock)
    if one.rank == other.rank:
        same = one.model_copy(update={"clock": clock})
        return Resolution(winner=same, loser=same, why=Why.SEEN, clock=clock)
    winner, loser = (one, other) if one.rank > other.rank else (other, one)
    if _had_seen(winner, loser):
        why = Why.SEEN
    else:
        why = Why.LATER if winner.written_at > loser.written_at else Why.REGION
    return Resolution(winner=winner, loser=loser, why=why, clock=clock)


def _had_seen(later: Version, earlier: Version) -> bool:
    """Whether whoever wrote the later version had the earlier one's write before him.

    Its one write counts, and not all of its clock: a row's clock has seen what lost against the row, too,
    which the author of the next version elsewhere need not have.
    """
    count, seen = earlier.clock.get(earlier.region, 0), later.clock.get(earlier.region, 0)
    return seen > count or (seen == count and later.region != earlier.region)


# --- The report ---------------------------------------------------------------------------------------------


class Conflict(Model):
    """A conflict that was resolved, as one region recorded it."""

    table: str
    key: Mapping[str, JsonValue]
    winner: Version
    loser: Version
    why: Why
    seen_in: tuple[Identifier, ...]
    """The regions that found it: each one where both versions met."""
    found_at: AwareDatetime
    undone_at: AwareDatetime | None = None

    @property
    def conflict_id(self) -> str:
        """The same in every region, and short enough to be typed."""
        what = {"table": self.table, "key": dict(self.key)}
        writes = {"winner": self.winner.write, "loser": self.loser.write}
        return sha256_digest({**what, **writes}).removeprefix("sha256:")[:16]

    def told(self) -> str:
        """For people, in a line."""
        key = ", ".join(map(str, self.key.values()))
        undone = "" if self.undone_at is None else f"; undone {self.undone_at:%F %T}"
        return (
            f"{self.conflict_id}  {self.table} {key}: {self.winner.told()} stays, {self.loser.told()} is"
            f" overwritten ({self.why.value}){undone}"
        )


def report(found: Iterable[Conflict]) -> tuple[Conflict, ...]:
    """What all regions recorded, each conflict once, the oldest first."""
    one: dict[str, Conflict] = {}
    for conflict in found:
        known = one.setdefault(conflict.conflict_id, conflict)
        undone = [at for at in (known.undone_at, conflict.undone_at) if at is not None]
        one[conflict.conflict_id] = known.model_copy(
            update={
                "seen_in": tuple(sorted({*known.seen_in, *conflict.seen_in})),
                "found_at": min(known.found_at, conflict.found_at),
                "undone_at": min(undone, default=None),
            }
        )
    return tuple(sorted(one.values(), key=lambda each: (each.found_at, each.conflict_id)))


class Undo(Model):
    """A write that puts the overwritten version back. It is made only while the winner is still there."""

    table: str
    key: Mapping[str, JsonValue]
    expects_write: str
    """The write that the row must have now, as `Version.write` names it: compare and swap."""
    row: Mapping[str, JsonValue] | None
    """What to write; None to delete."""


def undo(conflict: Conflict, present: Version | None) -> Undo | Refusal:
    """How a resolution is taken back, given the row's present version, a deletion included; None where
    nothing is known of it.

    It is a write like any other: it has seen both versions, reaches every region, and is no conflict again.
    """
    expected = conflict.winner.write
    if conflict.undone_at is not None:
        return Refusal(
            rule="conflict_undone_already",
            message=f"{conflict.conflict_id} was undone at {conflict.undone_at.isoformat()}",
            values={"conflict_id": conflict.conflict_id, "undone_at": conflict.undone_at.isoformat()},
            remedy="Nothing to do; the row's later versions are ordinary writes.",
        )
    if present is None or present.write != expected:
        found = None if present is None else present.write
        return Refusal(
            rule="row_changed_since",
            message=f"{conflict.table} {dict(conflict.key)}: the row has version {found or 'unknown'} now,"
            f" not {expected}, which had won; an undo would overwrite what was written since",
            values={"expected": expected, "found": found},
            remedy="Look at both versions (`conflicts show`), and write by hand what the row should be.",
        )
    return Undo(table=conflict.table, key=conflict.key, expects_write=expected, row=conflict.loser.row)
