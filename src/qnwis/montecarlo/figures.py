"""The figures that a study answers, and how they are taken from arrays."""

from __future__ import annotations

import numpy as np

from qnwis.continuity.model import Model

from .draws import Floats

DIGITS = 4


class Distribution(Model):
    """Of one quantity over all failures, in its unit."""

    p50: float
    p95: float
    p99: float
    mean: float
    most: float

    @classmethod
    def of(cls, values: Floats) -> Distribution:
        """Each percentile is one of the values: the least that so many are not above."""
        p50, p95, p99 = np.percentile(values, (50, 95, 99), method="inverted_cdf")
        return cls(
            p50=rounded(p50),
            p95=rounded(p95),
            p99=rounded(p99),
            mean=rounded(np.mean(values)),
            most=rounded(np.max(values)),
        )


class Availability(Model):
    """Of the years that were played, percent."""

    mean: float
    p50: float
    p95: float
    """95 of 100 years were at least as good."""
    p99: float

    @classmethod
    def of(cls, down_s: Floats, year_s: float) -> Availability:
        up = 100 * (1 - np.minimum(down_s, year_s) / year_s)
        p50, p5, p1 = np.percentile(up, (50, 5, 1), method="inverted_cdf")
        return cls(mean=rounded(np.mean(up), 6), p50=rounded(p50, 6), p95=rounded(p5, 6), p99=rounded(p1, 6))


class Figures(Model):
    """What these settings come to."""

    detection_s: Distribution
    """From the failure until a majority of the vantages calls the primary failed."""
    rto_s: Distribution
    """From the failure until the last of the clients writes again."""
    run_s: Distribution
    """What the run takes, without waiting for people."""
    overrun_percent: float
    """Of the runs that take longer than the policy's `max_failover_time_s`."""
    rpo_s: Distribution
    """Writes that were acknowledged and are lost, as seconds of writing."""
    availability_percent: Availability
    downtime_s_per_year: float
    false_failovers_per_year: float
    """For a silence that would have ended by itself."""
    held_back: int
    """Failovers that a cooldown or the hourly cap delayed."""


def rounded(value: float | np.floating, digits: int = DIGITS) -> float:
    return round(float(value), digits) + 0.0
