"""What was made of a file, for as long as the file is the same one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

M = TypeVar("M")
Stamp = tuple[int, int, int]

SETTLED_S = 2.0
"""A file that was written less than this ago is read each time: file systems count time in steps, and within
one step a second edit would not show."""


class Kept(Generic[M]):
    """A loader that reads a file again only when it is another one, by time, size or inode. An edit counts
    from the next call on; what cannot be loaded is not kept."""

    def __init__(self, load: Callable[[Path], M]) -> None:
        self._load = load
        self._kept: dict[Path, tuple[Stamp, M]] = {}

    def __call__(self, path: Path) -> M:
        """Raises whatever the loader raises."""
        stamp = _stamp(path)
        kept = self._kept.get(path)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        made = self._load(path)
        if stamp is not None and time.time() - stamp[0] / 1e9 > SETTLED_S:
            self._kept[path] = stamp, made
        return made


def _stamp(path: Path) -> Stamp | None:
    """None for a file that is not there; the loader says what is wrong."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
