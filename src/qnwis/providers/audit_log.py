"""Where the audit trail is written: rows that are appended, in SQLite, PostgreSQL or S3.

A row is kept as it was written and never understood here; the chain, the persons, the seals and the proofs
are the store's (`audit_store.py`). Everything here blocks, and runs in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Row:
    """A record as it is written."""

    sequence: int
    audit_id: str
    run_id: str
    operation: str
    text: str
    """The record's canonical JSON, or what it is sealed in."""


@dataclass(frozen=True)
class HeadRow:
    """A signed tree head as it is written."""

    size: int
    peaks: bytes
    """Hashes of the tree's complete subtrees, the largest first."""
    text: str
    """Canonical JSON of the signed tree head."""


class Conflict(Exception):
    """Another writer was first; to be begun anew."""


class View(Protocol):
    """One consistent view of the log. A damaged byte comes out as it is, to be found by the hash."""

    def newest(self) -> Row | None: ...

    def own(self, run_id: str, operation: str) -> Row | None:
        """The one record of that run and operation."""
        ...

    def by_id(self, audit_id: str) -> Row | None: ...

    def by_run(self, run_id: str) -> list[Row]:
        """Oldest first."""
        ...

    def latest(self, limit: int) -> list[Row]:
        """Newest first."""
        ...

    def after(self, sequence: int, limit: int) -> list[Row]:
        """The next behind that place in the log, oldest first; each with its own place."""
        ...

    def rows(self) -> Iterator[Row]:
        """All, oldest first."""
        ...

    def artefacts(self, sequence: int) -> dict[str, str]: ...

    def all_artefacts(self) -> Iterator[tuple[int, object, object]]:
        """Sequence, name and text of each."""
        ...

    def newest_head(self, *, below: int | None = None) -> HeadRow | None:
        """Of the largest tree; with fewer than `below` records."""
        ...

    def heads(self) -> Iterator[HeadRow]:
        """All, the smallest tree first."""
        ...


class Writing(View, Protocol):
    def add(self, row: Row, artefacts: Mapping[str, str], head: HeadRow) -> None:
        """All of it or nothing. Raises Conflict where another writer was first."""
        ...


class AuditLog(Protocol):
    """Raises one of `failures` where it cannot be read or written now, `damages` where it is no log any
    more."""

    failures: tuple[type[Exception], ...]
    damages: tuple[type[Exception], ...]

    def __str__(self) -> str:
        """Where it is, without a secret."""
        ...

    def exists(self) -> bool:
        """Whether something was ever written."""
        ...

    def reading(self) -> AbstractContextManager[View]:
        """An empty view where nothing was ever written."""
        ...

    def writing(self) -> AbstractContextManager[Writing]:
        """Done at the end and on disk then; not done where an exception ends it."""
        ...
