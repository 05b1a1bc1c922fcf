"""Whether a region is left, or come back to."""

from __future__ import annotations

from enum import StrEnum


class Direction(StrEnum):
    OUT = "out"  # every cluster whose primary is in the region leaves it
    BACK = "back"  # every cluster that is at home in the region, and serves elsewhere, comes back

    @property
    def other(self) -> Direction:
        return Direction.OUT if self is Direction.BACK else Direction.BACK
