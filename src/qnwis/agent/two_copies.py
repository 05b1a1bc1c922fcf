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

from .files import read_kept, write_durably

PAGE_BYTES = 4096
"""A copy is whole pages, so that none is in a block with a part of the other."""

_COPY = re.compile(rb"#(\d+) ([0-9a-f]{8}) ?(.*)", re.DOTALL)


class TwoCopies:
    """The record in `path`, a text that ends with no space. What an older agent wrote is the record alone."""

    def __init__(self, path: Path) -> None:
        """Raises StateError for a file that cannot be read."""
        self._path = path
        self._number = 0
        self._newest: int | None = None
        """Which copy counts; None where the file has to be written anew, as one of an older agent."""
        self.text: str | None = ""
        """What was written last; empty where nothing was. None for a file without a whole copy."""
        kept = read_kept(path)
        if kept is None:
            return
        if kept and (kept.startswith(b"#") or len(kept) % (2 * PAGE_BYTES) == 0):
            self._choose(kept)
        else:
            self.text = kept.decode(errors="replace").strip() or None

    def write(self, text: str) -> None:
        """On disk when this returns. After a crash in the middle it is the former text or this one; and so it
        is after OSError, but until then the former one counts."""
        self._number += 1  # also past one that failed: what it left may be whole, and must not count again
        copy = b"#%d %08x %s" % (self._number, zlib.crc32(text.encode()), text.encode())
        place = self._overwrite(copy)
        if place is None:
            self._newest = None
            self._write_anew(copy)
            place = 0
        self._newest, self.text = place, text

    def clear(self) -> None:
        """Nothing is kept any more; on disk when this returns."""
        if self.text != "":
            self.write("")

    def _choose(self, kept: bytes) -> None:
        size = _copy_bytes(len(kept))
        whole = {}
        for place in (0, 1):
            found = _COPY.fullmatch(kept[place * size : (place + 1) * size].rstrip())
            if found and zlib.crc32(found[3]) == int(found[2], 16):
                whole[int(found[1])] = (place, found[3].decode())
        self._number = max(whole, default=0)
        self._newest, self.text = whole.get(self._number, (None, None))

    def _overwrite(self, copy: bytes) -> int | None:
        """Replace the older copy; the place that this one is in now. None where the file is not one of two
        such copies."""
        if self._newest is None:
            return None
        try:
            fd = os.open(self._path, os.O_WRONLY)
        except FileNotFoundError:
            return None
        try:
            file_bytes = os.fstat(fd).st_size
            size, place = _copy_bytes(file_bytes), 1 - self._newest
            if file_bytes != 2 * size or len(copy) >= size:
                return None
            padded = _padded(copy, size)
            if os.pwrite(fd, padded, place * size) != size:
                raise OSError(f"{self._path}: written in part")
            os.fdatasync(fd)
            return place
        finally:
            os.close(fd)

    def _write_anew(self, copy: bytes) -> None:
        size = (len(copy) // PAGE_BYTES + 1) * PAGE_BYTES
        write_durably(self._path, (_padded(copy, size) + _padded(b"", size)).decode())


def _copy_bytes(file_bytes: int) -> int:
    return max(1, file_bytes // (2 * PAGE_BYTES)) * PAGE_BYTES


def _padded(copy: bytes, size: int) -> bytes:
    return copy.ljust(size - 1) + b"\n"
