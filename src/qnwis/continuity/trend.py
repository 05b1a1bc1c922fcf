"""Across runs: how long recovering took, step by step and as a whole, and what the next run may take.

Quantiles are values that occurred (nearest rank): of a handful of runs, anything between them would be
invented. The forecast is of the newest runs alone, because a cluster changes; of too few there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import combinations
from statistics import median

from .model import Model
from .report import Report
from .run import RunKind

NEWEST = 10
"""So many runs make a forecast."""
FEWEST = 3
"""With fewer there is none."""


class PastRecovery(Model):
    """A run that moved the service, and was verified."""

    audit_id: str
    at: datetime
    recovery_ms: float
    """As `Report.recovery_ms`."""
    within: bool | None
    """The objective; None where none is known."""


class StepTimes(Model):
    name: str
    runs: int
    """That measured it."""
    p50_ms: float
    p90_ms: float


class Forecast(Model):
    runs: int
    """The newest ones, which it is made of."""
    p50_ms: float
    p90_ms: float


class Trend(Model):
    cluster_id: str
    operation: str
    runbook: RunKind | None
    objective_ms: float | None
    """`max_failover_time_s` of the policy, or what was asked for."""
    runs: tuple[PastRecovery, ...]
    """Oldest first."""
    change_ms_per_run: float | None
    """Median of the slopes between any two runs, so that one odd run decides nothing.
    None for a single run."""
    steps: tuple[StepTimes, ...]
    """In the order of the newest run; the plan's actions by their kind."""
    forecast: Forecast | None


def trends(cluster_id: str, reports: Iterable[Report], objective_ms: float | None) -> tuple[Trend, ...]:
    """One for each operation and runbook: a drill is no failover, and neither is a switchover. Dry
    runs and runs that did not end verified are left out: how long they took says nothing of recovering."""
    counted = sorted(
        (r for r in reports if r.cluster_id == cluster_id and r.success and r.recovery_ms is not None),
        key=lambda report: report.proof.sequence,
    )
    kinds = dict.fromkeys(_kind(report) for report in counted if not report.operation.endswith("_dry_run"))
    return tuple(
        _trend(cluster_id, kind, [r for r in counted if _kind(r) == kind], objective_ms) for kind in kinds
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share (above 0, up to 1) of them does not exceed. Raises
    ValueError for no values."""
    if not values:
        raise ValueError("expected at least one value")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def forecast(recoveries_ms: Sequence[float]) -> Forecast | None:
    """Of the next run, from those before it, oldest first."""
    newest = recoveries_ms[-NEWEST:]
    if len(newest) < FEWEST:
        return None
    return Forecast(runs=len(newest), p50_ms=quantile(newest, 0.5), p90_ms=quantile(newest, 0.9))


def slope(values: Sequence[float]) -> float | None:
    """Theil and Sen's, per run."""
    pairs = combinations(range(len(values)), 2)
    slopes = [(values[later] - values[earlier]) / (later - earlier) for earlier, later in pairs]
    return median(slopes) if slopes else None


def _kind(report: Report) -> tuple[str, RunKind | None]:
    return report.operation, report.runbook


def _trend(
    cluster_id: str,
    kind: tuple[str, RunKind | None],
    reports: Sequence[Report],
    objective_ms: float | None,
) -> Trend:
    took = [report.recovery_ms or 0.0 for report in reports]
    return Trend(
        cluster_id=cluster_id,
        operation=kind[0],
        runbook=kind[1],
        objective_ms=objective_ms,
        runs=tuple(
            PastRecovery(
                audit_id=report.audit_id,
                at=report.ended_at,
                recovery_ms=ms,
                within=None if objective_ms is None else ms <= objective_ms,
            )
            for report, ms in zip(reports, took, strict=True)
        ),
        change_ms_per_run=slope(took),
        steps=_steps(reports),
        forecast=forecast(took),
    )


def _steps(reports: Sequence[Report]) -> tuple[StepTimes, ...]:
    times: dict[str, list[float]] = {}
    for report in reversed(reports):
        kinds = {action.action_id: action.kind for action in report.plan}
        for bar in report.timeline:
            if bar.actual_ms is not None and bar.became not in {"skipped", "pending"}:
                # Ids name nodes, which change from run to run.
                times.setdefault(kinds.get(bar.name, bar.name), []).append(bar.actual_ms)
    return tuple(
        StepTimes(name=name, runs=len(took), p50_ms=quantile(took, 0.5), p90_ms=quantile(took, 0.9))
        for name, took in times.items()
    )
