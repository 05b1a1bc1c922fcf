"""What a run answers when it ends: the content of its record, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio import workflow

from .ended import Ended

with workflow.unsafe.imports_passed_through():
    from qnwis.continuity.executor import FORCES, POINTS_OF_NO_RETURN, OutcomeStatus
    from qnwis.continuity.override import Suspension
    from qnwis.continuity.run import RunOutcome, RunResult

if TYPE_CHECKING:
    from .execution import Execution
    from .run import Run


def result_of(run: Run, ended: Ended) -> RunResult:
    plan, execution = run.known.assessment.plan, run.execution
    fence = execution.fence if execution is not None else None
    moved = ended.outcome in {RunOutcome.COMPLETED, RunOutcome.INCOMPLETE}
    where = plan.failover_target_id if plan is not None and moved and _is_promoted(execution) else None
    return RunResult(
        kind=run.kind,
        outcome=ended.outcome,
        reason=ended.reason,
        cluster_id=run.request.cluster_id,
        run_id=run.takeover.run_id,
        dry_run=run.request.dry_run,
        epoch=run.known.assessment.epoch or None,
        old_primary=plan.primary_node_id if plan is not None else None,
        new_primary=where,
        plan=plan,
        plan_digest=plan.digest if plan is not None else None,
        predicted_loss_bytes=run.known.assessment.predicted_loss_bytes,
        refusal=ended.refusal,
        outcomes=execution.outcomes if execution is not None else (),
        fencing=fence.fencing if fence is not None else None,
        suspension=_suspension(execution),
        verification=run.verification,
        steps=run.progress.steps,
        hooks=tuple(run.hooks.results),
        steady_state=tuple(run.steady.readings),
        notes=run.notes,
        approval=run.approval.window,
        initiator_roles=run.known.initiator_roles,
        continues=run.takeover.continued,
        started_at=run.takeover.started_at,
        ended_at=workflow.now(),
    )


def _is_promoted(execution: Execution | None) -> bool:
    """Whether the target is known to lead: what became of a hand-over may be left to people."""
    promotions = (execution.outcome_of(kind) for kind in POINTS_OF_NO_RETURN) if execution is not None else ()
    return any(one is not None and one.status is OutcomeStatus.SUCCEEDED for one in promotions)


def _suspension(execution: Execution | None) -> Suspension | None:
    """What the action that gave nodes up says of it; nothing where that was taken back."""
    forced = execution.outcome_of(FORCES) if execution is not None else None
    if forced is None or forced.status is not OutcomeStatus.SUCCEEDED or "suspension" not in forced.facts:
        return None
    return Suspension.model_validate(forced.facts["suspension"])
