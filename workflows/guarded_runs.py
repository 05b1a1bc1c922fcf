"""The runs of one cluster as its guardian knows them: those it starts, and those that others start or end.

Temporal is asked, and not only the child that was started: a guardian that was terminated and started again,
or whose child was terminated, learns here what goes on, what has ended and what is left unfinished.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError

from . import options
from .names import failover_id, guardian_id
from .primary_failure import PrimaryFailure

with workflow.unsafe.imports_passed_through():
    from activities.past_runs import PastRuns, RunsReport, WatchRunsRequest
    from qnwis.continuity.heartbeat import HeartbeatConfig
    from qnwis.continuity.run import FailoverRequest, RunKind, RunResult
    from qnwis.continuity.takeover import Remains
    from qnwis.runbook import load_runbook

Child = workflow.ChildWorkflowHandle[PrimaryFailure, RunResult]


FINISH_AGAIN = timedelta(seconds=2)
FINISH_AGAIN_LONGEST = timedelta(minutes=5)


class GuardedRuns:
    def __init__(self, cluster_id: str, own: str | None = None) -> None:
        self._cluster_id = cluster_id
        self._seen: str | None = None
        self._watching: asyncio.Task[None] | None = None
        self._unfinished: Remains | None = None
        self._tries: Counter[str] = Counter()
        self.own = own
        """Temporal's run id of the run that the guardian started, while that goes on."""
        self.silent_s = HeartbeatConfig().watch_timeout_sec
        """How long whoever looks at the runs may be silent before another does; the topology says."""
        self._followed: asyncio.Task[None] | None = None

    async def start(self, request: FailoverRequest) -> Child:
        """Start the runbook under the cluster's lock. Raises WorkflowAlreadyStartedError."""
        return await workflow.start_child_workflow(
            PrimaryFailure.run,
            request,
            id=failover_id(self._cluster_id),
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            static_summary=f"Failover of {self._cluster_id}: {request.reason}",
            static_details=load_runbook(RunKind.PRIMARY_FAILURE).text,
        )

    def follow(self, run: Child, take_in: Callable[[Child], Awaitable[None]]) -> asyncio.Task[None]:
        """Have the end of the guardian's own run taken in when it comes; until then `own` names it."""

        async def to_the_end() -> None:
            try:
                await take_in(run)
            finally:
                self.own = None

        self.own = run.first_execution_run_id
        self._followed = asyncio.create_task(to_the_end())
        return self._followed

    def let_go(self, report: RunsReport) -> bool:
        """Whether the run that an earlier execution of this guardian started has ended. This one has no
        handle on it, and hears of its end as of anybody's."""
        if self._followed is not None or self.own is None or report.going_on == self.own:
            return False
        self.own = None
        return True

    @property
    def broke_off(self) -> bool:
        """Whether taking in the end failed, which nobody awaits: it must not pass in silence."""
        return self._followed is not None and self._followed.done() and self._followed.exception() is not None

    def raise_what_broke_off(self) -> None:
        if self._followed is not None and self._followed.done():
            self._followed.result()

    async def ask_to_give_way(self, reason: str) -> None:
        """Have a run that only waits, for people or for a window, leave the lock."""
        with contextlib.suppress(ApplicationError):  # it has ended meanwhile
            run = workflow.get_external_workflow_handle(failover_id(self._cluster_id))
            await run.signal("give_way", reason)

    def to_finish(self) -> FailoverRequest | None:
        """What starts a run that ends the unfinished one; once for each time that one is found."""
        left, self._unfinished = self._unfinished, None
        if left is None:
            return None
        self._tries[left.run_id] += 1
        return FailoverRequest(
            cluster_id=self._cluster_id,
            initiated_by=guardian_id(self._cluster_id),
            reason=f"finish run {left.run_id}, {left.ended}",
            automatic=True,
            continues=left.run_id,
        )

    async def watch(self, tell: Callable[[RunsReport], Awaitable[None]]) -> None:
        """Return when `tell` was told how things are; from then on it is told of each change."""
        await self._look(tell)
        self._watching = asyncio.create_task(self._keep_looking(tell))

    async def stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _keep_looking(self, tell: Callable[[RunsReport], Awaitable[None]]) -> None:
        while True:
            await self._look(tell)

    async def _look(self, tell: Callable[[RunsReport], Awaitable[None]]) -> None:
        report = await workflow.execute_activity_method(
            PastRuns.watch_runs,
            WatchRunsRequest(workflow_id=failover_id(self._cluster_id), seen=self._seen),
            **options.watch_runs("runs of this cluster", silent_s=self.silent_s),
        )
        self._seen = report.seen
        tries = self._tries[report.unfinished.run_id] if report.unfinished is not None else 0
        if tries:
            # Whatever ends the finishing runs too, it must not fill the histories.
            again = min(FINISH_AGAIN * 2 ** min(tries, 10), FINISH_AGAIN_LONGEST)
            await workflow.sleep(again, summary="before an unfinished run is finished once more")
        self._unfinished = report.unfinished
        await tell(report)
