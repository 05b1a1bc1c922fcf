"""Going on: the agent executes itself anew, for an upgrade or new settings, and what it keeps alive goes on.

The process stays the same one, so the database and its guards stay its children. What the new program cannot
read from the disk is handed on: open pipes as they are, and in the environment which they are and until when
the lease lasts. The clock of leases goes on, too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from qnwis.continuity.model import Model
from qnwis.logs import log

VARIABLE = "QNWIS_AGENT_GOES_ON"
LISTENS_ON = "QNWIS_AGENT_LISTENS_ON"
"""Tells a check by an agent that would go on from a person's: the port that the agent listens on."""
CHECK_WITHIN_S = 30.0
SIGNALS = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM})
"""Held back until the new program handles them; by default they would end it."""


class HandedOn(Model):
    """What one program of the process leaves to the next."""

    pid: int
    """Of the process: nobody else's environment counts."""
    lease_until_s: float | None
    """As the old terms have it; None without a lease."""
    guards: tuple[tuple[int, int], ...]
    """Pid and pipe of each."""

    @classmethod
    def taken(cls) -> Self | None:
        """What an earlier program of this process left; None in a new process."""
        text = os.environ.pop(VARIABLE, None)
        if text is None:
            return None
        try:
            handed_on = cls.model_validate_json(text)
        except ValidationError as error:
            log("nothing_handed_on", reason=str(error))
            return None
        return handed_on if handed_on.pid == os.getpid() else None


async def go_on_at(
    again: asyncio.Event,
    config: Path,
    started_in: Path,
    listens_on: int,
    lock: asyncio.Lock,
    hand_on: Callable[[], Awaitable[HandedOn]],
) -> None:
    """Execute the program on disk whenever `again` is set, between two orders. Runs until cancelled.

    `started_in`: the folder that the arguments of this program may be relative to. `listens_on`: its port.
    """
    while True:
        await again.wait()
        again.clear()
        reason = await _would_not_start(config, listens_on)
        if reason is None:
            async with lock:
                reason = str(_execute(await hand_on(), started_in))
        log("agent_not_executed_anew", reason=reason)


def checked_for() -> int | None:
    """The port of the agent that has this process check whether it could go on; None for anybody else."""
    port = os.environ.get(LISTENS_ON, "")
    return int(port) if port.isdecimal() else None


async def _would_not_start(config: Path, listens_on: int) -> str | None:
    """Why the program on disk would not start with that file; None if it would."""
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "qnwis.agent", "--config", str(config), "--check"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, LISTENS_ON: str(listens_on)},
        )
    except OSError as error:  # in the middle of an upgrade the interpreter may be missing
        return f"{sys.executable} cannot be run ({error.strerror})"
    try:
        output, _ = await asyncio.wait_for(process.communicate(), CHECK_WITHIN_S)
    except TimeoutError:
        process.kill()
        return f"it did not check its configuration within {CHECK_WITHIN_S:g} s"
    return None if process.returncode == 0 else output.decode(errors="replace")[-500:]


def _execute(handed_on: HandedOn, started_in: Path) -> OSError:
    """Become the program on disk, with the same arguments. Returns only why that failed."""
    here = Path.cwd()
    os.environ[VARIABLE] = handed_on.model_dump_json()
    for _, pipe in handed_on.guards:
        os.set_inheritable(pipe, True)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    os.chdir(started_in)
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError as error:
        os.chdir(here)
        accept_signals()
        del os.environ[VARIABLE]
        return error


def accept_signals() -> None:
    """To be called once they are handled."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
