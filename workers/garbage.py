"""When a worker process looks for garbage in cycles: at moments of its own, not in the midst of much work.

Python's usual settings look through all that is held again and again while thousands of nodes are taken up,
and the worker stands still meanwhile. The memory that was freed goes back to the system at the same moments:
the allocator keeps it in pieces among what is held, more of it with each run, of every thread apart.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
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


def collect_seldom() -> None:
    """Have Python look by itself only after much was made, and never among what was made until now."""
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


def collected(began: float, all_at: float) -> float:
    """Look once; when all is looked through next."""
    if began < all_at:
        gc.collect(1)
        return all_at
    gc.collect()
    give_back()
    took_s = monotonic() - began
    if took_s >= SAID_FROM_S:
        log.info("stood still for %.2f s to look for garbage in all that is held", took_s)
    return began + max(ALL_EVERY_S, ALL_REST * took_s)


def give_back() -> None:
    """Give the system the pages in which nothing is held, where the C library can: glibc by itself gives
    back only what lies behind all that is held."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
