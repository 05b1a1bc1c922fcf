"""What a run tells people and the guardian. None of it ever stops or delays the run's effects."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from . import options

with workflow.unsafe.imports_passed_through():
    from activities.notification import Notification, Notifications
    from qnwis.continuity.approvals import PendingApproval
    from qnwis.continuity.guardian_rules import PastRun
    from qnwis.continuity.run import DRY_RUN_MARK, FailoverRequest, RunResult

PATIENCE = timedelta(seconds=5)
"""How long a finished run waits for its notifications to be taken."""


class Announcements:
    """The notifications of one run, sent beside it."""

    def __init__(self, request: FailoverRequest) -> None:
        self._request = request
        self._sending: list[asyncio.Task[None]] = []
        self._overrun: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Say that the run started."""
        self._send("started", f"by {self._request.initiated_by}: {self._request.reason}")

    def watch_overrun(self, max_failover_time_s: float) -> None:
        """Arm the notice of an overrun."""
        self._overrun = asyncio.create_task(self._watch_overrun(max_failover_time_s))

    def planned(self, what: str) -> None:
        """Say what is going to be moved."""
        self._send("planned", f"by {self._request.initiated_by}: {what}: {self._request.reason}")

    async def end(self, result: RunResult) -> None:
        """Say how the run ended, then give the channels a bounded time."""
        if self._overrun is not None:
            self._overrun.cancel()
        self._send(result.outcome.value, result.reason)
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: all(sending.done() for sending in self._sending),
                timeout=PATIENCE,
                timeout_summary="patience with the channels",
            )

    def approval_pending(self, pending: PendingApproval) -> None:
        """Say what waits for whom, until when, and what to type."""
        window = pending.window
        self._send(
            "waits for approval",
            f"{pending.plan.primary_node_id} → {pending.plan.failover_target_id}, {window.digest}:"
            f" {', '.join(pending.voters)} may vote until {window.closes_at:%H:%M:%S} UTC:"
            f" qnwis-continuity approve {self._request.cluster_id}",
        )

    async def tell_guardian(self, guardian: str, run: PastRun) -> None:
        """Let the guardian count a run that it did not start. A cluster may be without a guardian."""
        with contextlib.suppress(ApplicationError):
            await workflow.get_external_workflow_handle(guardian).signal("run_ended", run)

    async def _watch_overrun(self, max_failover_time_s: float) -> None:
        await workflow.sleep(max_failover_time_s, summary="max_failover_time_s of the policy")
        self._send("overrun", f"still running after max_failover_time_s = {max_failover_time_s:g} s")

    def _send(self, title: str, text: str) -> None:
        self._sending.append(asyncio.create_task(self._notify(title, text)))

    async def _notify(self, title: str, text: str) -> None:
        mark = f"{DRY_RUN_MARK} " if self._request.dry_run else ""
        notification = Notification(
            cluster_id=self._request.cluster_id,
            run_id=workflow.info().run_id,
            title=f"{mark}failover of {self._request.cluster_id} {title}",
            text=f"{mark}{text}",
        )
        with contextlib.suppress(ActivityError):
            await workflow.execute_activity_method(
                Notifications.notify, notification, **options.notify(title)
            )
