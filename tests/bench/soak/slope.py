"""How fast a series grows: pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import combinations

Point = tuple[float, float]
"""At which cycle, and how much."""


def theil_sen(points: Sequence[Point]) -> float | None:
    """The median of the slopes between any two points of different cycles; None without two such points.

    Up to 29 % of the points may be anything at all, and it still says how the others grow.
    """
    slopes = [
        (after - before) / (later - earlier)
        for (earlier, before), (later, after) in combinations(points, 2)
        if later != earlier
    ]
    return statistics.median(slopes) if slopes else None
