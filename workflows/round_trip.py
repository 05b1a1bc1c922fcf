"""There, and back where that is wanted: what schedules and drills start.

Each way is a run of its own under the cluster's lock, a child of this. There it goes by either runbook; the
way back is a switchover, was agreed to with the way there, and is tried until the service stands where it
began. A drill that leaves the cluster changed is none: a person who ends it before that is told what is left
to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ChildWorkflowError,
    WorkflowAlreadyStartedError,
)

from . import options
from .details import show_details
from .lock import refuse_a_lock
from .names import CLUSTER, KIND, failover_id
from .planned_maintenance import PlannedMaintenance
from .primary_failure import PrimaryFailure
from .stopping import uninterrupted
from .versioning import PINNED

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.rejoining import BringBack, Rejoining
    from qnwis.continuity.executor import Outcome, OutcomeStatus
    from qnwis.continuity.round_trips import RoundTripResult, left_to_do
    from qnwis.continuity.run import FailoverRequest, Maintenance, RunKind, RunResult
    from qnwis.runbook import load_runbook

AGAIN_FIRST = timedelta(seconds=10)
AGAIN_LONGEST = timedelta(minutes=5)
HEARS_OF_EVERY_CANCEL = "a cancel of a round trip reaches a run that is only just being started"
"""Patch: before, it was lost, and the way back was given up all the same."""
RUNBOOKS: Mapping[RunKind, Callable[[Any, FailoverRequest | None], Awaitable[RunResult]]] = {
    RunKind.PRIMARY_FAILURE: PrimaryFailure.run,
    RunKind.PLANNED_MAINTENANCE: PlannedMaintenance.run,
}


@workflow.defn(failure_exception_types=[ValidationError], versioning_behavior=PINNED)
class RoundTrip:
    """Move the service, and back after `maintenance.back_after_s` where that is set."""

    @workflow.init
    def __init__(self, request: FailoverRequest) -> None:
        self._request = request
        self._maintenance = request.maintenance or Maintenance()
        self._going_on: asyncio.Task[Any] | None = None
        """The child or the activity that is waited for."""
        self._given_up = False
        """A person has cancelled this: what goes on stops where it may, and nothing further begins."""
        self._without_result = False
        """A run had begun and ended without a result, so it may have moved the service."""

    @workflow.run
    async def run(self, request: FailoverRequest) -> RoundTripResult:
        refuse_a_lock()
        if self._maintenance.returns is not None:
            raise ApplicationError(
                "the request says that it is a way back; only a round trip itself says that",
                type="no_way_back",
                non_retryable=True,
            )
        if request.automatic or request.agreed_with is not None or request.initiator_roles:
            raise ApplicationError(
                "the request says that nobody need be asked (automatic, agreed_with or initiator_roles); only"
                " guardians and the evacuation of a region say that",
                type="not_agreed",
                non_retryable=True,
            )
        workflow.upsert_search_attributes(
            [CLUSTER.value_set(request.cluster_id), KIND.value_set("round_trip")]
        )
        return await uninterrupted(self._there_and_back(), on_cancel=self._give_up)

    async def _there_and_back(self) -> RoundTripResult:
        request = self._request.model_copy(update={"maintenance": self._maintenance})
        there, why = await self._move(self._maintenance.there_by, request)
        wanted = self._maintenance.back_after_s
        if there is None or not there.moved or wanted is None:
            return self._result(there, None, why)
        where = there.new_primary or "nowhere that is known"
        show_details(f"moved to {where}; the way back begins {wanted:g} s later")
        await self._wait(timedelta(seconds=wanted), "until the way back")
        back, why = await self._back(there)
        return self._result(there, back, why)

    async def _back(self, there: RunResult) -> tuple[RunResult | None, str]:
        """The run that moved the service back, and why none was verified. Tried ever less often, until the
        service has moved or a person cancels this."""
        assert there.old_primary is not None, "the service has moved away from it"
        pause, tried = AGAIN_FIRST, 0
        request = self._request.model_copy(
            update={
                "token": None,
                "plan": None,
                "even_if_healthy": False,
                "initiator_roles": there.initiator_roles,
                "reason": f"the way back of run {there.run_id}: {self._request.reason}",
                "maintenance": Maintenance(
                    target_node_id=there.old_primary, returns=there.run_id, drill=self._maintenance.drill
                ),
            }
        )
        back: RunResult | None = None
        why = "it was cancelled before the way back began"
        while not self._given_up:
            tried += 1
            standby = await self._bring_back(there.old_primary, tried)
            why = standby.detail
            if standby.facts.get("rule") == "is_primary":
                return back, f"another run has moved the service back: {why}"
            if standby.status is OutcomeStatus.SUCCEEDED:
                back, why = await self._move(RunKind.PLANNED_MAINTENANCE, request)
                if back is not None and back.moved:
                    return back, why
            show_details(f"the way back of run {there.run_id} is tried again in {pause}: {why}")
            await self._wait(pause, "before the way back is tried again")
            pause = min(2 * pause, AGAIN_LONGEST)
        return back, why

    async def _bring_back(self, node_id: str, tried: int) -> Outcome:
        """Have the old primary follow the new one."""
        show_details(f"{node_id} comes back as a standby")
        by = f"round-trip-{workflow.info().run_id}-{tried}"
        try:
            self._going_on = returning = workflow.start_activity_method(
                Rejoining.bring_back,
                BringBack(cluster_id=self._request.cluster_id, node_id=node_id, by=by),
                **options.rejoin(f"{node_id} comes back as a standby"),
            )
            return await returning
        except ActivityError as error:
            return Outcome(
                action_id=f"rejoin-{node_id}", status=OutcomeStatus.UNKNOWN, detail=str(error.cause or error)
            )

    async def _move(self, runbook: RunKind, request: FailoverRequest) -> tuple[RunResult | None, str]:
        """What the run came to, and why; None where it came to nothing of its own."""
        if self._is_to_stop:
            return None, "it was cancelled before the run began"
        text = load_runbook(runbook)
        try:
            self._going_on = moving = await workflow.start_child_workflow(
                RUNBOOKS[runbook],
                request,
                id=failover_id(request.cluster_id, dry_run=request.dry_run),
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                static_summary=f"{text.title} of {request.cluster_id}: {request.reason}",
                static_details=text.text,
            )
            if self._is_to_stop:
                moving.cancel()
            result = await moving
        except WorkflowAlreadyStartedError:
            return None, f"a run holds the lock of {request.cluster_id}"
        except ChildWorkflowError as error:
            self._without_result = True
            return None, f"the run was ended from outside: {error.cause or error}"
        return result, f"{result.outcome}: {result.reason}"

    async def _wait(self, time: timedelta, summary: str) -> None:
        try:
            await workflow.wait_condition(lambda: self._given_up, timeout=time, timeout_summary=summary)
        except TimeoutError:
            return

    @property
    def _is_to_stop(self) -> bool:
        """Whether it was given up while there was nothing yet that could be cancelled."""
        return self._given_up and workflow.patched(HEARS_OF_EVERY_CANCEL)

    def _give_up(self) -> None:
        self._given_up = True
        if self._going_on is not None:
            self._going_on.cancel()

    def _result(self, there: RunResult | None, back: RunResult | None, why: str) -> RoundTripResult:
        result = RoundTripResult(
            cluster_id=self._request.cluster_id,
            drill=self._maintenance.drill,
            there=there,
            back=back,
            why=why,
            left_to_do=left_to_do(
                self._request.cluster_id,
                there,
                back,
                wanted=self._maintenance.back_after_s is not None,
                without_result=self._without_result,
            ),
        )
        show_details(result.summary)
        return result
