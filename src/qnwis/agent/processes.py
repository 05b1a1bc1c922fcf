"""Processes of a folder: who works there, by the working directory that /proc shows.

Guards work with this and little else: a new one has to be ready in some hundredths of a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path


def processes_in(folder: Path) -> list[int]:
    """Pids of the processes whose working directory is `folder` or below it. Zombies have none."""
    return list(_found_in(folder))


def kill_each_in(folder: Path) -> list[int]:
    """SIGKILL each process of the folder as soon as it is found; which they were."""
    killed = []
    for pid in _found_in(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        killed.append(pid)
    return killed


def _found_in(folder: Path) -> Iterator[int]:
    # Text, not Path: a guard has no time to lose among hundreds of processes.
    home = str(folder.resolve())
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit() and int(name) != os.getpid():
            try:
                cwd = os.readlink(f"/proc/{name}/cwd")  # noqa: PTH115
            except OSError:  # gone, a zombie, or not ours to see
                continue
            if cwd == home or cwd.startswith(home + "/"):
                yield int(name)
