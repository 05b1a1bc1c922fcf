"""One cluster's move out of a region: a run of its own, or the one that goes on already."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import (
    ActivityError,
    ChildWorkflowError,
    TimeoutError,
    WorkflowAlreadyStartedError,
)

from . import options
from .guarded_runs import GuardedRuns
from .names import failover_id
from .planned_maintenance import PlannedMaintenance
from .primary_failure import PrimaryFailure

with workflow.unsafe.imports_passed_through():
    from activities.regions import AwaitRun, Regions, WhereRequest
    from qnwis.continuity.region_plan import ClusterMove, Direction, Move
    from qnwis.continuity.region_run import EvacuateRequest
    from qnwis.continuity.regions import Moved
    from qnwis.continuity.run import FailoverRequest, Maintenance, RunKind, RunOutcome, RunResult
    from qnwis.runbook import load_runbook

ADOPTED_AT_MOST = 2
"""How many runs of one cluster are waited for, one after the other."""
WAITS_NO_LONGER = "an evacuation that is stopped waits no longer for another's run"
"""Patch: before, it waited for the end of that run all the same."""

Child = workflow.ChildWorkflowHandle[Any, RunResult]


class Moving:
    """Of one cluster. A run that goes on already is waited for, as it may be moving the cluster just now; one
    that only waits for people gives way."""

    def __init__(
        self, evacuation: EvacuateRequest, move: ClusterMove, initiator_roles: tuple[str, ...]
    ) -> None:
        self._evacuation = evacuation
        self._move = move
        self._initiator_roles = initiator_roles
        self._child: Child | None = None
        self._waiting: workflow.ActivityHandle[None] | None = None
        """For the end of a run that went on already."""
        self._stopped = False
        self._told: Moved | None = None
        """What its own run came to, by that run's word; its record may still be on its way."""

    def hear(self, told: Moved) -> None:
        """How a run of the evacuation ended; it may be another cluster's."""
        if told.cluster_id == self._move.cluster_id:
            self._told = told

    @property
    def cluster_id(self) -> str:
        return self._move.cluster_id

    @property
    def is_over(self) -> bool:
        """Whether its own run has ended, its record included, if there was one."""
        return self._child is None or self._child.done()

    async def over(self) -> None:
        """Return when it is. Raises nothing."""
        await workflow.wait_condition(lambda: self.is_over)
        if self._child is not None and not self._child.cancelled():
            self._child.exception()  # of one that was told of, nobody asks what became of it

    def stop(self) -> None:
        """Have it stop at its next safe place, and begin nothing further."""
        self._stopped = True
        if self._child is not None:
            self._child.cancel()
        self._wait_no_longer()

    def _wait_no_longer(self) -> None:
        """Another's run goes on as it likes: only the wait for it ends."""
        if self._waiting is not None and workflow.patched(WAITS_NO_LONGER):
            self._waiting.cancel()

    async def moved(self) -> Moved:
        """How it ended. Raises nothing."""
        for _ in range(ADOPTED_AT_MOST):
            if self._stopped:
                return self._ended(RunOutcome.UNTOUCHED, "stopped before it began")
            try:
                return await self._by_own_run()
            except WorkflowAlreadyStartedError:
                adopted = await self._by_the_run_that_goes_on()
                if adopted is not None:
                    return adopted
        return self._ended(None, "other runs held the cluster's lock")

    async def _by_own_run(self) -> Moved:
        kind = RunKind.PRIMARY_FAILURE if self._move.how is Move.FAILOVER else RunKind.PLANNED_MAINTENANCE
        went = "leaves" if self._evacuation.direction is Direction.OUT else "comes back to"
        self._child = child = await workflow.start_child_workflow(
            PrimaryFailure.run if kind is RunKind.PRIMARY_FAILURE else PlannedMaintenance.run,
            self._request,
            id=failover_id(self._move.cluster_id),
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            static_summary=f"{self._move.cluster_id} {went} {self._evacuation.region}",
            static_details=load_runbook(kind).text,
        )
        if self._stopped:
            child.cancel()
        await workflow.wait_condition(lambda: child.done() or self._told is not None)
        if self._told is not None and not child.done():
            return self._told
        try:
            result = await child
        except ChildWorkflowError as error:
            reason = f"the run was ended from outside: {error.cause or error}"
            return self._ended(None, reason, run_id=child.first_execution_run_id)
        return self._ended(result.outcome, result.reason, run_id=result.run_id)

    async def _by_the_run_that_goes_on(self) -> Moved | None:
        """None where that run has ended and the cluster is still in the region."""
        cluster_id = self._move.cluster_id
        await GuardedRuns(cluster_id).ask_to_give_way(
            f"{self._evacuation.region} is left by all its clusters"
        )
        self._waiting = workflow.start_activity_method(
            Regions.await_run,
            AwaitRun(workflow_id=failover_id(cluster_id)),
            **options.await_run(f"the run of {cluster_id} that goes on"),
        )
        if self._stopped:
            self._wait_no_longer()
        try:
            await self._waiting
        except (ActivityError, asyncio.CancelledError) as error:
            return self._ended(None, f"another run holds the cluster's lock: {self._why_no_longer(error)}")
        finally:
            self._waiting = None
        try:
            where = await workflow.execute_activity_method(
                Regions.unmoved,
                WhereRequest(
                    region=self._evacuation.region,
                    direction=self._evacuation.direction,
                    clusters=(cluster_id,),
                ),
                **options.look(f"has {cluster_id} moved?"),
            )
        except ActivityError as error:
            return self._ended(None, str(error.cause or error))
        if cluster_id in where.unmoved:
            return None
        return self._ended(RunOutcome.COMPLETED, "another run moved it").model_copy(update={"adopted": True})

    def _why_no_longer(self, error: BaseException) -> str:
        if self._stopped:
            return "stopped while it was waited for"
        if isinstance(error, ActivityError) and isinstance(error.cause, TimeoutError):
            return f"it has not ended within {options.RUN_ENDS_WITHIN_S / 60:g} min"
        return str(error.__cause__ or error)

    @property
    def _request(self) -> FailoverRequest:
        plan = self._move.plan
        switchover = self._move.how is Move.SWITCHOVER
        return FailoverRequest(
            cluster_id=self._move.cluster_id,
            initiated_by=self._evacuation.initiated_by,
            reason=plan.trigger_reason,
            plan=plan,
            leaving=self._evacuation.region if self._evacuation.direction is Direction.OUT else None,
            agreed_with=workflow.info().run_id,
            initiator_roles=self._initiator_roles,
            maintenance=Maintenance(target_node_id=plan.failover_target_id) if switchover else None,
        )

    def _ended(self, outcome: RunOutcome | None, reason: str, *, run_id: str | None = None) -> Moved:
        return Moved(cluster_id=self._move.cluster_id, outcome=outcome, reason=reason, run_id=run_id)
