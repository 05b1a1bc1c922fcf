"""The archive of the log, read as PostgreSQL itself reads it: by the database's own `restore_command`."""

from __future__ import annotations

import asyncio
import os
import re
import signal

from qnwis.logs import log

from .files import as_user
from .postgres import Postgres
from .programs import read_setting

RESTORED_WITHIN_S = 300.0
"""One file, from wherever it is."""
_BESIDE = "pg_wal/RECOVERYXLOG"
"""Where PostgreSQL has a file put, too, until it is whole."""


class Archive:
    """Files of the log of a database that is down."""

    def __init__(self, postgres: Postgres, segment_bytes: int) -> None:
        self._postgres = postgres
        self._segment_bytes = segment_bytes
        self._command: str | None = None

    async def restore(self, name: str) -> bool:
        """Bring this file back into pg_wal. False where no command is set, or it does not bring the file."""
        if self._command is None:
            self._command = await read_setting(self._postgres, "restore_command")
        if not self._command:
            return False
        folder = self._postgres.data_dir
        beside = folder / _BESIDE
        beside.unlink(missing_ok=True)
        status = await self._run(filled_in(self._command, name, _BESIDE))
        whole = status == 0 and beside.exists() and beside.stat().st_size == self._segment_bytes
        log("log_restored" if whole else "log_not_restored", file=name, status=status)
        if whole:
            beside.rename(folder / "pg_wal" / name)
        return whole

    async def _run(self, command: str) -> int | None:
        """Its exit status; None where it took too long."""
        process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", command),  # as PostgreSQL does with what its administrator wrote
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=self._postgres.data_dir,
            env=self._postgres.environment(),
            start_new_session=True,
            **as_user(self._postgres.owner),
        )
        try:
            return await asyncio.wait_for(process.wait(), RESTORED_WITHIN_S)
        except TimeoutError:
            return None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()


def filled_in(command: str, name: str, path: str) -> str:
    """%f, %p and %% as PostgreSQL has them; %r, before which nothing is needed any more, is that file."""
    filled = {"f": name, "p": path, "r": name, "%": "%"}
    return re.sub(r"%([fpr%])", lambda found: filled[found[1]], command)
