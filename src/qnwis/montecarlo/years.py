"""Failures along the years: which of them a cooldown holds back, and what each year lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from qnwis.continuity.guardian_rules import HOUR, PastRun, held_back
from qnwis.continuity.policy import Policy
from qnwis.continuity.run import RunOutcome

from .draws import Floats

YEAR_S = 365.25 * 86_400
NOW = datetime(2000, 1, 1, tzinfo=UTC)
"""Of each failure; only differences count, and a calendar has no room for a hundred thousand years."""


def held_for_s(policy: Policy, at_s: Floats, acted_s: Floats, ends_s: Floats) -> dict[int, float]:
    """By index, for how long the guardian's rules hold a failover back because of those before it.

    `at_s`, ascending: when the primary failed; `acted_s` and `ends_s`: from then on, finite. The rules are
    the real ones, asked about the few failovers that come soon after another.
    """
    near_s = max(HOUR.total_seconds(), policy.cooldown_s)
    ended_s = at_s + ends_s
    soon = np.flatnonzero(at_s[1:] + acted_s[1:] - ended_s[:-1] < near_s) + 1
    held: dict[int, float] = {}
    for index in map(int, soon):
        begin_s = float(at_s[index])
        past = range(max(0, index - policy.max_failovers_per_hour - 1), index)
        history = [
            PastRun(
                run_id=f"run-{i}",
                outcome=RunOutcome.COMPLETED,
                ended_at=_moment(float(ended_s[i]) + held.get(i, 0.0) - begin_s),
            )
            for i in past
        ]
        wants_s = float(acted_s[index])
        waits_s = _waits_s(policy, history, wants_s)
        if waits_s > 0:
            held[index] = waits_s
    return held


def _waits_s(policy: Policy, history: list[PastRun], wants_s: float) -> float:
    now = begins = _moment(wants_s)
    # A run that goes on holds the cluster's lock.
    begins = max([begins, *(run.ended_at for run in history)])
    while True:
        hold = held_back(
            policy=policy,
            history=history,
            pause=None,
            watching_since=NOW - timedelta(days=3650),
            changed_at=NOW,
            now=begins,
        )
        if hold is None or hold.until is None:
            return (begins - now).total_seconds()
        begins = hold.until


def _moment(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def downtime_by_year(years: int, at_s: Floats, down_s: Floats) -> Floats:
    """Of each whole year, seconds."""
    year = np.floor(at_s / YEAR_S).astype(np.int64)
    counted = year < years
    lost = np.bincount(year[counted], weights=down_s[counted], minlength=years)[:years]
    return lost.astype(np.float64)
