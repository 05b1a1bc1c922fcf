"""No duration that is configured or asked for takes a run out of the calendar, where it would hang."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from qnwis.continuity.access import ApprovalWorkflow
from qnwis.continuity.approvals import Window
from qnwis.continuity.model import LONGEST_S, Model
from qnwis.continuity.regions import RegionFinding, RegionRules, RegionVerdict, decides_at
from qnwis.continuity.review import Opened
from qnwis.continuity.run import LATEST, Maintenance, RunOutcome
from qnwis.continuity.switchover import window_refusal
from tests.unit.continuity.scenes import NOON, spec_plan


def approved_within(seconds: float) -> ApprovalWorkflow:
    return ApprovalWorkflow(required_approvers=1, allowed_roles=("sre_oncall",), timeout_sec=seconds)


def reminded_every(seconds: float) -> Opened:
    return Opened(
        cluster_id="prod", run_id="r", audit_id=None, initiated_by="ann", reason="-",
        outcome=RunOutcome.COMPLETED, old_primary=None, new_primary=None, notes=(), suspension=None,
        at=NOON, remind_every_s=seconds,
    )  # fmt: skip


@pytest.mark.parametrize(
    "made",
    [
        lambda s: Maintenance(window_s=s),
        lambda s: Maintenance(back_after_s=s),
        lambda s: RegionRules(dwell_s=s),
        lambda s: RegionRules(settle_s=s),
        approved_within,
        reminded_every,
    ],
)
def test_a_duration_without_an_end_is_refused(made: Callable[[float], Model]) -> None:
    assert made(LONGEST_S)
    for seconds in (LONGEST_S + 1, 1e13, float("inf"), float("nan"), -1.0):
        with pytest.raises(ValidationError):
            made(seconds)


def test_a_window_that_no_timer_can_wait_for_is_refused() -> None:
    with pytest.raises(ValidationError, match="not_before"):
        Maintenance(not_before=datetime.max.replace(tzinfo=UTC))
    with pytest.raises(ValidationError, match="not_before"):
        Maintenance(not_before=LATEST)


def test_the_longest_there_are_have_an_end_in_the_calendar() -> None:
    late = LATEST - timedelta(seconds=1)
    told: dict[str, Any] = {"not_before": late, "window_s": LONGEST_S}
    assert window_refusal(Maintenance(**told), spec_plan(), started_at=NOON, now=late) is None
    window = Window(
        name="w", workflow=approved_within(LONGEST_S), digest="d", initiator="ann", opened_at=late
    )
    assert window.closes_at > late
    verdict = RegionVerdict(region="r", finding=RegionFinding.SUSPECTED, why="-", since=late)
    assert decides_at(verdict, RegionRules(dwell_s=LONGEST_S)) is not None
