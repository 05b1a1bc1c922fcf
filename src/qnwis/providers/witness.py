"""Where signed tree heads are kept apart from the log: a file (best on another machine), or a web address.

A witness that has a head makes it impossible to take back what the log was by then.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

import httpx

from qnwis.continuity.model import canonical_json
from qnwis.continuity.tree_heads import SignedTreeHead
from qnwis.transport import Transport

from .errors import Unreachable
from .threads import Threads

WITNESS_VARIABLE = "QNWIS_AUDIT_WITNESS"
"""Files and https addresses, separated by blanks."""
TIMEOUT_S = 5.0
THREADS = Threads("witness")
"""Of files, which best lie on another machine: one that does not answer holds whoever writes there."""


class Witness(Protocol):
    async def keep(self, signed: SignedTreeHead) -> None:
        """Raises Unreachable where it may not have been kept. Kept twice, a head says the same."""
        ...


class FileWitness:
    """A JSON line for each head, appended and on disk before it counts as kept. A disk that takes a part of a
    line keeps none of it; where that part cannot be taken back, the next head begins a line of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def keep(self, signed: SignedTreeHead) -> None:
        try:
            await THREADS.run(partial(self._append, canonical_json(signed).encode() + b"\n"))
        except OSError as error:
            raise Unreachable(f"witness {self._path}: {error.strerror}") from error

    def _append(self, line: bytes) -> None:
        """Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        try:
            with suppress(OSError):  # not every place has locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            before, taken = os.fstat(descriptor).st_size, 0
            line = line if self._ends_a_line(before) else b"\n" + line
            try:
                taken = os.write(descriptor, line)  # one write: lines of several processes do not mix
                if taken < len(line):
                    raise OSError(errno.ENOSPC, f"took {taken} of {len(line)} bytes")
                os.fsync(descriptor)
            except OSError:
                with suppress(OSError):  # a file that only grows takes nothing back
                    if os.fstat(descriptor).st_size == before + taken:  # else another's line is behind it
                        os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)

    def _ends_a_line(self, size: int) -> bool:
        """What cannot be read may end anywhere: an empty line does no harm."""
        if size == 0:
            return True
        try:
            with self._path.open("rb") as file:
                file.seek(size - 1)
                return file.read(1) == b"\n"
        except OSError:
            return False


class WebhookWitness:
    """Each head is posted as JSON; an answer of 2xx says that it is kept."""

    def __init__(self, url: str, transport: Transport) -> None:
        self._url = url
        self._transport = transport

    async def keep(self, signed: SignedTreeHead) -> None:
        host = httpx.URL(self._url).host  # the rest of an address may hold a secret
        try:
            async with self._transport.client(timeout_s=TIMEOUT_S) as client:
                answer = await client.post(self._url, json=signed.model_dump(mode="json"))
        except httpx.HTTPError as error:
            raise Unreachable(f"witness at {host}: {type(error).__name__}") from None
        if not answer.is_success:
            raise Unreachable(f"witness at {host}: answered {answer.status_code}")


def witnesses_of(environment: Mapping[str, str], transport: Transport) -> tuple[Witness, ...]:
    """Those that QNWIS_AUDIT_WITNESS names."""
    named = environment.get(WITNESS_VARIABLE, "").split()
    return tuple(
        WebhookWitness(one, transport) if one.startswith(("https://", "http://")) else FileWitness(Path(one))
        for one in named
    )
