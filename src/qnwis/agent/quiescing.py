"""Quiescing: a primary that lets no new writes in for a while.

What is begun by a run must end without one: the deadline is on disk, and a database that is started accepts
writes. It is a default of new transactions: a client that sets its own session read-write passes by, so no
promise rests on it, and what it spares the clients is a connection that breaks in the middle of a write.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from qnwis.logs import log

from .deadline import Deadline
from .postgres import Postgres

AGAIN_S = 1.0
"""After a moment at which the disk took nothing: what is to end by itself is tried until it has ended."""


class Quiescing:
    """Whether the local primary lets new writes in."""

    def __init__(self, postgres: Postgres, file: Path) -> None:
        """A database that an earlier agent quiesced stays so for the rest of that time."""
        self._postgres = postgres
        self._deadline = Deadline(file)
        self._timer: asyncio.TimerHandle | None = None
        if self._deadline.left_s > 0:
            postgres.quiesced = True
            self._end_later()
        else:
            self._deadline.end()

    def begin(self, for_s: float) -> None:
        """Let no new writes in, and let them in again `for_s` from now."""
        self._deadline.begin(for_s)
        self._postgres.quiesced = True
        self._end_later()  # first: what is half written has to end, too
        self._write()
        log("writes_stopped", for_s=for_s)

    def end(self) -> None:
        """Let writes in again."""
        if not self._deadline.there:
            return
        self._postgres.quiesced = False
        self._write()
        self.over()
        log("writes_let_in")

    def over(self) -> None:
        """The database that was quiesced is no more, or is about to be started with other settings."""
        if self._timer is not None:
            self._timer.cancel()
        self._postgres.quiesced = False
        self._deadline.end()

    def _write(self) -> None:
        if self._postgres.initialised and self._postgres.set_settings({}):
            self._postgres.reload()

    def _end_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._deadline.left_s, self._end_by_itself)

    def _end_by_itself(self) -> None:
        try:
            self.end()
        except OSError as error:
            log("writes_not_let_in", reason=str(error), again_in_s=AGAIN_S)
            self._timer = asyncio.get_running_loop().call_later(AGAIN_S, self._end_by_itself)
