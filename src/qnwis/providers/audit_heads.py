"""The signed tree heads of an audit store: one for each record, from the first that had one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from qnwis.continuity.audit import ChainFault, Check, FaultCode, Sign
from qnwis.continuity.merkle import HASH_BYTES, Tree, grown, leaf_hash, root_of
from qnwis.continuity.model import canonical_json
from qnwis.continuity.sealed_records import is_sealed, read_sealed
from qnwis.continuity.tree_heads import SignedTreeHead, is_signed, sign_head

from .audit_faults import fault_of
from .audit_log import HeadRow, Row, View


def next_head(view: View, sequence: int, leaf: bytes, sign: Sign) -> HeadRow:
    """The head of the tree with this leaf behind what the view has."""
    before, size = view.newest_head(), sequence - 1
    if before is not None and before.size == size:
        peaks = [before.peaks[at : at + HASH_BYTES] for at in range(0, len(before.peaks), HASH_BYTES)]
    else:  # of a store that began before there were heads
        peaks = []
        for place, earlier in enumerate(leaves(view.rows())):
            peaks = grown(peaks, place, earlier)
    peaks = grown(peaks, size, leaf)
    signed = sign_head(sequence, root_of(peaks), datetime.now(UTC), sign)
    return HeadRow(sequence, b"".join(peaks), canonical_json(signed))


def leaves(rows: Iterable[Row]) -> Iterator[bytes]:
    for row in rows:
        yield _leaf_of(row.text)


def _leaf_of(text: str | bytes) -> bytes:
    """Of the record in clear; of a damaged one, of what is there."""
    if is_sealed(text):
        try:
            return bytes.fromhex(read_sealed(str(text)).leaf)
        except ValueError:
            pass
    return leaf_hash(text if isinstance(text, bytes) else str(text).encode(errors="surrogateescape"))


def tree_of(view: View) -> Tree:
    return Tree(list(leaves(view.rows())))


def head_faults(rows: Iterable[Row], heads: Iterable[HeadRow], check: Check) -> Iterator[ChainFault]:
    """Every head that is not this tree's, and those that are missing."""
    roots: dict[int, tuple[str, bytes]] = {}
    peaks: list[bytes] = []
    for place, leaf in enumerate(leaves(rows)):
        peaks = grown(peaks, place, leaf)
        roots[place + 1] = root_of(peaks).hex(), b"".join(peaks)
    due: int | None = None
    for row in heads:
        size = row.size
        if size != (due or size):
            yield fault_of(due or 0, FaultCode.ALTERED_HEAD, f"the head of {due} records is missing")
        due = size + 1
        try:
            signed = SignedTreeHead.model_validate_json(row.text)
        except (ValueError, TypeError):
            yield fault_of(size, FaultCode.ALTERED_HEAD, "what is stored is not a signed tree head")
            continue
        as_written = row.text == canonical_json(signed) and signed.head.size == size
        if not as_written or not is_signed(signed, check):
            yield fault_of(
                size, FaultCode.ALTERED_HEAD, f"the head of {size} records is not as it was signed"
            )
        elif (signed.head.root, row.peaks) != roots.get(size):
            yield fault_of(
                size, FaultCode.ALTERED_HEAD, f"the first {size} records are not those of its head"
            )
    if due is not None and due <= len(roots):
        yield fault_of(due, FaultCode.ALTERED_HEAD, f"the head of {due} records is missing")
