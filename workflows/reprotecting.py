"""What the guardian does for the standbys: it sees that `Reprotect` runs where the policy says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import WorkflowAlreadyStartedError

from . import options
from .names import reprotect_id
from .reprotect import Reprotect, ReprotectState

with workflow.unsafe.imports_passed_through():
    from activities.regions import AwaitRun, Regions
    from qnwis.config.registry import Registered
    from qnwis.continuity.policy import Reprotection

BEGINS_AGAIN = "reprotect begins again after it has ended"
"""Patch: before, a guardian started it once, and never again before it continued as new."""
FOLLOWS_ANOTHERS = "reprotect that another guardian started is followed to its end"
"""Patch: before, a guardian that was awake anyway asked after an hour whether it still ran."""
AGAIN, AGAIN_LONGEST = timedelta(seconds=5), timedelta(hours=1)
"""The first pause before one that has ended is started again, and the longest; each is twice the one before.
One that ran for longer than the longest begins with the first again."""
SILENT_S = 60.0
"""How long whoever follows another's may be silent before another does; nobody waits for it."""


class Reprotecting:
    """Of one execution of a guardian."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake`: has the guardian call `keep_going` soon."""
        self._wake = wake
        self._begun = False
        self._pause = AGAIN
        self._ask_again_at: datetime | None = None
        """When to see whether one that an earlier guardian started still runs; before it was followed."""
        self._following: asyncio.Task[None] | None = None

    async def keep_going(self, registered: Registered) -> None:
        """Start it, if it does not run. It ends by itself where the policy says otherwise later."""
        if self._ask_again_at is not None and self._is_time(registered):
            self._begun, self._ask_again_at = False, None
        if self._begun or registered.policy.reprotect is not Reprotection.AUTOMATIC:
            return
        self._begun = True
        cluster_id = registered.cluster.cluster_id
        began = workflow.now()
        try:
            child = await workflow.start_child_workflow(
                Reprotect.run,
                ReprotectState(cluster_id=cluster_id),
                id=reprotect_id(cluster_id),
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                static_summary=f"Standbys of {cluster_id}",
            )
        except WorkflowAlreadyStartedError:
            if not workflow.patched(FOLLOWS_ANOTHERS):
                self._ask_again_at = began + AGAIN_LONGEST
                return
            ended: Awaitable[None] = workflow.start_activity_method(
                Regions.await_run,
                AwaitRun(workflow_id=reprotect_id(cluster_id)),
                **options.watch_runs("the standbys' workflow that goes on", silent_s=SILENT_S),
            )
        else:
            ended = child
        self._following = asyncio.create_task(self._follow(ended, began))

    def _is_time(self, registered: Registered) -> bool:
        """Asked only when the guardian is awake anyway, so that its history grows with events alone."""
        assert self._ask_again_at is not None
        ends = registered.policy.reprotect is not Reprotection.AUTOMATIC
        return (ends or workflow.now() >= self._ask_again_at) and workflow.patched(BEGINS_AGAIN)

    async def _follow(self, ended: Awaitable[None], began: datetime) -> None:
        """When it has ended, for whatever reason, let it begin again after a pause."""
        await asyncio.gather(ended, return_exceptions=True)
        if not workflow.patched(BEGINS_AGAIN):
            return
        if workflow.now() - began > AGAIN_LONGEST:
            self._pause = AGAIN
        pause, self._pause = self._pause, min(2 * self._pause, AGAIN_LONGEST)
        await workflow.sleep(pause, summary="before reprotect begins again")
        self._begun = False
        self._wake()
