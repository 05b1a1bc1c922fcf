"""Get the servers that tests need and this machine lacks, before the tests and outside of their time limits.

    python -m tests.prepare

Quick when they are there. Where one cannot be had, the tests that need it say so themselves.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from qnwis.lab.errors import LabError
from qnwis.lab.temporal_server import external_server, obtain_cli
from tests.integration.continuity.conftest import CACHE
from tests.integration.continuity.time_skipping import obtain_server


def _say(line: str) -> None:
    """What takes long or fails; not that there is no command by a variable."""
    if not line.startswith("no temporal command"):
        print(line, flush=True)


async def prepare() -> None:
    quiet: list[str] = []
    if await external_server(quiet.append) is None:
        with contextlib.suppress(LabError):
            await obtain_cli(CACHE, _say)
    with contextlib.suppress(pytest.skip.Exception):
        await obtain_server(CACHE)


if __name__ == "__main__":
    asyncio.run(prepare())
