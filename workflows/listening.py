"""What people may say to whatever has a plan: votes, abort, pause, resume; and how they prove it.

Each deed is an update, which answers, and a signal of the same name for the Temporal UI; a signal that is
refused shows in the checklist.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from .approval import Approval, prove_to_run, refused
from .progress import Progress
from .turns import Turns

with workflow.unsafe.imports_passed_through():
    from qnwis.continuity.access import Deed
    from qnwis.continuity.approvals import Vote, VoteRequest
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.run import AbortRequest, PauseRunRequest, ResumeRunRequest, RunProgress
    from qnwis.continuity.tokens import Expected, PersonRequest

APPROVE = (
    "Agree to the plan that waits. Input: what `qnwis-continuity approve CLUSTER --print` prints"
    " (of a region: `region approve REGION --print`)"
)
REJECT = (
    "Say no to the plan that waits: it ends, nothing is changed. Input: what"
    " `qnwis-continuity reject CLUSTER --reason … --print` prints (of a region: `region reject REGION …`)"
)


class Listening(ABC):
    """Hears people, and leaves what follows from it to who knows: `stop_by`, `abort_refusal`."""

    progress: Progress
    approval: Approval
    turns: Turns
    HELD = "the run is held before its next action"
    GOES_ON = "the run goes on"

    @property
    @abstractmethod
    def named(self) -> str:
        """What a token must name: the cluster or the region."""

    @abstractmethod
    async def asks_for_proof(self) -> bool:
        """Whether the policy wants a deed proved; returns once that is known."""

    @abstractmethod
    def abort_refusal(self) -> Refusal | None:
        """Why it can neither be stopped nor held any more."""

    @abstractmethod
    def stop_by(self, why: str) -> str:
        """Stop at the next safe place; what is told to who asked for it."""

    @workflow.query(name="progress", description="The runbook's steps and where this stands")
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
        await self.unanswered("a vote", self._vote(request, approve=True))

    @workflow.signal(name="reject", description=REJECT)
    async def reject_unanswered(self, request: VoteRequest) -> None:
        await self.unanswered("a vote", self._vote(request, approve=False))

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
        self._refuse_if_too_late()

    @workflow.signal(
        name="abort", description="As Request Cancellation does, with by whom and why: {by, reason, token}"
    )
    async def abort_unanswered(self, request: AbortRequest) -> None:
        await self.unanswered(f"abort by {request.by}", self._abort(request))

    async def _abort(self, request: AbortRequest) -> str:
        await self.prove(Deed.ABORT, request)
        self._refuse_if_too_late()
        return self.stop_by(f"aborted by {request.by}: {request.reason}")

    # Pause and resume

    @workflow.update(description="Hold it before its next action, or next wave: {by, reason, token}")
    async def pause(self, request: PauseRunRequest) -> str:
        return await self._pause(request)

    @workflow.signal(
        name="pause", description="Hold it before its next action, or next wave: {by, reason, token}"
    )
    async def pause_unanswered(self, request: PauseRunRequest) -> None:
        await self.unanswered(f"pause by {request.by}", self._pause(request))

    async def _pause(self, request: PauseRunRequest) -> str:
        await self.prove(Deed.PAUSE, request)
        # The same place after which nothing is undone is the one after which nothing is held.
        self._refuse_if_too_late()
        self.progress.hold(f"by {request.by}: {request.reason}")
        return self.HELD

    @workflow.update(description="Let what is held go on: {by, reason, token}")
    async def resume(self, request: ResumeRunRequest) -> str:
        return await self._resume(request)

    @workflow.signal(name="resume", description="Let what is held go on: {by, reason, token}")
    async def resume_unanswered(self, request: ResumeRunRequest) -> None:
        await self.unanswered(f"resume by {request.by}", self._resume(request))

    async def _resume(self, request: ResumeRunRequest) -> str:
        await self.prove(Deed.RESUME, request)
        self.progress.hold(None)
        return self.GOES_ON

    def _refuse_if_too_late(self) -> None:
        if (refusal := self.abort_refusal()) is not None:
            raise refused(refusal)

    # Proofs

    async def prove(self, deed: Deed, request: PersonRequest) -> None:
        """Raises ApplicationError where a proof is asked for and this is none."""
        await self.turns.of(lambda: self._prove(deed, request))

    async def _prove(self, deed: Deed, request: PersonRequest) -> None:
        if not await self.asks_for_proof():
            return
        found = await prove_to_run(
            request.token,
            Expected(deed=deed, cluster_id=self.named, run_id=workflow.info().run_id, digest=request.digest),
            self.approval.served,
            claimed=request.by,
        )
        if isinstance(found, Refusal):
            raise refused(found)

    async def unanswered(self, what: str, deed: Awaitable[str]) -> None:
        """What a signal asked for; people see in the checklist what became of it."""
        try:
            answer = await deed
        except ApplicationError as error:
            answer = f"{what} was refused: {error.message}"
        self.progress.answer(answer)
