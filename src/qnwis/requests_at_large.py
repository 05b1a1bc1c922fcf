"""Requests whose caller may stop waiting while they go on to their own end.

One that is cut off between the end of the handshake and its first byte, or just after the answer's last one,
keeps its place among httpcore's connections for ever (encode/httpcore#1093). Of a process that is slow for a
while some are, and once every place is taken it reaches nobody any more until it is started again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import httpx


class RequestsAtLarge:
    """Those of one client. Each ends by the bounds that its phases have."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[httpx.Response]] = set()

    async def within(self, timeout_s: float, request: Coroutine[Any, Any, httpx.Response]) -> httpx.Response:
        """The answer, if it comes in time. Raises TimeoutError, and what the request raises."""
        task = asyncio.create_task(request)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        await asyncio.wait({task}, timeout=timeout_s)
        if not task.done():
            raise TimeoutError
        return task.result()

    def _ended(self, task: asyncio.Task[httpx.Response]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # of one that is late nobody is to be told

    def cancel(self) -> None:
        """Before the client is closed."""
        for task in self._tasks:
            task.cancel()
