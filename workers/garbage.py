"""When a worker process looks for garbage in cycles: at moments of its own, not in the midst of much work.

Python's usual settings look through all that is held again and again while thousands of nodes are taken up,
and the worker stands still meanwhile.

And what becomes of memory that was freed: glibc keeps it for each thread apart, in pieces among what is held,
and more of it with each run, so that a worker seemed to grow that held no more than before.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
from collections.abc import Callable
from time import monotonic

log = logging.getLogger(__name__)

AFTER = 50_000, 20, 50
"""Objects made and not freed, and younger collections, before each generation is collected."""
YOUNG_EVERY_S = 30.0
ALL_EVERY_S, ALL_REST = 300.0, 1000
"""All that is held is looked through so often, with a rest so many times as long as that took: the more a
worker holds, the longer it stands still meanwhile."""
SAID_FROM_S = 0.25
"""A pause as long as this is said, seconds: a heartbeat may be late by it."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEPT_FREE = {M_ARENA_MAX: 2, M_MMAP_THRESHOLD: 128 * 1024, M_TRIM_THRESHOLD: 128 * 1024}
"""For glibc's mallopt(3): how many heaps it has, and from how many bytes on a piece is the system's own, and
free memory at a heap's end given back. The two sizes are its first ones, which it raises as it goes."""


def collect_seldom() -> None:
    """Have Python look by itself only after much was made, and never among what was made until now; and have
    the C library keep little that is free, where it can. To be called before there are threads."""
    if (mallopt := _of_c("mallopt")) is not None:
        for parameter, value in KEPT_FREE.items():
            mallopt(parameter, value)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*AFTER)


async def collect_garbage() -> None:
    """Look through what was made lately, and seldom through all of it: a worker that is not busy would keep
    its garbage until it has made so many objects, and for good what had outlived one look. Runs until
    cancelled."""
    all_at = monotonic() + ALL_EVERY_S
    while True:
        await asyncio.sleep(YOUNG_EVERY_S)
        all_at = collected(monotonic(), all_at)
        await asyncio.to_thread(give_back)


def collected(began: float, all_at: float) -> float:
    """Look once; when all is looked through next."""
    if began < all_at:
        gc.collect(1)
        return all_at
    gc.collect()
    took_s = monotonic() - began
    if took_s >= SAID_FROM_S:
        log.info("stood still for %.2f s to look for garbage in all that is held", took_s)
    return began + max(ALL_EVERY_S, ALL_REST * took_s)


def give_back() -> None:
    """Give the system the pages in which nothing is held, where the C library can: by itself it gives back
    only what lies behind all that is held."""
    if (trim := _of_c("malloc_trim")) is not None:
        trim(0)


def _of_c(name: str) -> Callable[..., int] | None:
    """A function of the C library; None where it has none of that name, as others than glibc."""
    return getattr(ctypes.CDLL(None), name, None)
