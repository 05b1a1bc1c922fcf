"""What a maintenance schedule starts: planned maintenance under the cluster's lock, if nothing holds it.

Temporal gives what a schedule starts an id with the time in it. The lock is another id, so a run
is its child.
"""

from __future__ import annotations

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from .names import CLUSTER, KIND, failover_id
from .planned_maintenance import PlannedMaintenance

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from qnwis.continuity.run import FailoverRequest, RunKind
    from qnwis.runbook import load_runbook


@workflow.defn(failure_exception_types=[ValidationError])
class ScheduledMaintenance:
    """Start planned maintenance and say what became of it."""

    @workflow.run
    async def run(self, request: FailoverRequest) -> str:
        workflow.upsert_search_attributes(
            [CLUSTER.value_set(request.cluster_id), KIND.value_set("maintenance_schedule")]
        )
        try:
            run = await workflow.start_child_workflow(
                PlannedMaintenance.run,
                request,
                id=failover_id(request.cluster_id),
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                static_summary=f"Scheduled maintenance of {request.cluster_id}: {request.reason}",
                static_details=load_runbook(RunKind.PLANNED_MAINTENANCE).text,
            )
        except WorkflowAlreadyStartedError:
            return f"skipped: a run holds the lock of {request.cluster_id}"
        result = await run
        return f"run {result.run_id}: {result.outcome.value}: {result.reason}"
