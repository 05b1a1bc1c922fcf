"""The agent's side of the guards: start them, tell them of each renewal, and of the end of their duty."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from qnwis.logs import log

COUNT = 2
"""Guards of a database: one that is stopped together with the agent leaves another."""
PIPE_BYTES = 4096
"""Of a guard's standard input: one that reads no more is found out when that is full, and replaced."""


@dataclass(frozen=True)
class Guard:
    """One guard process, a child."""

    pid: int
    pipe: int
    """Write end of its standard input."""

    def tell(self, until: float) -> bool:
        """False when it is gone, or has not read for long; that one is not waited for."""
        try:
            os.write(self.pipe, f"{until}\n".encode())
        except (BrokenPipeError, BlockingIOError):
            self.kill()
            self.bury()
            return False
        return True

    def kill(self) -> None:
        """End it without an end to the database; a frozen one too."""
        os.kill(self.pid, signal.SIGKILL)  # not yet waited for, so the pid is still its own

    def bury(self) -> None:
        """Wait for the end of one that was killed."""
        os.waitpid(self.pid, 0)
        os.close(self.pipe)


class Guarding:
    """The guard processes of one database, alive while that may be writable, or may soon become so."""

    def __init__(self, data_dir: Path, log_file: Path) -> None:
        self._data_dir = data_dir
        self._log_file = log_file
        self._guards: list[Guard] = []

    def tell(self, until: float) -> None:
        """The database must have begun to end by then. Guards that are gone are replaced."""
        self._guards = [guard for guard in self._guards if guard.tell(until)]
        self._complete(until)

    def be_on_call(self) -> None:
        """Have guards started that wait to be told. Starting them takes what a promotion should not."""
        self._complete(None)

    def hand_on(self) -> tuple[tuple[int, int], ...]:
        """Pid and pipe of each guard."""
        return tuple((guard.pid, guard.pipe) for guard in self._guards)

    def go_on(self, guards: tuple[tuple[int, int], ...]) -> None:
        """Take over the guards that an earlier program of this process started."""
        self._guards = [Guard(pid, pipe) for pid, pipe in guards]
        for guard in self._guards:
            os.set_inheritable(guard.pipe, False)

    def over(self) -> None:
        """The database is no longer a writable one; the guards end without touching it."""
        for guard in self._guards:
            guard.kill()
        for guard in self._guards:
            guard.bury()
        self._guards = []

    def _complete(self, until: float | None) -> None:
        while len(self._guards) < COUNT:
            self._guards.append(self._started(until))

    def _started(self, until: float | None) -> Guard:
        theirs, ours = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(ours, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        with self._log_file.open("ab") as output:
            files = [
                (os.POSIX_SPAWN_DUP2, theirs, 0),
                (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
            ]
            pid = self._spawned([] if until is None else [str(until)], files)
        os.close(theirs)
        log("guard_started", pid=pid)
        return Guard(pid, ours)

    def _spawned(self, until: list[str], files: list[tuple[int, int, int]]) -> int:
        """Its pid. On a busy machine it has to be quick to start, too."""
        command = [sys.executable, "-m", "qnwis.agent.guard", str(self._data_dir), *until]
        # A session of its own: out of reach of a terminal's Ctrl-C. It works in the agent's folder, so it is
        # not among the database's processes.
        spawn = partial(os.posix_spawn, sys.executable, command, os.environ, file_actions=files, setsid=True)
        try:
            return spawn(scheduler=(os.SCHED_FIFO, os.sched_param(1)))
        except PermissionError:
            return spawn()
