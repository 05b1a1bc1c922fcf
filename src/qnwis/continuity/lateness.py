"""For how long a watcher's own process stood still: what it did not hear of that time is no silence.

A process stands still in one piece, as when it is frozen or loads modules, or in many, as when many runs
start at once. An answer takes some turns of the event loop, and each turn waits for whatever holds the
process up; so what counts is the sum over the time in which an answer was waited for, and not the longest
piece alone.

Times are seconds of one monotonic clock: a jump of the wall clock is no stall and hides none.
"""

from __future__ import annotations

from typing import NamedTuple

TICKS_IN_A_LIMIT = 10
"""So many ticks, evenly, in the longest time that a watcher may have stood still (`stall_limit_s`). A tick
that is late by less than a tick is none: no loop is punctual."""


class Lateness(NamedTuple):
    """Kept by a tick that falls due again a fixed time after each time it came."""

    tick_s: float
    due_s: float
    """When the next tick should come."""
    sum_s: float = 0.0
    """How late those before it came, together."""

    def so_far_s(self, now_s: float) -> float:
        """With the lateness of the tick that is due and has not come yet."""
        late_s = now_s - self.due_s
        return self.sum_s + (late_s if late_s > self.tick_s else 0.0)

    def came(self, now_s: float) -> Lateness:
        return Lateness(self.tick_s, now_s + self.tick_s, self.so_far_s(now_s))


def lateness(limit_s: float, now_s: float) -> Lateness:
    """From now on. `limit_s`: what a watcher may have stood still and still speak, seconds."""
    tick_s = limit_s / TICKS_IN_A_LIMIT
    return Lateness(tick_s, now_s + tick_s)


def stood_still(late_s: float, limit_s: float) -> bool:
    """Whether a watcher that was late by this in all, while it waited, says nothing of what it waited for."""
    return late_s > limit_s
