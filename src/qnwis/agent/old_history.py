"""The old database, read once more before its history is discarded: in private, and as a standby.

It runs in recovery with no upstream, so PostgreSQL itself lets nobody write in it, the agent included, and
it replays what its own log holds. It listens on no network; its only socket lies in a folder that nobody
but PostgreSQL's user (and root) can enter. Its libraries are not loaded, so no job of an extension runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
from psycopg.rows import TupleRow

from .effects import EffectError
from .files import as_user
from .postgres import Postgres
from .watched import kill_processes_in

READY_WITHIN_S = 3600.0
"""A crashed database first replays its log from the last checkpoint."""
STOP_WITHIN_S = 60.0
POLL_S = 0.05
PORT = 5432
"""Only a part of the socket's name."""


class OldHistory:
    """The old database while it runs in private."""

    def __init__(self, folder: Path, user: str) -> None:
        self._folder = folder
        self._user = user

    async def connect(self, database: str) -> psycopg.AsyncConnection[TupleRow]:
        """Raises psycopg.Error."""
        return await psycopg.AsyncConnection.connect(
            host=str(self._folder),
            port=PORT,
            user=self._user,
            dbname=database,
            application_name="qnwis-agent",
            # A lock that a transaction held at the crash is held for as long as this runs.
            options="-c lock_timeout=10s -c statement_timeout=0",
        )


@contextlib.asynccontextmanager
async def old_history(postgres: Postgres, timeline: int, *, replayed_lsn: int) -> AsyncIterator[OldHistory]:
    """The database as its log leaves it on `timeline`, past `replayed_lsn`. It is stopped at the end, in a
    clean way. Raises EffectError where it does not come up."""
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="qnwis-old-"))  # 0700
    process: asyncio.subprocess.Process | None = None
    try:
        access = folder / "pg_hba.conf"
        access.write_text("local all all trust\n")
        if postgres.owner is not None:
            for path in (folder, access):
                os.chown(path, postgres.owner.uid, postgres.owner.gid)
        postgres.keep_standby()
        with (postgres.config.state_dir / "postgres.log").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                postgres.program("postgres"),
                *postgres.located(),
                *_settings(folder, access, timeline),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=postgres.data_dir,
                env=postgres.environment(),
                **as_user(postgres.owner),
            )
        old = OldHistory(folder, postgres.database.superuser.user)
        await _until_replayed(old, process, replayed_lsn)
        yield old
    finally:
        await _stop(postgres, process)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _settings(folder: Path, access: Path, timeline: int) -> list[str]:
    """On the command line, where no file overrides them."""
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(folder),
        "unix_socket_permissions": "0700",
        "port": str(PORT),
        "hba_file": str(access),
        "external_pid_file": "",
        # It follows nobody, and goes no further than its own log.
        "primary_conninfo": "",
        "primary_slot_name": "",
        "restore_command": "",
        "archive_cleanup_command": "",
        "recovery_end_command": "",
        "recovery_target": "",
        "recovery_target_lsn": "",
        "recovery_target_name": "",
        "recovery_target_time": "",
        "recovery_target_xid": "",
        # Not the latest: of an upstream's it may have the history file, and cannot go there.
        "recovery_target_timeline": str(timeline),
        "hot_standby": "on",
        "archive_mode": "off",
        "shared_preload_libraries": "",
        "session_preload_libraries": "",
        "local_preload_libraries": "",
        "ssl": "off",
        "logging_collector": "off",
        "log_destination": "stderr",
        # pg_rewind needs the log from the last checkpoint on that both have: none of it is removed here.
        "wal_keep_size": "1TB",
    }
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


async def _until_replayed(old: OldHistory, process: asyncio.subprocess.Process, lsn: int) -> None:
    clock = asyncio.get_running_loop().time
    deadline = clock() + READY_WITHIN_S
    question = f"SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() - '0/0' > {lsn}"
    while clock() < deadline:
        if process.returncode is not None:
            raise EffectError(f"the old database ended with status {process.returncode}; see postgres.log")
        with contextlib.suppress(psycopg.OperationalError):
            async with await old.connect("postgres") as connection:
                row = await (await connection.execute(question)).fetchone()
                if row is not None and row[0]:
                    return
        await asyncio.sleep(POLL_S)
    raise EffectError(f"the old database did not replay its log within {READY_WITHIN_S:g} s")


async def _stop(postgres: Postgres, process: asyncio.subprocess.Process | None) -> None:
    if process is not None and process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_WITHIN_S)
    await kill_processes_in(postgres.data_dir)
    if process is not None:
        await process.wait()
    (postgres.data_dir / "postmaster.pid").unlink(missing_ok=True)
