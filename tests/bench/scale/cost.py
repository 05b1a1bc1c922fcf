"""What a process costs, by /proc."""

from __future__ import annotations

import os
from pathlib import Path

from qnwis.continuity.model import Model

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
_USER, _SYSTEM = 11, 12
"""Fields of /proc/<pid>/stat after the command's closing parenthesis."""


class Memory(Model):
    """KiB."""

    rss: int
    """Resident."""
    pss: int
    """Resident; of pages that several processes share, its part of them."""


def cpu_s(pid: int) -> float:
    """CPU time of all its threads so far, its own and the kernel's for it."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / TICKS


def memory(pid: int) -> Memory:
    folder = Path("/proc") / str(pid)
    rss = int((folder / "statm").read_text().split()[1]) * PAGE_KIB
    for line in (folder / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return Memory(rss=rss, pss=int(line.split()[1]))
    raise ValueError(f"{folder}/smaps_rollup: expected a line Pss:")
