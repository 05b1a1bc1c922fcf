"""Runs a program with a time limit, and lets nothing of it outlive that.

A program gets a process group of its own, which is killed at the end: at the limit, on a cancel, and when the
program has ended but has left processes behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

KEPT = 300
"""Characters of the end of its output that are kept."""
CHUNK = 64 * 1024
LAST_WORDS_S = 1.0
"""How long the rest of its output is read when it has ended; what left its group may hold that open."""


@dataclass(frozen=True)
class ProgramEnd:
    """How a program ended."""

    status: int | None
    """None: it was killed at its limit, or never began."""
    output: str
    """The end of what it wrote, standard output and error together."""
    problem: str = ""
    """Why it never began."""

    @property
    def ok(self) -> bool:
        return self.status == 0


async def run_command(
    command: Sequence[str], told: Mapping[str, str], environment: Mapping[str, str], *, timeout_s: float
) -> ProgramEnd:
    """Run it without a shell, with `told` as JSON on its standard input. A cancel kills it and is raised."""
    async with _tail() as (output, write_end):
        try:
            process = await _start(command, json.dumps(told), environment, write_end)
        except (OSError, ValueError) as error:
            return ProgramEnd(None, "", f"cannot be started: {error}")
        finally:
            os.close(write_end)
        status: int | None = None
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    status = await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        await output.end()
    return ProgramEnd(status, output.text)


async def _start(
    command: Sequence[str], told: str, environment: Mapping[str, str], write_end: int
) -> Process:
    with tempfile.TemporaryFile() as words:
        words.write(told.encode())
        words.seek(0)
        # asyncio's own pipes would make `wait` wait for whoever else holds them, too.
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=words,
            stdout=write_end,
            stderr=write_end,
            env=environment,
            start_new_session=True,
        )


@dataclass
class _Tail:
    """The end of an output, however long that is."""

    _reading: asyncio.Task[None]
    _kept: bytearray

    async def end(self) -> None:
        await asyncio.wait([self._reading], timeout=LAST_WORDS_S)

    @property
    def text(self) -> str:
        return " ".join(self._kept.decode(errors="replace").split())[-KEPT:]


@contextlib.asynccontextmanager
async def _tail() -> AsyncIterator[tuple[_Tail, int]]:
    """What is written into the descriptor, which whoever starts the writer closes."""
    read_end, write_end = os.pipe()
    stream, kept = asyncio.StreamReader(), bytearray()
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream),
        os.fdopen(read_end, "rb", buffering=0),
    )

    async def read() -> None:
        while chunk := await stream.read(CHUNK):
            kept.extend(chunk)
            del kept[: -4 * KEPT]

    reading = asyncio.create_task(read())
    try:
        yield _Tail(reading, kept), write_end
    finally:
        reading.cancel()
        pipe.close()
