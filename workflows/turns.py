"""The order in which what people say counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from temporalio import workflow

T = TypeVar("T")

IN_TURN = "what people say counts in the order in which it came"
"""Since this patch."""


class Turns:
    """One proof after the other: "pause" and then "resume" must not end as paused because the first proof
    took longer to look at."""

    def __init__(self) -> None:
        self._one = asyncio.Lock()  # it wakes who waits in the order in which they came

    async def of(self, proof: Callable[[], Awaitable[T]]) -> T:
        """What this answers, asked when it is its turn. What its caller does next, up to where it waits
        itself, is done before the next one's turn."""
        if not workflow.patched(IN_TURN):
            return await proof()
        async with self._one:
            return await proof()
