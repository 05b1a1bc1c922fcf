"""The signed tree heads of an audit store: one for each record, from the first that had one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime

from qnwis.continuity.audit import ChainFault, Check, FaultCode, Sign
from qnwis.continuity.merkle import HASH_BYTES, Tree, grown, leaf_hash, root_of
from qnwis.continuity.model import canonical_json
from qnwis.continuity.tree_heads import SignedTreeHead, is_signed, sign_head

from .audit_faults import fault_of


def newest_head(db: sqlite3.Connection, *, below: int = 1 << 62) -> tuple[int, bytes, str] | None:
    """Size, peaks and signed head of the newest tree with fewer than `below` records."""
    row: tuple[int, bytes, str] | None
    query = "SELECT size, peaks, head FROM heads WHERE size < ? ORDER BY size DESC LIMIT 1"
    row = db.execute(query, (below,)).fetchone()
    return row


def grow(db: sqlite3.Connection, sequence: int, written: str, sign: Sign) -> None:
    """Sign the head of the tree with the record that was just written."""
    before, size = newest_head(db), sequence - 1
    if before is not None and before[0] == size:
        peaks = [before[1][at : at + HASH_BYTES] for at in range(0, len(before[1]), HASH_BYTES)]
        peaks = grown(peaks, size, leaf_hash(written.encode()))
    else:  # of a store that began before there were heads
        peaks = []
        for place, leaf in enumerate(_leaves(db)):
            peaks = grown(peaks, place, leaf)
    signed = sign_head(sequence, root_of(peaks), datetime.now(UTC), sign)
    db.execute("INSERT INTO heads VALUES (?, ?, ?)", (sequence, b"".join(peaks), canonical_json(signed)))


def _leaves(db: sqlite3.Connection) -> Iterator[bytes]:
    for (text,) in db.execute("SELECT record FROM records ORDER BY sequence"):
        yield leaf_hash(text if isinstance(text, bytes) else str(text).encode(errors="surrogateescape"))


def tree_of(db: sqlite3.Connection) -> Tree:
    return Tree(list(_leaves(db)))


def head_faults(db: sqlite3.Connection, check: Check) -> Iterator[ChainFault]:
    """Every head that is not this tree's, and those that are missing."""
    roots: dict[int, tuple[str, bytes]] = {}
    peaks: list[bytes] = []
    for place, leaf in enumerate(_leaves(db)):
        peaks = grown(peaks, place, leaf)
        roots[place + 1] = root_of(peaks).hex(), b"".join(peaks)
    due: int | None = None
    for size, kept, text in db.execute("SELECT size, peaks, head FROM heads ORDER BY size"):
        if size != (due or size):
            yield fault_of(due or 0, FaultCode.ALTERED_HEAD, f"the head of {due} records is missing")
        due = size + 1
        try:
            signed = SignedTreeHead.model_validate_json(text)
        except (ValueError, TypeError):
            yield fault_of(size, FaultCode.ALTERED_HEAD, "what is stored is not a signed tree head")
            continue
        as_written = text == canonical_json(signed) and signed.head.size == size
        if not as_written or not is_signed(signed, check):
            yield fault_of(
                size, FaultCode.ALTERED_HEAD, f"the head of {size} records is not as it was signed"
            )
        elif (signed.head.root, kept) != roots.get(size):
            yield fault_of(
                size, FaultCode.ALTERED_HEAD, f"the first {size} records are not those of its head"
            )
    if due is not None and due <= len(roots):
        yield fault_of(due, FaultCode.ALTERED_HEAD, f"the head of {due} records is missing")
