"""Threads of a provider's own, a few, for calls that block.

Who is silent uses up these, and not those of `asyncio.to_thread`, which everything else of the process needs:
each failover, whatever it is of.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

T = TypeVar("T")

MOST = 4


class Threads:
    """At most so many at once; further calls wait, and are not made where nobody waits for them any more."""

    def __init__(self, name: str, most: int = MOST) -> None:
        self._pool = ThreadPoolExecutor(most, thread_name_prefix=f"qnwis-{name}")

    async def run(self, call: Callable[[], T]) -> T:
        """As `asyncio.to_thread` does it."""
        made = partial(contextvars.copy_context().run, call)
        return await asyncio.get_running_loop().run_in_executor(self._pool, made)
