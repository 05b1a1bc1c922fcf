"""Files that several processes change: one at a time (and whole, by `qnwis.durable`)."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TextIO

PAUSE_S = 0.02
"""Between two tries to get a lock without waiting in it."""


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """While nobody else is here with this lock, which is waited for."""
    with _opened(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@asynccontextmanager
async def alone_within(lock: Path, within_s: float) -> AsyncIterator[None]:
    """The same on an event loop. It is tried for again and again: a thread for each that waits could leave
    the holder none to go on with. Raises TimeoutError where another has it for `within_s`."""
    with _opened(lock) as file:
        until = time.monotonic() + within_s
        while not _got(file):
            if time.monotonic() >= until:
                raise TimeoutError(f"held by another for {within_s:g} s")
            await asyncio.sleep(PAUSE_S)
        yield


def _opened(lock: Path) -> TextIO:
    return os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), "w")


def _got(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
