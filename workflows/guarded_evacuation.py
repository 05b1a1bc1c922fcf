"""The evacuation of a region as its guardian knows it: the one that it begins, or one that was begun before.

Temporal is asked, and not only the child that was started: a guardian that was terminated and started anew,
or that finds the region's lock taken, goes on with the evacuation that there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ChildWorkflowError

from . import options
from .names import region_id
from .region_failure import RegionFailure

with workflow.unsafe.imports_passed_through():
    from activities.past_evacuations import AwaitEvacuation, PastEvacuations, RegionLock
    from qnwis.continuity.region_adoption import TakenUp
    from qnwis.continuity.region_run import EvacuateRequest, RegionResult
    from qnwis.continuity.run import RunKind, RunOutcome
    from qnwis.runbook import load_runbook

Evacuating = workflow.ChildWorkflowHandle[RegionFailure, RegionResult]


class GuardedEvacuation:
    """One at a time, under the region's lock. `take_in` is told of its end: the outcome, if it had one, and
    the reason."""

    def __init__(self, region: str, take_in: Callable[[RunOutcome | None, str], None]) -> None:
        self._lock = region_id(region)
        self._take_in = take_in
        self._followed: asyncio.Task[None] | None = None

    @property
    def goes_on(self) -> bool:
        """Whether it goes on, or its end is still to be taken in."""
        return self._followed is not None

    @property
    def has_ended(self) -> bool:
        return self._followed is not None and self._followed.done()

    def let_go(self) -> None:
        """Of one that has ended. What broke off while its end was taken in is raised here, not lost."""
        if self._followed is not None and self._followed.done():
            followed, self._followed = self._followed, None
            followed.result()

    async def take_up(self) -> TakenUp | None:
        """The one that there is; from now on its end is waited for, where it goes on."""
        found = await workflow.execute_activity_method(
            PastEvacuations.take_up_evacuation,
            RegionLock(workflow_id=self._lock),
            **options.read("an evacuation that was begun before"),
        )
        if found is not None and found.goes_on and found.begun.run_id is not None:
            self.follow(found.begun.run_id)
        return found

    def follow(self, run_id: str) -> None:
        """Wait for the end of one that goes on, and that this execution did not begin."""
        self._followed = asyncio.create_task(self._await_another(run_id))

    async def begin(self, request: EvacuateRequest) -> str | None:
        """Begin it; returns its run id. Raises WorkflowAlreadyStartedError."""
        run = await workflow.start_child_workflow(
            RegionFailure.run,
            request,
            id=self._lock,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            static_summary=f"Evacuation of {request.region}: {request.reason}",
            static_details=load_runbook(RunKind.REGION_FAILURE).text,
        )
        self._followed = asyncio.create_task(self._await_own(run))
        return run.first_execution_run_id

    async def _await_own(self, run: Evacuating) -> None:
        try:
            result = await run
        except ChildWorkflowError as error:
            self._take_in(None, f"ended without a result: {error.cause or error}")
        else:
            self._take_in(result.outcome, result.reason)

    async def _await_another(self, run_id: str) -> None:
        end = await workflow.execute_activity_method(
            PastEvacuations.await_evacuation,
            AwaitEvacuation(workflow_id=self._lock, run_id=run_id),
            **options.watch_runs("the evacuation that goes on"),
        )
        self._take_in(end.outcome, end.reason)
