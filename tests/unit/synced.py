"""What a power cut would leave: what was synced, and nothing else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest


class Disk:
    """Looks at each fsync: which file's content, or which folder's names, are on disk since."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._sizes: dict[int, int] = {}
        self._names: dict[int, dict[str, int]] = {}
        """By the folder's inode: its names, and what they stand for."""
        self._fsync = os.fsync
        patch.setattr(os, "fsync", self._synced)

    def _synced(self, fd: int) -> None:
        self._fsync(fd)
        found = os.fstat(fd)
        if not stat.S_ISDIR(found.st_mode):
            self._sizes[found.st_ino] = found.st_size
            return
        with os.scandir(fd) as entries:
            self._names[found.st_ino] = {entry.name: entry.inode() for entry in entries}

    def has(self, path: Path) -> bool:
        """With the content that it has, under its name."""
        found, folder = path.stat(), self._names.get(path.parent.stat().st_ino, {})
        whole = stat.S_ISDIR(found.st_mode) or self._sizes.get(found.st_ino) == found.st_size
        return whole and folder.get(path.name) == found.st_ino
