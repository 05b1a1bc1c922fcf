"""A cluster's run as people steer it: beside votes, abort and pause, more time, a step left out, and what a
person does by hand."""

from __future__ import annotations

from temporalio import workflow

from .approval import refused
from .ended import Ended
from .execution import Execution
from .known import Known
from .listening import Listening
from .takeover import Takeover

with workflow.unsafe.imports_passed_through():
    from qnwis.continuity.access import Deed
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.run import ConfirmRequest, ExtendRequest, FailoverRequest, SkipRequest


GIVES_WAY_HELD = "a run that is held gives way to a failover though it has begun to act"
"""Patch: before, only one that had not begun did."""
GIVES_WAY_ASKING = "a run that asks people again before its first action gives way to a failover"
"""Patch: before, it did not, as long as they could vote."""
EXTENDED_BY_ANOTHER = "more time to vote is given by others than the run's initiator, and not without end"
"""Patch: before, whoever might start a run gave it as much as they asked for, as often as they asked."""


NOTHING_BY_HAND_AGAIN = "a run that goes on with what another had begun waits for nothing by hand"
"""Patch: before, it waited, with the old primary fenced or the promotion half done."""


class Steered(Listening):
    """What people may say to a run, and what it then does."""

    request: FailoverRequest
    known: Known
    takeover: Takeover
    execution: Execution | None
    ended: Ended | None
    stop: str | None = None
    """Why the run stops at the next safe place."""
    waited_by_hand: bool = False
    """Whether it has waited for something that people do by hand."""
    extended_s: float = 0.0
    """What the maintenance window has been given beyond its length."""

    @property
    def named(self) -> str:
        return self.request.cluster_id

    async def asks_for_proof(self) -> bool:
        await workflow.wait_condition(lambda: self.known.registered is not None or self.ended is not None)
        return self.known.registered is not None and self.known.policy.approvals

    def abort_refusal(self) -> Refusal | None:
        if self.execution is None or (self.request.dry_run and self.ended is None):
            return None  # a dry run is never past return, and over when it has ended
        return self.execution.abort_refusal()

    def stop_by(self, why: str) -> str:
        self.stop = self.stop or why
        return "the run stops at the next safe place, and undoes what it has begun"

    @workflow.signal(description="Sent by guardians, not by people: a failover needs the lock")
    def give_way(self, reason: str) -> None:
        # A run of an evacuation was agreed to with that, and waits for nobody.
        if self.request.agreed_with is None and (
            self.execution is None
            or self._has_done_nothing(self.execution)
            or self._stands_still(self.execution)
        ):
            self.stop = self.stop or f"gave way to a failover: {reason}"

    @staticmethod
    def _has_done_nothing(execution: Execution) -> bool:
        """Whether a run that was about to act looks again first, and may ask people again."""
        return not execution.log and workflow.patched(GIVES_WAY_ASKING)

    def _stands_still(self, execution: Execution) -> bool:
        """Whether a run that has begun to act waits, for people or for an old TTL, where it can be undone
        though its primary is gone."""
        waits = self.progress.paused is not None or execution.waits_out_a_ttl
        return waits and execution.needs_no_primary_to_be_undone and workflow.patched(GIVES_WAY_HELD)

    # More time

    @workflow.update(description="Give the window that is open more time: {by_s, by, reason, token}")
    async def extend(self, request: ExtendRequest) -> str:
        return await self._extend(request)

    @workflow.signal(name="extend", description="Give the open window more time: {by_s, by, reason, token}")
    async def extend_unanswered(self, request: ExtendRequest) -> None:
        await self.unanswered(f"extension by {request.by}", self._extend(request))

    async def _extend(self, request: ExtendRequest) -> str:
        by_another = workflow.patched(EXTENDED_BY_ANOTHER)
        if by_another and self.approval.is_open:
            extended = await self.turns.of(lambda: self.approval.extend(request))
            return f"votes are counted until {extended.closes_at:%F %T} UTC"
        await self.prove(Deed.EXTEND, request)
        window = self.approval.window
        if not by_another and window is not None and self.approval.is_open:
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
        await self.unanswered(f"skip of {request.step} by {request.by}", self._skip(request))

    async def _skip(self, request: SkipRequest) -> str:
        await self.prove(Deed.SKIP, request)
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
        await self.unanswered(f"confirmation by {request.by}", self._confirm(request))

    async def _confirm(self, request: ConfirmRequest) -> str:
        await self.prove(Deed.CONFIRM, request)
        if (refusal := self.progress.confirm(request.manual_step, request.by, request.reason)) is not None:
            raise refused(refusal)
        return f"{request.manual_step} is confirmed"

    async def manual_steps(self, step: str) -> None:
        """Wait until people have confirmed what they do by hand before this step; but not where the run only
        goes on with what it had begun."""
        if self.progress.awaited(step) and not self.request.dry_run:
            acts = step not in ("verification", "audit")
            if acts and workflow.patched(NOTHING_BY_HAND_AGAIN) and await self.known.taken_over():
                return
            self.waited_by_hand = True
            await workflow.wait_condition(lambda: not self.progress.awaited(step) or self.stop is not None)
