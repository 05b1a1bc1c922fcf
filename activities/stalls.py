"""Whether this process stood still: a watcher that did says nothing of that time.

It goes by the monotonic clock alone; a jump of the wall clock is no stall and hides none.
"""

from __future__ import annotations

import asyncio
from time import monotonic

TICKS_IN_A_LIMIT = 4


class Stalls:
    """Counts how often the event loop was late by more than `limit_s`, seconds."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._due = monotonic()
        self._count = 0

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            tick_s = self._limit_s / TICKS_IN_A_LIMIT
            self._due = monotonic() + tick_s
            await asyncio.sleep(tick_s)
            self._count += self._late()

    def mark(self) -> int:
        """What to give to `since` later."""
        return self._count

    def since(self, mark: int) -> bool:
        """Whether there was one since the mark, or there is one now that `run` has not yet come to count."""
        return self._count != mark or self._late()

    def _late(self) -> bool:
        return monotonic() - self._due > self._limit_s
