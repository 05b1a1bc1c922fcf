"""Whether this process stood still: a watcher that did says nothing of that time."""

from __future__ import annotations

import asyncio
from time import monotonic

from qnwis.continuity.lateness import lateness, stood_still


class Stalls:
    """Counts by how much the event loop is late. A watcher says nothing where that was more than `limit_s`,
    seconds, while it waited."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._lateness = lateness(limit_s, monotonic())

    async def run(self) -> None:
        """Runs until cancelled."""
        self._lateness = lateness(self._limit_s, monotonic())
        while True:
            await asyncio.sleep(self._lateness.tick_s)
            self._lateness = self._lateness.came(monotonic())

    def mark(self) -> float:
        """What to give to `since` later."""
        return self._lateness.so_far_s(monotonic())

    def since(self, mark: float) -> bool:
        """Whether it stood still since the mark; what lasts now, and `run` has not counted yet, included."""
        return stood_still(self._lateness.so_far_s(monotonic()) - mark, self._limit_s)
