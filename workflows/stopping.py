"""Cancelling a run is a request to stop at the next safe place, never an effect cut off in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def uninterrupted(body: Coroutine[Any, Any, T], on_cancel: Callable[[], None]) -> T:
    """Run `body` to its end whatever is cancelled meanwhile; each cancel only calls `on_cancel`.

    A single `asyncio.shield` is not enough: a cancel that arrives while the body runs would end the waiting
    and, with it, the workflow. So the waiting is taken up again until the body is done.
    """
    task = asyncio.create_task(body)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.done():
                break
            on_cancel()
            current = asyncio.current_task()
            if current is not None:
                current.uncancel()
    return task.result()
