"""The agent's side of the guard: start it, tell it of each renewal, and of the end of its duty."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

from .logs import log


class Guarding:
    """The guard process of one database, alive while that may be writable."""

    def __init__(self, data_dir: Path, log_file: Path) -> None:
        self._data_dir = data_dir
        self._log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None

    def tell(self, until: float) -> None:
        """The lease lasts until then. A guard that is gone is started again."""
        if self._process is None or self._process.poll() is not None:
            self._start(until)
            return
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ends just now; the next renewal starts another
            self._process.stdin.write(f"{until}\n".encode())

    def over(self) -> None:
        """The database is no longer a writable one; the guard ends without touching it."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(b"over\n")
            self._process.stdin.close()
            self._process.wait()
        self._process = None

    def _start(self, until: float) -> None:
        with self._log_file.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "qnwis.agent.guard", str(self._data_dir), str(until)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                bufsize=0,
                # Not among the database's processes, and out of reach of a terminal's Ctrl-C.
                cwd=self._log_file.parent,
                start_new_session=True,
            )
        log("guard_started", pid=self._process.pid)
