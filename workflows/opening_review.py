"""How a run that was an emergency override leaves its review behind."""

from __future__ import annotations

import contextlib

from temporalio import workflow
from temporalio.exceptions import WorkflowAlreadyStartedError

from .names import review_id
from .review import OverrideReview

with workflow.unsafe.imports_passed_through():
    from qnwis.continuity.policy import Policy
    from qnwis.continuity.review import Opened
    from qnwis.continuity.run import FailoverRequest, RunOutcome, RunResult

ACTED = frozenset({RunOutcome.COMPLETED, RunOutcome.INCOMPLETE, RunOutcome.ROLLED_BACK})
"""Where an override did nothing, there is nothing to review."""


async def open_review(request: FailoverRequest, policy: Policy, result: RunResult) -> None:
    """Start the review, which outlives this run; a run that is reset finds the one that it started."""
    if not request.override or result.outcome not in ACTED:
        return
    opened = Opened(
        cluster_id=result.cluster_id,
        run_id=result.run_id,
        audit_id=result.audit_id,
        initiated_by=request.initiated_by,
        reason=request.reason,
        outcome=result.outcome,
        old_primary=result.old_primary,
        new_primary=result.new_primary,
        notes=result.notes,
        suspension=result.suspension,
        at=result.ended_at,
        remind_every_s=policy.review_reminder_s,
    )
    with contextlib.suppress(WorkflowAlreadyStartedError):
        await workflow.start_child_workflow(
            OverrideReview.run,
            args=[opened, None],
            id=review_id(result.cluster_id, result.run_id),
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            static_summary=f"Review of the override of {result.cluster_id} by {request.initiated_by}",
        )
