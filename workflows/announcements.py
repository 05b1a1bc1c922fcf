"""What a run tells people and the guardian. None of it ever stops or delays the run's effects."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from . import options
from .checklist import command_to_approve
from .progress import Progress

with workflow.unsafe.imports_passed_through():
    from activities.notification import Notifications
    from qnwis.continuity.approvals import PendingApproval
    from qnwis.continuity.guardian_rules import PastRun
    from qnwis.continuity.notifications import Notification, RunEvent, Told, approval_text
    from qnwis.continuity.region_run import EvacuateRequest, RegionResult
    from qnwis.continuity.regions import Moved
    from qnwis.continuity.run import DRY_RUN_MARK, FailoverRequest, RunOutcome, RunResult

PATIENCE = timedelta(seconds=5)
"""How long a finished run waits for its notifications to be taken."""


class Announcements:
    """The notifications of one run, sent beside it. Whom they did not reach is shown in its progress."""

    def __init__(
        self, request: FailoverRequest | EvacuateRequest, progress: Progress, *, what: str = "failover"
    ) -> None:
        self._request = request
        self._what = what
        self._progress = progress
        self._sending: dict[asyncio.Task[None], str] = {}
        self._overrun: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Say that the run started."""
        self._send(RunEvent.STARTED, "started", f"by {self._request.initiated_by}: {self._request.reason}")

    def watch_overrun(self, max_failover_time_s: float, *, over: Callable[[], bool] = lambda: False) -> None:
        """Arm the notice of an overrun; none is told once what counts is `over`."""
        self._overrun = asyncio.create_task(self._watch_overrun(max_failover_time_s, over))

    def planned(self, what: str) -> None:
        """Say what is going to be moved, and when."""
        self._send(RunEvent.STARTED, "is planned", what, about="planned")

    def approval_pending(self, pending: PendingApproval) -> None:
        """Say that people are asked for this plan, and what to type."""
        window = pending.window
        missing = window.workflow.required_approvers - window.approvals
        text = approval_text(
            command=command_to_approve(pending.plan),
            digest=window.digest,
            left_s=(window.closes_at - workflow.now()).total_seconds(),
            until=window.closes_at,
            needs=f"{missing} of {', '.join(pending.voters)}",
        )
        self._send(RunEvent.APPROVAL_PENDING, "waits for approval", text, about=window.digest)

    def held(self, why: str) -> None:
        """Say that a person has to let it go on."""
        self._send(RunEvent.HELD, "is held", why, about=why)

    async def end(self, result: RunResult | RegionResult) -> None:
        """Say how the run ended, then give the channels a bounded time."""
        if self._overrun is not None:
            self._overrun.cancel()
        done = result.verified or result.outcome is RunOutcome.PREVIEWED
        recorded = "" if result.audit_id is not None else "; it is NOT ON RECORD"
        self._send(
            RunEvent.DONE if done else RunEvent.FAILED, result.outcome.value, f"{result.reason}{recorded}"
        )
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: all(sending.done() for sending in self._sending),
                timeout=PATIENCE,
                timeout_summary="patience with the channels",
            )
        for sending, title in self._sending.items():
            if not sending.done():
                self._progress.miss(f"notification `{title}`: not known whether it was delivered")

    async def tell_guardian(self, guardian: str, run: PastRun) -> None:
        """Let the guardian count a run that it did not start. A cluster may be without a guardian."""
        with contextlib.suppress(ApplicationError):
            await workflow.get_external_workflow_handle(guardian).signal("run_ended", run)

    async def tell_evacuation(self, workflow_id: str, run_id: str, told: Moved) -> None:
        """Let the evacuation that this run is part of go on. It may have ended meanwhile."""
        with contextlib.suppress(ApplicationError):
            evacuation = workflow.get_external_workflow_handle(workflow_id, run_id=run_id)
            await evacuation.signal("cluster_ended", told)

    async def _watch_overrun(self, max_failover_time_s: float, over: Callable[[], bool]) -> None:
        await workflow.sleep(max_failover_time_s, summary="max_failover_time_s of the policy")
        if over():
            return
        self._send(
            RunEvent.OVERRUN,
            "overrun",
            f"still running after max_failover_time_s = {max_failover_time_s:g} s",
        )

    def _send(self, event: RunEvent, title: str, text: str, *, about: str = "") -> None:
        mark = f"{DRY_RUN_MARK} " if self._request.dry_run else ""
        notification = Notification(
            cluster_id=self._request.cluster_id,
            run_id=workflow.info().original_execution_run_id,
            event=event,
            about=about,
            title=f"{mark}{self._what} of {self._request.cluster_id} {title}",
            text=f"{mark}{text}",
        )
        self._sending[asyncio.create_task(self._notify(notification, title))] = title

    async def _notify(self, notification: Notification, title: str) -> None:
        told: Told | None
        try:
            told = await workflow.execute_activity_method(
                Notifications.notify, notification, **options.notify(title)
            )
        except ActivityError as error:
            self._progress.miss(f"notification `{title}`: {error.cause or error}")
            return
        # Answered before channels were told of, by a worker of an older version: nothing is known.
        for failure in told.failures if told is not None else ():
            self._progress.miss(f"notification `{title}` through {failure.channel}: {failure.reason}")
