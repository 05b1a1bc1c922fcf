"""Whether this process stood still: a watcher that did says nothing of that time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
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


class Meters:
    """One meter of stalls for all watches with the same limit: they share the event loop that it measures.
    It runs while somebody watches."""

    def __init__(self) -> None:
        self._running: dict[float, tuple[Stalls, asyncio.Task[None]]] = {}
        self._watches: Counter[float] = Counter()

    @contextlib.contextmanager
    def watching(self, limit_s: float) -> Iterator[Stalls]:
        if limit_s not in self._running:
            stalls = Stalls(limit_s)
            self._running[limit_s] = stalls, asyncio.create_task(stalls.run())
        self._watches[limit_s] += 1
        try:
            yield self._running[limit_s][0]
        finally:
            self._watches[limit_s] -= 1
            if not self._watches[limit_s]:
                self._running.pop(limit_s)[1].cancel()
