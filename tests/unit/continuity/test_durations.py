"""No duration that is configured or asked for takes a run out of the calendar, where it would hang."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from qnwis.config.load import validated
from qnwis.config.problem import ConfigError
from qnwis.config.yaml_source import read_yaml
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


def test_what_is_stored_of_before_there_was_a_limit_is_read_as_the_longest_there_is() -> None:
    """A run that goes on has it as its input, and must not fail over it when its worker is a newer one."""
    stored = '{"not_before": "2399-01-01T00:00:00Z", "window_s": 63072000, "back_after_s": 1e13}'
    read = Maintenance.model_validate_json(stored)
    assert (read.window_s, read.back_after_s) == (LONGEST_S, LONGEST_S)
    assert read.not_before is not None and read.not_before < LATEST
    assert Maintenance.model_validate_json(read.model_dump_json()) == read
    window = approved_within(1).model_dump() | {"timeout_sec": 2 * LONGEST_S}
    assert ApprovalWorkflow.model_validate_json(json.dumps(window)).timeout_sec == LONGEST_S
    rules = RegionRules.model_validate_json(json.dumps({"dwell_s": 1e13, "settle_s": 1e13}))
    assert (rules.dwell_s, rules.settle_s) == (LONGEST_S, LONGEST_S)
    with pytest.raises(ValidationError):
        Maintenance.model_validate(json.loads(stored))
    for wrong in ('{"window_s": -1}', '{"window_s": "x"}', '{"not_before": "soon"}'):
        with pytest.raises(ValidationError):
            Maintenance.model_validate_json(wrong)


def test_what_is_configured_without_an_end_is_refused(tmp_path: Path) -> None:
    """Though a file is read by way of JSON, too."""
    (file := tmp_path / "regions.yaml").write_text("dwell_s: 1e13\n")
    with pytest.raises(ConfigError, match="dwell_s"):
        validated(RegionRules, read_yaml(file))


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
