"""A small record that is replaced often: one file with two copies of it, of which the older is overwritten.

A new file with a new name waits twice for the file system's journal, and so for whatever else that disk is
given to write: beside a database that ends or is promoted, 10 ms and more, with every client waiting. Where
blocks that a file has are overwritten, no name and no size changes, and only those bytes are waited for.

A copy that went bad on the disk later is not told from one that a crash cut off: the one before it counts.
"""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path
from typing import NamedTuple

from qnwis.durable import sync_directory

from .files import StateError, read_kept, remove_durably, write_durably

PAGE_BYTES = 4096
"""A copy is whole pages, so that none is in a block with a part of the other."""

_COPY = re.compile(rb"#(\d+) ([0-9a-f]{8}) ?(.*)", re.DOTALL)


class Found(NamedTuple):
    """What a file of two copies says."""

    text: str | None
    """Empty where there is no file, or nothing in it. None for a file without a whole copy."""
    number: int = 0
    """Of how many writes; 0 for a file of an older agent, which is the text alone."""
    place: int | None = None
    """Which copy it is, 0 or 1."""


def read_copies(path: Path) -> Found:
    """The newest whole copy. Raises StateError for a file that cannot be read."""
    kept = read_kept(path)
    if kept is None:
        return Found("")
    if kept.startswith(b"{") or (len(kept) % (2 * PAGE_BYTES) != 0 and not kept.startswith(b"#")):
        return Found(kept.decode(errors="replace").strip() or None)
    if len(kept) < 2 * PAGE_BYTES:
        return Found(None)
    size, found = _copy_bytes(len(kept)), Found(None)
    for place in (0, 1):
        copy = _COPY.fullmatch(kept[place * size : (place + 1) * size].rstrip())
        if copy is not None and copy[2].decode() == _checksum(copy[1], copy[3]):
            number = int(copy[1])
            found = Found(copy[3].decode(), number, place) if number > found.number else found
    return found


class TwoCopies:
    """The record in `path`, a text that ends with no space, for the one who writes it."""

    def __init__(self, path: Path) -> None:
        """What is there is on disk when this returns, as what was read is counted on. Raises StateError where
        that cannot be, and for a file that cannot be read."""
        found = read_copies(path)
        self.text = found.text
        """What was written last; empty where nothing was, or it was cleared. None for a damaged file."""
        self._path = path
        self._number = found.number
        self._place = found.place
        """Where the copy is that counts; None where the file has to be written anew."""
        self._unsure = found != Found("") and found.place is None
        """Whether the file may hold another text than counts here, after a write that failed."""
        if found != Found(""):
            _settle(path)

    def write(self, text: str) -> None:
        """On disk when this returns. After a crash in the middle it is the former text or this one; and so it
        is after OSError, but until then the former one counts."""
        self._number += 1
        number = b"%d" % self._number
        copy = b"#%s %s %s" % (number, _checksum(number, text.encode()).encode(), text.encode())
        self._unsure = True
        try:
            place = self._overwrite(copy)
        except OSError:
            place = None  # of this file; a new one may do, and where that may not either, its error is told
        if place is None:
            self._place = None  # until it is known which file there is, none of it is overwritten
            self._write_anew(copy)
            place = 0
        self._place, self.text, self._unsure = place, text, False

    def clear(self) -> None:
        """Nothing is kept any more, whatever a write that failed left; on disk when this returns."""
        if self._unsure:
            remove_durably(self._path)
            self._place, self.text, self._unsure = None, "", False
        elif self.text != "":
            self.write("")

    def _overwrite(self, copy: bytes) -> int | None:
        """Replace the older copy; the place that this one is in now. None where the file is not one of two
        such copies."""
        if self._place is None:
            return None
        fd = os.open(self._path, os.O_WRONLY)
        try:
            file_bytes = os.fstat(fd).st_size
            size, place = _copy_bytes(file_bytes), 1 - self._place
            if file_bytes != 2 * size or len(copy) >= size:
                return None
            if os.pwrite(fd, _padded(copy, size), place * size) != size:
                return None
            os.fdatasync(fd)
            return place
        finally:
            os.close(fd)

    def _write_anew(self, copy: bytes) -> None:
        size = (len(copy) // PAGE_BYTES + 1) * PAGE_BYTES
        write_durably(self._path, (_padded(copy, size) + _padded(b"", size)).decode())


def _settle(path: Path) -> None:
    """Have a file that was read, and its name, on disk: whoever wrote it may not have come to that."""
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_directory(path.parent)
    except OSError as error:
        raise StateError(
            f"{path}: whether it is on disk is not known ({error.strerror}); see to the disk, and start the"
            " agent again"
        ) from error


def _checksum(number: bytes, text: bytes) -> str:
    """Of both: a number that went bad would make the older copy the newer one."""
    return f"{zlib.crc32(number + b' ' + text):08x}"


def _copy_bytes(file_bytes: int) -> int:
    return max(1, file_bytes // (2 * PAGE_BYTES)) * PAGE_BYTES


def _padded(copy: bytes, size: int) -> bytes:
    return copy.ljust(size - 1) + b"\n"
