"""Deletions of an active/active cluster that are forgotten: which may be, and why not.

A tombstone keeps a deletion from being undone by an older write that arrives after it. It is of no use any
more once every region has it, and everything that was written anywhere before that has arrived everywhere:
whoever writes the row afterwards knows of the deletion.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pydantic import AwareDatetime, Field

from .model import Identifier, Model
from .refusal import Refusal


class Tombstone(Model):
    """One deletion, as the regions have it on record."""

    relation: str
    key: str
    """As JSON in the database's own form, which is the same in all regions."""
    region: Identifier
    """Where the row was deleted."""
    written_at: AwareDatetime


class Pruned(Model):
    """What was forgotten. In one region it may be less than in another: a row was written again meanwhile."""

    older_than_s: float
    found: int
    """Tombstones that all regions had, and that were old enough everywhere."""
    by_region: Mapping[Identifier, int]
    """Of these, how many each has forgotten."""
    left: Mapping[Identifier, str] = Field(default_factory=dict)
    """Regions that did not forget while another did, or are not known to have, and why. They differ from the
    others, and no further prune ends that: it takes what all have."""
    tables: tuple[str, ...] = ()
    """Where regions are left: whose deletions they are."""

    def remedy(self) -> str:
        """Of what is left: whoever has forgotten is told of the deletions anew."""
        calls = "; ".join(f"SELECT qnwis.announce('{table}')" for table in self.tables)
        return (
            f"In the database of {', '.join(sorted(self.left))}: {calls}. Once that has arrived, prune again."
        )


def forgettable(found: Mapping[str, Collection[Tombstone]]) -> frozenset[Tombstone]:
    """`found`: by region, those old enough there. What one lacks, or has another deletion of, stays."""
    every = [frozenset(tombstones) for tombstones in found.values()]
    return frozenset.intersection(*every) if every else frozenset()


def behind_refusal(behind: Mapping[str, Mapping[str, int | None]]) -> Refusal | None:
    """`behind`: by region that writes and region that reads (or the slot of one that the topology has not),
    how many bytes of log are not confirmed; None where it is not subscribed. Bytes that were written after
    the tombstones were read do not count."""
    late = {
        f"{source} → {target}": left
        for source, targets in sorted(behind.items())
        for target, left in sorted(targets.items())
        if left is None or left > 0
    }
    if not late:
        return None
    told = ", ".join(
        f"{way}: {'not subscribed' if left is None else f'{left} bytes'}" for way, left in late.items()
    )
    return Refusal(
        rule="subscription_behind",
        message=f"What was written has not arrived everywhere ({told}), and may bring a deleted row back",
        values={"behind": {**late}},
        remedy="Wait until every region receives again, or subscribe it anew and announce each table. Drop"
        " the slot of a region that is no more.",
    )
