"""Round trips: what is left to do after one, and which may be asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from qnwis.continuity.round_trips import RoundTripResult, left_to_do
from qnwis.continuity.run import Maintenance, RunKind, RunOutcome, RunResult

AT = datetime(2026, 11, 28, tzinfo=UTC)


def ran(outcome: RunOutcome, old: str = "node-1", new: str | None = "node-2") -> RunResult:
    return RunResult(
        kind=RunKind.PRIMARY_FAILURE,
        outcome=outcome,
        reason="test",
        cluster_id="shop",
        run_id="run-1",
        old_primary=old,
        new_primary=new,
        started_at=AT,
        ended_at=AT,
    )


THERE = ran(RunOutcome.COMPLETED)
NOT_VERIFIED = ran(RunOutcome.INCOMPLETE, "node-2", "node-1")


@pytest.mark.parametrize(
    ("there", "back", "wanted", "left"),
    [
        (None, None, True, ()),
        (ran(RunOutcome.ROLLED_BACK, new=None), None, True, ()),
        (THERE, None, False, ()),
        (THERE, None, True, ("bring node-1 back", "move the service back")),
        (ran(RunOutcome.INCOMPLETE), None, True, ("bring node-1 back", "move the service back")),
        (THERE, ran(RunOutcome.REFUSED, new=None), True, ("bring node-1 back", "move the service back")),
        (THERE, NOT_VERIFIED, True, ("the service is back on node-1, and not verified",)),
    ],
)
def test_what_is_left_to_do_is_what_brings_the_service_back(
    there: RunResult | None, back: RunResult | None, wanted: bool, left: tuple[str, ...]
) -> None:
    found = left_to_do("shop", there, back, wanted=wanted)
    assert len(found) == len(left) and all(
        told.startswith(what) for told, what in zip(found, left, strict=True)
    )
    result = RoundTripResult(cluster_id="shop", drill=True, there=there, back=back, left_to_do=found)
    assert not (result.verified and found)
    assert all(line in result.summary for line in found)


@pytest.mark.parametrize(("wanted", "lines"), [(True, 2), (False, 1)])
def test_a_run_that_ended_without_a_result_may_have_moved_the_service(wanted: bool, lines: int) -> None:
    found = left_to_do("shop", None, None, wanted=wanted, without_result=True)
    assert len(found) == lines and found[0].startswith("see where the service is")
    result = RoundTripResult(cluster_id="shop", drill=True, there=None, why="terminated", left_to_do=found)
    assert not result.verified and result.summary.startswith("NOT known whether it moved: terminated")
    assert all(line in result.summary for line in found)


@pytest.mark.parametrize(
    "told",
    [
        {"drill": False, "back_after_s": 0},
        {"drill": True},
        {"drill": True, "back_after_s": 0, "target_node_id": "node-2"},
        {"drill": True, "back_after_s": 0, "window_s": 60},
        {"drill": True, "back_after_s": 0, "not_before": AT},
    ],
)
def test_a_failover_of_a_healthy_primary_is_a_drill_and_comes_back(told: dict[str, Any]) -> None:
    Maintenance(there_by=RunKind.PRIMARY_FAILURE, drill=True, back_after_s=0)
    with pytest.raises(ValidationError, match="there_by primary_failure: expected"):
        Maintenance(there_by=RunKind.PRIMARY_FAILURE, **told)


@pytest.mark.parametrize("there_by", [RunKind.REGION_FAILURE, "region_failure", "none"])
def test_a_service_goes_there_by_a_runbook_of_one_cluster(there_by: Any) -> None:
    told = {"drill": True, "back_after_s": 0, "there_by": there_by}
    with pytest.raises(ValidationError, match="expected primary_failure or planned_maintenance"):
        Maintenance.model_validate(told)
    schema = Maintenance.model_json_schema()["properties"]["there_by"]
    assert schema["enum"] == ["primary_failure", "planned_maintenance"]
