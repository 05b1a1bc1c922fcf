"""PostgreSQL's programs, and what pg_controldata says of a database that is down."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qnwis.continuity.orders import DemotionToken

from .effects import EffectError
from .files import as_user
from .postgres import Postgres
from .priority import prefer

PROGRAM_WITHIN_S = 6 * 3600.0
"""A copy of a large database takes long."""
_WHEN_TOLD = ("/bin/sh", "-c", 'read -r told && exec "$0" "$@"')
"""Waits for a line, and is then the program that follows."""


@dataclass(frozen=True)
class Control:
    """What the control file says."""

    state: str
    checkpoint: DemotionToken
    """The newest checkpoint; of a database that was shut down, its shutdown checkpoint."""
    segment_bytes: int
    """Of each file of the log."""

    @property
    def was_standby(self) -> bool:
        """Whether the database last ran as a standby."""
        return self.state in ("in archive recovery", "shut down in recovery")

    @property
    def shut_down(self) -> bool:
        """Whether it last ran as a primary and ended in a clean way: its log ends with the checkpoint."""
        return self.state == "shut down"


async def read_control(postgres: Postgres, *, after: Awaitable[None] | None = None) -> Control:
    """Raises EffectError where pg_controldata does not say it, and what `after` raises. It only reads, and
    works elsewhere, so that it is no process of the database.

    `after`: what is awaited before it reads. Meanwhile it is started, which takes longer than to read.
    """
    arguments = ("-D", str(postgres.data_dir))
    elsewhere = postgres.config.state_dir
    status, output = await run_program(
        postgres, "pg_controldata", arguments, working_in=elsewhere, after=after
    )
    found = dict(re.findall(r"^(.+?): +(.+)$", output, re.MULTILINE))
    try:
        high, low = found["Latest checkpoint location"].split("/")
        return Control(
            state=found["Database cluster state"],
            checkpoint=DemotionToken(
                timeline=int(found["Latest checkpoint's TimeLineID"]),
                lsn=(int(high, 16) << 32) + int(low, 16),
            ),
            segment_bytes=int(found["Bytes per WAL segment"]),
        )
    except (KeyError, ValueError) as error:
        raise EffectError(f"pg_controldata ended with status {status}: {output[-500:]}") from error


async def read_setting(postgres: Postgres, name: str) -> str:
    """What the configuration of a database that is down says; empty also where that cannot be read."""
    arguments = ("-C", name, *postgres.located())
    status, output = await run_program(postgres, "postgres", arguments, working_in=postgres.data_dir)
    return output.strip() if status == 0 else ""


async def run_program(
    postgres: Postgres,
    name: str,
    arguments: Sequence[str],
    *,
    working_in: Path,
    after: Awaitable[None] | None = None,
) -> tuple[int, str]:
    """Run one of PostgreSQL's programs, once `after` is over: exit status and output.

    It works in the folder it changes, so that whoever next clears that folder finds it even when the agent
    that started it was killed.
    """
    process = await asyncio.create_subprocess_exec(
        *(() if after is None else _WHEN_TOLD),
        postgres.program(name),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL if after is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=working_in,
        env=postgres.environment(),
        **as_user(postgres.owner),
    )
    try:
        if after is not None:
            prefer(process.pid)  # it is waited for once its time has come
            await after
        told = None if after is None else b"\n"
        output, _ = await asyncio.wait_for(process.communicate(told), PROGRAM_WITHIN_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")
