"""Planned maintenance there, and back where that is wanted: what schedules and drills start.

Each way is a run of its own under the cluster's lock, a child of this. The way back was agreed to with the
way there, and is tried until the service stands where it began: a drill that leaves the cluster changed is
none.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from .names import CLUSTER, KIND, failover_id
from .planned_maintenance import PlannedMaintenance

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from qnwis.continuity.run import (
        FailoverRequest,
        Maintenance,
        RoundTripResult,
        RunKind,
        RunOutcome,
        RunResult,
    )
    from qnwis.runbook import load_runbook

AGAIN_FIRST = timedelta(seconds=10)
AGAIN_LONGEST = timedelta(minutes=5)


@workflow.defn(failure_exception_types=[ValidationError])
class RoundTrip:
    """Move the service, and back after `maintenance.back_after_s` where that is set."""

    @workflow.init
    def __init__(self, request: FailoverRequest) -> None:
        self._request = request
        self._maintenance = request.maintenance or Maintenance()

    @workflow.run
    async def run(self, request: FailoverRequest) -> RoundTripResult:
        workflow.upsert_search_attributes(
            [CLUSTER.value_set(request.cluster_id), KIND.value_set("round_trip")]
        )
        there = await self._move(self._request.model_copy(update={"maintenance": self._maintenance}))
        wanted = self._maintenance.back_after_s
        moved = there is not None and there.outcome in {RunOutcome.COMPLETED, RunOutcome.INCOMPLETE}
        if there is None or not moved or wanted is None:
            return self._result(there)
        self._show(f"moved to {there.new_primary}; the way back begins {wanted:g} s later")
        await workflow.sleep(wanted, summary="until the way back")
        return self._result(there, back=await self._back(there))

    async def _back(self, there: RunResult) -> RunResult:
        """Tried again until it is done, ever less often; a person may cancel this workflow."""
        pause = AGAIN_FIRST
        request = self._request.model_copy(
            update={
                "token": None,
                "plan": None,
                "reason": f"the way back of run {there.run_id}: {self._request.reason}",
                "maintenance": Maintenance(
                    target_node_id=there.old_primary, returns=there.run_id, drill=self._maintenance.drill
                ),
            }
        )
        while True:
            back = await self._move(request)
            if back is not None and back.verified:
                return back
            why = "a run holds the lock" if back is None else f"{back.outcome}: {back.reason}"
            self._show(f"the way back of run {there.run_id} is tried again in {pause}: {why}")
            await workflow.sleep(pause, summary="before the way back is tried again")
            pause = min(2 * pause, AGAIN_LONGEST)

    async def _move(self, request: FailoverRequest) -> RunResult | None:
        """None where a run holds the cluster's lock."""
        try:
            return await workflow.execute_child_workflow(
                PlannedMaintenance.run,
                request,
                id=failover_id(request.cluster_id, dry_run=request.dry_run),
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                static_summary=f"Maintenance of {request.cluster_id}: {request.reason}",
                static_details=load_runbook(RunKind.PLANNED_MAINTENANCE).text,
            )
        except WorkflowAlreadyStartedError:
            return None

    def _result(self, there: RunResult | None, back: RunResult | None = None) -> RoundTripResult:
        result = RoundTripResult(
            cluster_id=self._request.cluster_id, drill=self._maintenance.drill, there=there, back=back
        )
        self._show(result.summary)
        return result

    def _show(self, text: str) -> None:
        workflow.set_current_details(text)
