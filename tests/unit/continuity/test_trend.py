"""Across runs: quantiles that occurred, a trend that one odd run does not make, no invented forecast."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.report import Report
from qnwis.continuity.run import RunKind
from qnwis.continuity.trend import FEWEST, NEWEST, forecast, quantile, slope, trends

from .reports import failover, reported

TIMES = st.lists(st.floats(min_value=0, max_value=1e9), min_size=1, max_size=40)


def past(number: int, recovery_ms: float | None, **fields: object) -> Report:
    report = reported(failover())
    proof = report.proof.model_copy(update={"sequence": number})
    return report.model_copy(
        update={"audit_id": f"audit-{number}", "recovery_ms": recovery_ms, "proof": proof, **fields}
    )


@given(TIMES, st.floats(min_value=0.01, max_value=1))
def test_a_quantile_occurred_and_so_many_do_not_exceed_it(times: list[float], share: float) -> None:
    found = quantile(times, share)
    assert found in times
    assert sum(time <= found for time in times) >= share * len(times) - 1e-9
    assert sum(time < found for time in times) < share * len(times) + 1e-9


def test_a_quantile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        quantile([], 0.5)


@given(TIMES, TIMES)
def test_a_forecast_is_of_the_newest_runs_alone(older: list[float], newest: list[float]) -> None:
    told = forecast([*older, *newest])
    if len(older) + len(newest) < FEWEST:
        assert told is None
    else:
        assert told is not None and told.p50_ms <= told.p90_ms
        assert told == forecast([*older, *newest][-NEWEST:])
        assert min([*older, *newest]) <= told.p50_ms


@given(st.integers(min_value=5, max_value=20), st.floats(min_value=-100, max_value=100), st.integers(0, 19))
def test_one_odd_run_turns_no_trend(runs: int, change: float, odd: int) -> None:
    times = [10_000 + change * number for number in range(runs)]
    assert slope(times) == pytest.approx(change, abs=1e-6)
    times[odd % runs] = 1e6
    assert slope(times) == pytest.approx(change, abs=1e-6)


def test_a_trend_is_of_one_clusters_verified_runs_of_one_kind_against_the_objective() -> None:
    runs = [
        past(3, 3000.0),
        past(1, 1000.0),
        past(2, 2000.0),
        past(4, 9000.0, success=False),
        past(5, 9000.0, cluster_id="other"),
        past(6, 9000.0, operation="failover_dry_run"),
        past(7, None),
        past(8, 500.0, operation="drill_execute"),
        past(9, 100.0, runbook=RunKind.PLANNED_MAINTENANCE),
    ]
    failovers, drills, switchovers = trends("prod-cluster", runs, objective_ms=2000.0)
    assert [(run.audit_id, run.within) for run in failovers.runs] == [
        ("audit-1", True),
        ("audit-2", True),
        ("audit-3", False),
    ]
    assert failovers.change_ms_per_run == 1000.0
    assert failovers.forecast is not None and failovers.forecast.p90_ms == 3000.0
    assert (drills.operation, drills.forecast, drills.change_ms_per_run) == ("drill_execute", None, None)
    assert [run.audit_id for run in switchovers.runs] == ["audit-9"]
    assert trends("prod-cluster", runs, None)[0].runs[0].within is None


def test_steps_are_named_by_what_they_do_and_those_left_out_do_not_count() -> None:
    (trend,) = trends("prod-cluster", [past(1, 1.0), past(2, 1.0)], None)
    times = {step.name: (step.runs, step.p50_ms) for step in trend.steps}
    assert times["fence_primary"] == (2, 120.0) and times["execution"] == (2, 250.0)
    assert "repoint_standbys" not in times and "notification" not in times
