"""What a run answers when it ends: the content of its record, too."""

from __future__ import annotations

from collections.abc import Sequence

from temporalio import workflow

from .execution import Execution
from .progress import Ended
from .takeover import Takeover

with workflow.unsafe.imports_passed_through():
    from qnwis.continuity.run import Assessment, FailoverRequest, RunKind, RunOutcome, RunResult, StepProgress
    from qnwis.continuity.verifier import VerificationReport


def result_of(
    request: FailoverRequest,
    takeover: Takeover,
    assessment: Assessment,
    ended: Ended,
    execution: Execution | None,
    verification: VerificationReport | None,
    steps: Sequence[StepProgress],
    undelivered: Sequence[str],
) -> RunResult:
    plan = assessment.plan
    fence = execution.outcome_of("fence_primary") if execution is not None else None
    moved = ended.outcome in {RunOutcome.COMPLETED, RunOutcome.INCOMPLETE}
    return RunResult(
        kind=RunKind.PRIMARY_FAILURE,
        outcome=ended.outcome,
        reason=ended.reason,
        cluster_id=request.cluster_id,
        run_id=takeover.run_id,
        dry_run=request.dry_run,
        epoch=assessment.epoch or None,
        old_primary=plan.primary_node_id if plan is not None else None,
        new_primary=plan.failover_target_id if plan is not None and moved else None,
        plan=plan,
        plan_digest=plan.digest if plan is not None else None,
        refusal=ended.refusal,
        outcomes=execution.outcomes if execution is not None else (),
        fencing=fence.fencing if fence is not None else None,
        verification=verification,
        steps=tuple(steps),
        notes=(*assessment.notes, *undelivered),
        continues=takeover.continued,
        started_at=takeover.started_at,
        ended_at=workflow.now(),
    )
