"""Asking whoever makes the backups, by a program that the agent's file names."""

from __future__ import annotations

import asyncio
import os
import signal

from qnwis.continuity.backups import Backup, read_answer

from .config import BackupSource


async def ask_for_backup(source: BackupSource) -> Backup:
    """What the program answers; why it does not."""
    program = source.command[0]
    try:
        process = await asyncio.create_subprocess_exec(
            *source.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        return Backup(last_good_at=None, detail=f"{program} cannot be run: {error.strerror}")
    try:
        out, err = await asyncio.wait_for(process.communicate(), source.timeout_s)
    except TimeoutError:
        return Backup(last_good_at=None, detail=f"{program} did not answer within {source.timeout_s:g} s")
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode != 0:
        said = " ".join((err or out).decode(errors="replace").split())[-300:]
        return Backup(last_good_at=None, detail=f"{program} ended with status {process.returncode}: {said}")
    return read_answer(source.answer, out.decode(errors="replace"))
