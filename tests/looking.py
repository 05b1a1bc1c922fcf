"""How often to look for what others bring about, where no event tells of it; and how long at most."""

from __future__ import annotations

import asyncio

WITHIN_S = 100.0
"""A bound on what never comes true; nothing is measured by it. It costs nothing while all is well, and the
ordinary test is given longer."""
FIRST_S, LONGEST_S, GROWTH = 0.02, 0.25, 1.3


class Looks:
    """The pauses between two looks: short at first, so that little is waited for what comes soon; longer when
    it takes its time, because each look costs those who are to bring it about a part of two cores."""

    def __init__(self) -> None:
        self._pause_s = FIRST_S

    async def again(self) -> None:
        """Return when it is time for another look."""
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * GROWTH, LONGEST_S)
