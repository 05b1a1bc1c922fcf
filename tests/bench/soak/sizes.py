"""What processes and folders take, as /proc and the file system have it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

LOG_FILE = re.compile(r"[0-9A-F]{24}")
"""A file of PostgreSQL's write-ahead log."""
TIMELINE_FILE = re.compile(r"[0-9A-F]{8}\.history")


def memory_kib(pid: int) -> float:
    """PSS: what is shared with others counts in part, so that the sum over processes is what all of them
    take. Raises OSError for a process that is gone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("Pss:")))


def descriptors(pid: int) -> int:
    """That the process has open. Raises OSError for a process that is gone."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - names suffice


def folder_kib(folder: Path, counts: Callable[[str], object] = bool) -> float:
    """The files below it whose names count, by their lengths; those that vanish meanwhile do not."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in filter(counts, names):
            try:
                total += os.stat(os.path.join(where, name)).st_size  # noqa: PTH116, PTH118 - thousands of them
            except FileNotFoundError:
                continue
    return total / 1024
