"""The write-ahead log as numbers: a tree of branches, one for each promotion.

Two nodes that are promoted without knowing of each other begin branches of the same timeline, as PostgreSQL
does; so a branch, and not its timeline, says what a node's log contains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tests.chaos.facts import Write


@dataclass(eq=False)
class Branch:
    """What one node wrote from its promotion on."""

    timeline: int
    node_id: str
    parent: Branch | None = None
    fork_lsn: int = 0
    """Where it left its parent."""


class Position(NamedTuple):
    """How far a node's log reaches."""

    branch: Branch
    lsn: int

    def contains(self, branch: Branch, lsn: int) -> bool:
        """Whether what was written there is part of this log."""
        limit, own = self.lsn, self.branch
        while own is not branch:
            if own.parent is None:
                return False
            limit, own = min(limit, own.fork_lsn), own.parent
        return lsn <= limit


class Rows:
    """Every row that any node ever wrote, and where."""

    def __init__(self) -> None:
        self._written: list[tuple[Write, Branch, int]] = []

    def add(self, write: Write, branch: Branch, lsn: int) -> None:
        self._written.append((write, branch, lsn))

    def of(self, position: Position) -> frozenset[Write]:
        return frozenset(write for write, branch, lsn in self._written if position.contains(branch, lsn))
