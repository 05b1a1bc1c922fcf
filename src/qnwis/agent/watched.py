"""The ends of processes, awaited: one that is watched, and all of a folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from .processes import kill_each_in

GONE_WITHIN_S = 5.0
"""A process that was sent SIGKILL and is still there after this is stuck in the kernel."""


class ProcessesRemainError(Exception):
    """Processes of the folder cannot be ended."""


async def kill_processes_in(folder: Path) -> None:
    """SIGKILL every process of the folder and see that none is left. Raises ProcessesRemainError."""
    deadline = asyncio.get_running_loop().time() + GONE_WITHIN_S
    while pids := kill_each_in(folder):
        if asyncio.get_running_loop().time() > deadline:
            raise ProcessesRemainError(f"processes {pids} of {folder} are still there after SIGKILL")
        await asyncio.sleep(0.005)


class Watched:
    """A process whose end is noticed at once: a child, or one that was running before the agent."""

    def __init__(
        self, pid: int, on_end: Callable[[], None], *, child: subprocess.Popen[bytes] | None = None
    ) -> None:
        """Raises ProcessLookupError when there is no such process. Needs a running event loop."""
        self.ended = asyncio.Event()
        self._on_end = on_end
        self._child = child
        self._pid = pid
        self._fd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._fd, self._ended)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process has ended."""
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)

    def forget(self) -> None:
        """Watch no longer."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _ended(self) -> None:
        self.forget()
        if self._child is not None:
            self._child.wait()
        else:
            with contextlib.suppress(ChildProcessError):  # a child only of a process that went on
                os.waitpid(self._pid, os.WNOHANG)
        self.ended.set()
        self._on_end()
