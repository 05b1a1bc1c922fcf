"""Events: what watchers of this node are told, at once and at each change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from qnwis.continuity.evidence import NodeEvent


class Events:
    """The latest event and those who wait for the next."""

    def __init__(self, first: NodeEvent) -> None:
        self._latest = first
        self._watchers: set[asyncio.Queue[NodeEvent]] = set()

    @property
    def latest(self) -> NodeEvent:
        return self._latest

    def publish(self, event: NodeEvent, *, again: bool = False) -> None:
        """Tell every watcher, if anything is different from the latest. `again`: even if nothing is, because
        they should look."""
        if again or event != self._latest:
            self._latest = event
            for queue in self._watchers:
                queue.put_nowait(event)

    async def watch(self) -> AsyncGenerator[NodeEvent, None]:
        """The latest event, then each that follows, without end."""
        queue: asyncio.Queue[NodeEvent] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            yield self._latest
            while True:
                yield await queue.get()
        finally:
            self._watchers.discard(queue)
