"""A run as people steer it: votes, abort, pause, more time, a step left out, what a person does by hand.

Each deed is an update, which answers, and a signal of the same name for the Temporal UI; a signal that is
refused shows in the run's checklist.
"""

from __future__ import annotations

from collections.abc import Awaitable

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from .approval import Approval, prove_to_run, refused
from .ended import Ended
from .execution import Execution
from .known import Known
from .progress import Progress
from .takeover import Takeover

with workflow.unsafe.imports_passed_through():
    from qnwis.continuity.access import Deed
    from qnwis.continuity.approvals import Standing, Vote, VoteRequest
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.run import (
        AbortRequest,
        ConfirmRequest,
        ExtendRequest,
        FailoverRequest,
        PauseRunRequest,
        ResumeRunRequest,
        RunProgress,
        SkipRequest,
    )
    from qnwis.continuity.tokens import Expected, PersonRequest

APPROVE = "Agree to the plan that waits. Input: what `qnwis-continuity approve CLUSTER --print` prints"
REJECT = (
    "Say no to the plan that waits: the run ends, nothing is changed. Input: what"
    " `qnwis-continuity reject CLUSTER --reason … --print` prints"
)


class Steered:
    """What people may say to a run, and what it then does."""

    request: FailoverRequest
    known: Known
    takeover: Takeover
    progress: Progress
    approval: Approval
    execution: Execution | None
    ended: Ended | None
    stop: str | None = None
    """Why the run stops at the next safe place."""
    extended_s: float = 0.0
    """What the maintenance window has been given beyond its length."""

    @workflow.query(name="progress", description="The runbook's steps and where this run stands")
    def progress_view(self) -> RunProgress:
        return self.progress.view()

    # Votes

    @workflow.update(name="approve", description=APPROVE)
    async def approve_plan(self, request: VoteRequest) -> Vote:
        return await self.approval.vote(request, approve=True)

    @approve_plan.validator
    def _may_approve(self, request: VoteRequest) -> None:
        self.approval.check_open(request)

    @workflow.update(name="reject", description=REJECT)
    async def reject_plan(self, request: VoteRequest) -> Vote:
        return await self.approval.vote(request, approve=False)

    @reject_plan.validator
    def _may_reject(self, request: VoteRequest) -> None:
        self.approval.check_open(request)

    @workflow.signal(name="approve", description=APPROVE)
    async def approve_unanswered(self, request: VoteRequest) -> None:
        await self._unanswered("a vote", self._vote(request, approve=True))

    @workflow.signal(name="reject", description=REJECT)
    async def reject_unanswered(self, request: VoteRequest) -> None:
        await self._unanswered("a vote", self._vote(request, approve=False))

    async def _vote(self, request: VoteRequest, *, approve: bool) -> str:
        self.approval.check_open(request)
        vote = await self.approval.vote(request, approve=approve)
        return f"{vote.person}'s vote is counted"

    # Abort

    @workflow.update(description="Stop at the next safe place and undo what was begun: {by, reason, token}")
    async def abort(self, request: AbortRequest) -> str:
        return await self._abort(request)

    @abort.validator
    def _may_abort(self, request: AbortRequest) -> None:
        if (refusal := self._abort_refusal()) is not None:
            raise refused(refusal)

    @workflow.signal(
        name="abort", description="As Request Cancellation does, with by whom and why: {by, reason, token}"
    )
    async def abort_unanswered(self, request: AbortRequest) -> None:
        await self._unanswered(f"abort by {request.by}", self._abort(request))

    async def _abort(self, request: AbortRequest) -> str:
        await self._prove(Deed.ABORT, request)
        if (refusal := self._abort_refusal()) is not None:
            raise refused(refusal)
        self.stop = self.stop or f"aborted by {request.by}: {request.reason}"
        return "the run stops at the next safe place, and undoes what it has begun"

    def _abort_refusal(self) -> Refusal | None:
        return self.execution.abort_refusal() if self.execution is not None else None

    @workflow.signal(description="Sent by guardians, not by people: a failover needs the lock")
    def give_way(self, reason: str) -> None:
        if self.request.agreed_with is not None and workflow.patched("a part of an evacuation gives no way"):
            return  # people agreed to it, or the region's guardian: it is the failover
        if self.execution is None:
            self.stop = self.stop or f"gave way to a failover: {reason}"

    # Pause and resume

    @workflow.update(description="Hold the run before its next action: {by, reason, token}")
    async def pause(self, request: PauseRunRequest) -> str:
        return await self._pause(request)

    @workflow.signal(name="pause", description="Hold the run before its next action: {by, reason, token}")
    async def pause_unanswered(self, request: PauseRunRequest) -> None:
        await self._unanswered(f"pause by {request.by}", self._pause(request))

    async def _pause(self, request: PauseRunRequest) -> str:
        await self._prove(Deed.PAUSE, request)
        # The same place after which nothing is undone is the one after which nothing is held.
        if (refusal := self._abort_refusal()) is not None:
            raise refused(refusal)
        self.progress.hold(f"by {request.by}: {request.reason}")
        return "the run is held before its next action"

    @workflow.update(description="Let a run that is held go on: {by, reason, token}")
    async def resume(self, request: ResumeRunRequest) -> str:
        return await self._resume(request)

    @workflow.signal(name="resume", description="Let a run that is held go on: {by, reason, token}")
    async def resume_unanswered(self, request: ResumeRunRequest) -> None:
        await self._unanswered(f"resume by {request.by}", self._resume(request))

    async def _resume(self, request: ResumeRunRequest) -> str:
        await self._prove(Deed.RESUME, request)
        self.progress.hold(None)
        return "the run goes on"

    # More time

    @workflow.update(description="Give the window that is open more time: {by_s, by, reason, token}")
    async def extend(self, request: ExtendRequest) -> str:
        return await self._extend(request)

    @workflow.signal(name="extend", description="Give the open window more time: {by_s, by, reason, token}")
    async def extend_unanswered(self, request: ExtendRequest) -> None:
        await self._unanswered(f"extension by {request.by}", self._extend(request))

    async def _extend(self, request: ExtendRequest) -> str:
        await self._prove(Deed.EXTEND, request)
        window = self.approval.window
        if window is not None and window.standing(workflow.now()) is Standing.OPEN:
            window = window.model_copy(update={"extended_s": window.extended_s + request.by_s})
            self.approval.window = window
            return f"votes are counted until {window.closes_at:%F %T} UTC"
        self.extended_s += request.by_s
        return f"the maintenance window is {self.extended_s:g} s longer than it was"

    # A step left out

    @workflow.update(description="Have a step left out that has not begun: {step, by, reason, token}")
    async def skip(self, request: SkipRequest) -> str:
        return await self._skip(request)

    @skip.validator
    def _may_skip(self, request: SkipRequest) -> None:
        if (refusal := self.progress.skip_refusal(request.step)) is not None:
            raise refused(refusal)

    @workflow.signal(name="skip", description="Have a step left out: {step, by, reason, token}")
    async def skip_unanswered(self, request: SkipRequest) -> None:
        await self._unanswered(f"skip of {request.step} by {request.by}", self._skip(request))

    async def _skip(self, request: SkipRequest) -> str:
        await self._prove(Deed.SKIP, request)
        # Asked again: the step may have begun while the proof was looked at.
        if (refusal := self.progress.skip_refusal(request.step)) is not None:
            raise refused(refusal)
        self.progress.skip(request.step, request.by, request.reason)
        return f"the step {request.step} is skipped"

    # What a person does by hand

    @workflow.update(description="Say that a manual step is done: {manual_step, by, reason, token}")
    async def confirm(self, request: ConfirmRequest) -> str:
        return await self._confirm(request)

    @workflow.signal(name="confirm", description="Say that a manual step is done: {manual_step, by, reason}")
    async def confirm_unanswered(self, request: ConfirmRequest) -> None:
        await self._unanswered(f"confirmation by {request.by}", self._confirm(request))

    async def _confirm(self, request: ConfirmRequest) -> str:
        await self._prove(Deed.CONFIRM, request)
        if (refusal := self.progress.confirm(request.manual_step, request.by, request.reason)) is not None:
            raise refused(refusal)
        return f"{request.manual_step} is confirmed"

    async def manual_steps(self, step: str) -> None:
        """Wait until people have confirmed what they do by hand before this step."""
        if self.progress.awaited(step) and not self.request.dry_run:
            await workflow.wait_condition(lambda: not self.progress.awaited(step) or self.stop is not None)

    # Proofs

    async def _prove(self, deed: Deed, request: PersonRequest) -> None:
        """Raises ApplicationError where the policy asks for a proof and this is none."""
        await workflow.wait_condition(lambda: self.known.registered is not None or self.ended is not None)
        if self.known.registered is None or not self.known.policy.approvals:
            return
        found = await prove_to_run(
            request.token,
            Expected(
                deed=deed,
                cluster_id=self.request.cluster_id,
                run_id=workflow.info().run_id,
                digest=request.digest,
            ),
            self.approval.served,
            claimed=request.by,
        )
        if isinstance(found, Refusal):
            raise refused(found)

    async def _unanswered(self, what: str, deed: Awaitable[str]) -> None:
        """What a signal asked for; people see in the checklist what became of it."""
        try:
            answer = await deed
        except ApplicationError as error:
            answer = f"{what} was refused: {error.message}"
        self.progress.answer(answer)
