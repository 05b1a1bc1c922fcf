"""What a part of the log holds that is about to be discarded, read from the text of pg_waldump.

A transaction is discarded where its commit lies in that part, wherever it began: what it wrote before the
histories parted is in the other database as well, but never committed there. So the reader begins earlier,
and knows whether it began early enough: transaction ids are given out in order, and the log says now and
then which comes next.

Only PostgreSQL itself can turn the log into rows. This names the blocks that the transactions wrote to, so
that the rows are found there by the transaction that wrote them (`xmin`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .model import Model
from .timelines import lsn_of

_LINE = re.compile(r"^rmgr: (\S+) .*?tx: +(\d+), lsn: ([0-9A-F]+/[0-9A-F]+), .*?desc: (\S+) ?(.*)$")
_BLOCK = re.compile(r"blkref #0: rel (\d+)/(\d+)/(\d+) (?:fork \w+ )?blk (\d+)")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(\.\d+)? UTC")
_SUBTRANSACTIONS = re.compile(r"subxacts:((?: \d+)+)")
_TWO_PHASE = re.compile(r"(\d+): ")
_NEXT_XID = re.compile(r"nextXid (\d+)|\bxid \d+:(\d+);")

WRITES = {"INSERT", "MULTI_INSERT", "UPDATE", "HOT_UPDATE"}


@dataclass(frozen=True)
class Relation:
    """Where PostgreSQL keeps a table: the numbers in the log."""

    tablespace: int
    database: int
    """0 for what all databases share."""
    file: int


@dataclass
class Changes:
    """What transactions did to one relation."""

    blocks: set[int] = field(default_factory=set)
    """Where they wrote rows: new ones, and new versions of old ones."""
    deleted: int = 0
    """Records of deleted rows."""

    def add(self, other: Changes) -> None:
        self.blocks |= other.blocks
        self.deleted += other.deleted


@dataclass(frozen=True)
class Transaction:
    """One that committed in the part that is read for."""

    xid: int
    subxids: tuple[int, ...]
    """Its subtransactions: rows name these."""
    committed_at: datetime | None
    lsn: str
    """Of the record of its commit."""


@dataclass(frozen=True)
class Found:
    """What was read."""

    transactions: tuple[Transaction, ...]
    changes: dict[Relation, Changes]
    """Of those transactions."""
    prepared: int
    """Transactions that were prepared there, for a commit in two phases."""
    last_lsn: int | None
    """Where the last record begins; None where there is none."""
    whole: bool
    """Whether nothing that these transactions wrote lies before what was read."""

    @property
    def empty(self) -> bool:
        """Whether nothing that a client was told of lies there."""
        return not self.transactions and not self.prepared


class LogReader:
    """Reads pg_waldump's lines in the order of the log. `from_lsn`: where the part begins that counts."""

    def __init__(self, from_lsn: int) -> None:
        self._from_lsn = from_lsn
        self._open: dict[int, dict[Relation, Changes]] = {}
        self._transactions: list[Transaction] = []
        self._changes: dict[Relation, Changes] = {}
        self._prepared = 0
        self._last_lsn: int | None = None
        self._next_xid: int | None = None

    def read(self, line: str) -> bool:
        """Take a line in. Whether it belongs to the part that counts."""
        if (found := _LINE.match(line)) is None:
            return False
        manager, xid, place, what, rest = found[1], int(found[2]), lsn_of(found[3]), found[4], found[5]
        counts = place >= self._from_lsn
        if counts:
            self._last_lsn = place
        if manager in ("Heap", "Heap2"):
            self._take_change(xid, what.partition("+")[0], rest)
        elif manager == "Transaction":
            self._take_end(xid, what, rest, found[3], counts=counts)
        elif manager in ("Standby", "XLOG") and self._next_xid is None:
            said = _NEXT_XID.search(rest)
            self._next_xid = int(said[1] or said[2]) if said else None
        return counts

    def found(self) -> Found:
        xids = [xid for one in self._transactions for xid in (one.xid, *one.subxids)]
        known = self._next_xid
        whole = not xids or (known is not None and not any(_precedes(xid, known) for xid in xids))
        return Found(tuple(self._transactions), dict(self._changes), self._prepared, self._last_lsn, whole)

    def _take_change(self, xid: int, what: str, rest: str) -> None:
        if not xid or what not in {*WRITES, "DELETE"} or (block := _BLOCK.search(rest)) is None:
            return
        relation = Relation(int(block[1]), int(block[2]), int(block[3]))
        changes = self._open.setdefault(xid, {}).setdefault(relation, Changes())
        if what == "DELETE":
            changes.deleted += 1
        else:
            changes.blocks.add(int(block[4]))

    def _take_end(self, xid: int, what: str, rest: str, lsn: str, *, counts: bool) -> None:
        if what == "PREPARE":
            self._prepared += counts
            return
        if what not in ("COMMIT", "COMMIT_PREPARED", "ABORT", "ABORT_PREPARED"):
            return
        if what.endswith("_PREPARED") and (named := _TWO_PHASE.match(rest)):
            xid = int(named[1])
        below = _SUBTRANSACTIONS.search(rest)
        subxids = tuple(map(int, below[1].split())) if below else ()
        written = [self._open.pop(one, {}) for one in (xid, *subxids)]
        if not counts or what.startswith("ABORT"):
            return
        for relation, changes in _each(written):
            self._changes.setdefault(relation, Changes()).add(changes)
        self._transactions.append(Transaction(xid, subxids, _time(rest), lsn))


def _each(written: Iterable[dict[Relation, Changes]]) -> Iterable[tuple[Relation, Changes]]:
    for one in written:
        yield from one.items()


def _time(text: str) -> datetime | None:
    found = _TIME.search(text)
    if found is None:
        return None
    return datetime.fromisoformat(f"{found[1]}{(found[2] or '.0')[:7]:0<7}").replace(tzinfo=UTC)


def _precedes(xid: int, other: int) -> bool:
    """Whether `xid` was given out before `other`; the numbers begin anew after 2^32."""
    return (xid - other) & 0xFFFFFFFF >= 1 << 31


class ExportedTable(Model):
    """What is exported of one table."""

    database: str
    table: str
    """With its schema, quoted as in SQL."""
    rows: int
    """Rows as the last of the discarded transactions left them."""
    deleted: int
    """Rows that those transactions deleted. They are counted: the other database has them still."""


class ExportedFile(Model):
    name: str
    """Below the folder of the export."""
    bytes: int
    sha256: str


class ExportedStretch(Model):
    """A part of the log that the other database does not have."""

    timeline: int
    from_lsn: str
    to_lsn: str | None
    """None: as far as it went."""


class Export(Model):
    """The manifest of an export: what a node alone had before a rejoin discarded it."""

    effect_id: str
    node_id: str
    upstream: str
    """node_id of the database that does not have it"""
    system_identifier: str
    at: datetime
    log: tuple[ExportedStretch, ...]
    transactions: int
    """That committed there."""
    rows: int
    tables: tuple[ExportedTable, ...]
    not_as_rows: tuple[str, ...]
    """What is in the log that is kept, but not in `rows.jsonl`, in words."""
    files: tuple[ExportedFile, ...]

    def in_words(self, where: str) -> str:
        deleted = sum(table.deleted for table in self.tables)
        return (
            f"{self.transactions} transactions that only {self.node_id} had ({self.rows} rows,"
            f" {deleted} deleted rows) were exported to {where}"
        )
