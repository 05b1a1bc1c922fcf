"""The journal: what this agent was ordered and what it did, as JSON lines synced before they count.

An order carried out leaves an `intent` line before its effect and a line after: `done` with the receipt,
`refused` (what was begun was taken back), or `failed` (something may have been changed). An intent with
nothing after it means that the agent was killed in the middle. An order refused before its effect began
leaves only a `refused` line.

A rejoin leaves two more: `replacing` before the first change to what the data directory holds, `replaced`
once it is whole again. Where it fails or is killed outside of these two, the data may be started on.
"""

from __future__ import annotations

import os
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from qnwis.continuity.model import Model
from qnwis.continuity.orders import AnyOrder, DemoteOrder, Receipt, RejoinOrder
from qnwis.durable import sync_directory

from .files import StateError, read_kept

JOURNAL = "journal.jsonl"


class Mark(StrEnum):
    INTENT = "intent"
    REPLACING = "replacing"
    REPLACED = "replaced"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


class Line(Model):
    """One line of the journal."""

    at: datetime
    mark: Mark
    order: AnyOrder
    receipt: Receipt | None = None
    """Of `done`."""
    reason: str | None = None
    """Of `refused` and `failed`."""
    marks_replacing: bool | None = None
    """Of a rejoin's `intent`: true, since `replacing` follows before anything is replaced. None in a journal
    of an earlier version, which never wrote that."""


class Journal:
    """Append-only. Kept in memory too: a node obeys few orders in its life."""

    def __init__(self, path: Path) -> None:
        """Raises StateError for a damaged line, unless it is the last one, torn by a crash."""
        self._path = path
        self._lines, whole_bytes, torn = read_journal(path)
        if torn:
            # Cut off by a crash while it was written: nothing was answered or done on its strength.
            os.truncate(path, whole_bytes)

    @property
    def lines(self) -> tuple[Line, ...]:
        return tuple(self._lines)

    def append(self, line: Line) -> None:
        """On disk when this returns. Raises OSError, for example on a full disk, and leaves nothing then."""
        text = line.model_dump_json(exclude_none=True).encode() + b"\n"
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            before = os.fstat(fd).st_size
            try:
                _write(fd, text)
                os.fsync(fd)
            except BaseException:
                os.ftruncate(fd, before)  # else the next line would be on half of this one
                raise
        finally:
            os.close(fd)
        if before == 0:
            sync_directory(self._path.parent)
        self._lines.append(line)

    def receipt_of(self, effect_id: str) -> Receipt | None:
        """The receipt of an effect already done."""
        return next((x.receipt for x in self._lines if x.receipt and x.receipt.effect_id == effect_id), None)

    def begun(self, effect_id: str) -> bool:
        """Whether this effect was ever begun."""
        return any(x.mark is Mark.INTENT and x.order.effect_id == effect_id for x in self._lines)

    def made_standby_under(self, epoch: int) -> bool:
        """Whether an order to make the data directory a standby's was begun under this epoch, or since."""
        return any(
            x.mark is Mark.INTENT
            and isinstance(x.order, DemoteOrder | RejoinOrder)
            and x.order.epoch >= epoch
            for x in self._lines
        )

    def unfinished_rejoin(self) -> RejoinOrder | None:
        """The rejoin that left the data directory half rewound or half exchanged; None where it is whole."""
        for line in reversed(self._lines):
            if not isinstance(line.order, RejoinOrder):
                continue
            if line.mark in (Mark.DONE, Mark.REPLACED):
                return None
            if line.mark is Mark.REPLACING or (line.mark is Mark.INTENT and not line.marks_replacing):
                return line.order
            # Else it replaced nothing, and left the data as an earlier rejoin did.
        return None


def _write(fd: int, text: bytes) -> None:
    while text:  # a disk that is nearly full takes a part of it
        text = text[os.write(fd, text) :]


def read_journal(path: Path) -> tuple[list[Line], int, bool]:
    """Its whole lines, how many bytes they are, and whether more comes after them.

    Raises StateError for a damaged line.
    """
    text = read_kept(path) or b""
    whole_bytes = text.rfind(b"\n") + 1
    lines = []
    # Nothing else ends a line: JSON may hold what Unicode calls one.
    for number, line in enumerate(text[:whole_bytes].split(b"\n")[:-1], start=1):
        try:
            lines.append(Line.model_validate_json(line))
        except ValidationError as error:
            said = line[:80].decode(errors="replace")
            raise StateError(
                f"{path}: line {number}: {said!r} is not a journal line; expected at, mark and order."
                " Restore the file, or rebuild this node as a new member"
            ) from error
    return lines, whole_bytes, whole_bytes < len(text)
