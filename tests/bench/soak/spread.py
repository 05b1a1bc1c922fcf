"""A series of durations in a few figures: pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from qnwis.continuity.model import Model


class Spread(Model):
    """In the unit of the values."""

    count: int
    mean: float
    p95: float
    """Of so many values at least 95 % are no greater."""
    deviation: float
    """Standard deviation of the sample; 0 of a single value."""
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread | None:
    """None where there are no values."""
    if not values:
        return None
    ordered = sorted(values)
    return Spread(
        count=len(ordered),
        mean=statistics.fmean(ordered),
        p95=ordered[-(-95 * len(ordered) // 100) - 1],
        deviation=statistics.stdev(ordered) if len(ordered) > 1 else 0.0,
        least=ordered[0],
        most=ordered[-1],
    )
