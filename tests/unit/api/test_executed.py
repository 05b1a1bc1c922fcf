"""A run that has ended, in the specification's form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from qnwis.api.bodies import executed
from qnwis.continuity.access import ApprovalWorkflow
from qnwis.continuity.approvals import Window
from qnwis.continuity.audit import draft_of
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.run import FailoverRequest, RunArtefacts, RunKind, RunOutcome, RunResult, StepProgress

AT = datetime(2026, 1, 5, 12, tzinfo=UTC)
WINDOW = Window(
    name="manual_failover",
    workflow=ApprovalWorkflow(required_approvers=1, allowed_roles=("sre",), timeout_sec=900),
    digest="sha256:" + "0" * 64,
    initiator="bob",
    opened_at=AT,
)
VOTED_MS, EXECUTED_MS, WHOLE_MS = 600_000.0, 3450.0, 604_000.0


def run(**more: object) -> RunResult:
    took = {"approval": VOTED_MS, "execution": EXECUTED_MS}
    return RunResult.model_validate(
        {
            "kind": RunKind.PRIMARY_FAILURE,
            "outcome": RunOutcome.COMPLETED,
            "reason": "done",
            "cluster_id": "c",
            "run_id": "run-1",
            "steps": [
                StepProgress(name=name, title=name, expected_ms=1, elapsed_ms=ms) for name, ms in took.items()
            ],
            "started_at": AT,
            "ended_at": AT + timedelta(milliseconds=WHOLE_MS),
            **more,
        }
    )


def test_the_time_that_people_took_to_vote_is_no_execution() -> None:
    asked = run(approval=WINDOW)
    answer = executed(asked, "plan-1", "r", total_ms=WHOLE_MS + 20)
    assert answer.timings_ms == {"total": WHOLE_MS + 20, "execution": EXECUTED_MS, "approval": VOTED_MS}
    assert answer.total_duration_ms == WHOLE_MS


def test_where_nobody_was_asked_there_is_no_time_of_theirs() -> None:
    assert executed(run(), "plan-1", "r", total_ms=1.0).timings_ms == {"total": 1.0, "execution": EXECUTED_MS}
    assert executed(run(steps=()), "plan-1", "r", total_ms=1.0).timings_ms == {"total": 1.0, "execution": 0.0}


@pytest.mark.parametrize(("dry_run", "executed_actions"), [(False, 2), (True, 0)])
def test_an_action_with_nothing_to_do_is_executed_and_a_preview_is_not(
    dry_run: bool, executed_actions: int
) -> None:
    became = (
        (OutcomeStatus.SKIPPED,) * 3
        if dry_run
        else (OutcomeStatus.SUCCEEDED, OutcomeStatus.SKIPPED, OutcomeStatus.FAILED)
    )
    outcomes = tuple(Outcome(action_id=str(n), status=status) for n, status in enumerate(became))
    result = run(outcomes=outcomes, dry_run=dry_run)
    assert executed(result, "plan-1", "r", total_ms=1.0).actions_executed == executed_actions
    artefacts = RunArtefacts(
        request=FailoverRequest(cluster_id="c", initiated_by="bob", reason="test", dry_run=dry_run),
        evidence_before=ClusterEvidence(cluster_id="c", nodes=()),
        evidence_after=None,
        result=result,
    )
    assert draft_of(artefacts).result.actions_executed == executed_actions
