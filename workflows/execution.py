"""Drives a plan through the pure stepper with activities as effects.

The stepper decides what is next, what is undone and what is past return; here is only how each action is
asked for. Every outcome is registered as started before its effect, so that it is undone or completed
wherever the run is interrupted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError
from temporalio.workflow import ActivityConfig

from . import options

with workflow.unsafe.imports_passed_through():
    from activities.dns import DnsRecords, FlipRequest, RetimeRequest
    from activities.effect import preview
    from activities.fencing import FenceRequest, Fencing
    from activities.forcing import ForceRequest, Forcing
    from activities.promotion import PromoteRequest, Promotion, RepointRequest
    from activities.switchover import PrepareRequest, RejoinRequest, ReleaseRequest, Switchover
    from qnwis.config.registry import Registered
    from qnwis.continuity.executor import (
        FENCES,
        Do,
        Finish,
        Outcome,
        OutcomeStatus,
        Undo,
        abort_refusal,
        advance,
        is_committed,
    )
    from qnwis.continuity.orders import DemotionToken
    from qnwis.continuity.plan import (
        Action,
        FencePrimary,
        FlipDns,
        ForceMembership,
        LowerTtl,
        Plan,
        PrepareNodes,
        PromoteTarget,
        RejoinOldPrimary,
        ReleasePrimary,
        RepointStandbys,
        RestoreTtl,
        VerifyService,
    )
    from qnwis.continuity.refusal import Refusal


class Execution:
    """One plan being carried out (or previewed) under one epoch.

    Raises ValueError for a log that no run of this plan can have written.
    """

    def __init__(
        self, plan: Plan, registered: Registered, epoch: int, run_id: str, log: Sequence[Outcome] = ()
    ) -> None:
        self._plan = plan
        self._policy = registered.policy
        self._world = {"run_id": run_id, "epoch": epoch, "cluster": registered.cluster}
        self._log = list(log)

    async def drive(
        self,
        stop: Callable[[], str | None],
        held: Callable[[], bool],
        shown: Callable[[], None],
        forgot: Callable[[], bool],
    ) -> Finish | VerifyService | None:
        """Go on until the plan is finished or its verification is due.

        `stop` gives an abort's reason; `held` says that a person wants no further action begun. None as soon
        as `forgot` says that this log may not be all that the run has done: a reset set the workflow back.
        """
        while not forgot():
            if held() and stop() is None and not is_committed(self._plan, self._log):
                await workflow.wait_condition(lambda: not held() or stop() is not None or forgot())
                continue
            match advance(self._plan, self._log, stop=stop()):
                case Do(action=VerifyService() as verification):
                    return verification
                case Do(action=action, again=again):
                    self._register(Outcome(action_id=action.action_id, status=OutcomeStatus.STARTED))
                    shown()
                    self._register(await self._do(action, again=again, stop=stop))
                case Undo(action=action):
                    self._register(await self._undo(action))
                case Finish() as finish:
                    return finish
            shown()
        return None

    async def preview(self) -> None:
        """A dry run: ask every action what it would do. No code that changes anything is called from here."""
        for action in self._plan.actions:
            self._register(await self._preview(action))

    def settle(self, outcome: Outcome) -> Finish:
        """Register the verification's outcome and let the stepper say how the run ended."""
        self._register(outcome)
        finish = advance(self._plan, self._log)
        assert isinstance(finish, Finish), finish
        return finish

    def abort_refusal(self) -> Refusal | None:
        """Why this plan cannot be aborted any more."""
        return abort_refusal(self._plan, self._log)

    @property
    def log(self) -> tuple[Outcome, ...]:
        return tuple(self._log)

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The last outcome of each action that has one, in the plan's order."""
        last = {outcome.action_id: outcome for outcome in self._log}
        return tuple(last[a.action_id] for a in self._plan.actions if a.action_id in last)

    def outcome_of(self, kind: str) -> Outcome | None:
        """The outcome of the plan's action of that kind, if it has one yet."""
        ids = {action.action_id for action in self._plan.actions if action.kind == kind}
        return next((outcome for outcome in self.outcomes if outcome.action_id in ids), None)

    @property
    def fence(self) -> Outcome | None:
        """What is known of the old primary's right to serve."""
        return next((outcome for kind in FENCES if (outcome := self.outcome_of(kind)) is not None), None)

    def _register(self, outcome: Outcome) -> None:
        self._log.append(outcome)

    async def _do(self, action: Action, *, again: bool, stop: Callable[[], str | None]) -> Outcome:
        match action:
            case FencePrimary():
                return await _effect(Fencing.fence, self._fence(action), options.fence)
            case ForceMembership():
                return await _effect(Forcing.force, self._force(action), options.fence)
            case LowerTtl():
                return await self._lower_ttl(action, stop)
            case PrepareNodes():
                return await _effect(Switchover.prepare, PrepareRequest(action=action, **self._world))
            case ReleasePrimary():
                return await _effect(Switchover.release, self._release(action), options.fence)
            case PromoteTarget():
                return await _effect(Promotion.promote, self._promotion(action, again=again))
            case RepointStandbys():
                return await _effect(Promotion.repoint, RepointRequest(action=action, **self._world))
            case FlipDns():
                return await _effect(DnsRecords.flip, FlipRequest(action=action, **self._world))
            case RejoinOldPrimary():
                return await _effect(Switchover.rejoin, RejoinRequest(action=action, **self._world))
            case RestoreTtl():
                return await _effect(DnsRecords.retime, RetimeRequest(action=action, **self._world))
            case VerifyService():
                raise AssertionError("the run itself verifies")

    async def _lower_ttl(self, action: LowerTtl, stop: Callable[[], str | None]) -> Outcome:
        """And wait for one old TTL: until then clients may hold the address for as long as that said."""
        outcome = await _effect(DnsRecords.retime, RetimeRequest(action=action, **self._world))
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: stop() is not None, timeout=action.from_ttl_s, timeout_summary="one old TTL"
            )
        return outcome

    async def _undo(self, action: Action) -> Outcome:
        match action:
            case FencePrimary():
                undoing: Any = (Fencing.unfence, self._fence(action))
            case ForceMembership():
                undoing = (Forcing.unforce, self._force(action))
            case ReleasePrimary():
                undoing = (Switchover.take_back, self._release(action))
            case LowerTtl():
                undoing = (DnsRecords.retime_back, RetimeRequest(action=action, **self._world))
            case _:
                raise AssertionError(f"{action.kind} is not reversible")
        outcome: Outcome = await workflow.execute_activity_method(
            *undoing, **options.compensate(f"undo {action.action_id}")
        )
        return outcome

    async def _preview(self, action: Action) -> Outcome:
        match action:
            case FencePrimary():
                return await _read(Fencing.preview_fence, self._fence(action))
            case ForceMembership():
                return await _read(Forcing.preview_force, self._force(action))
            case LowerTtl() | RestoreTtl():
                return preview(
                    action.action_id, f"would set the TTL of {action.record} to {action.to_ttl_s} s"
                )
            case PrepareNodes():
                return await _read(Switchover.preview_prepare, PrepareRequest(action=action, **self._world))
            case ReleasePrimary():
                return await _read(Switchover.preview_release, self._release(action))
            case PromoteTarget():
                return await _read(Promotion.preview_promote, self._promotion(action, again=False))
            case RepointStandbys():
                return await _read(Promotion.preview_repoint, RepointRequest(action=action, **self._world))
            case FlipDns():
                return await _read(DnsRecords.preview_flip, FlipRequest(action=action, **self._world))
            case RejoinOldPrimary():
                return await _read(Switchover.preview_rejoin, RejoinRequest(action=action, **self._world))
            case VerifyService():
                return preview(action.action_id, f"would verify that {action.node_id} serves")

    def _fence(self, action: FencePrimary) -> FenceRequest:
        return FenceRequest(action=action, target=self._plan.failover_target_id, **self._world)

    def _force(self, action: ForceMembership) -> ForceRequest:
        return ForceRequest(
            action=action,
            target=self._plan.failover_target_id,
            reason=self._plan.trigger_reason,
            **self._world,
        )

    def _release(self, action: ReleasePrimary) -> ReleaseRequest:
        return ReleaseRequest(action=action, plan=self._plan, policy=self._policy, **self._world)

    def _promotion(self, action: PromoteTarget, *, again: bool) -> PromoteRequest:
        return PromoteRequest(
            action=action,
            plan=self._plan,
            policy=self._policy,
            at=self._token,
            again=again,
            **self._world,
        )

    @property
    def _token(self) -> DemotionToken | None:
        """Where the old primary ended, once it was handed over."""
        released = self.outcome_of("release_primary")
        token = released.facts.get("token") if released is not None else None
        return None if token is None else DemotionToken.model_validate(token)


async def _effect(
    effect: Any, request: Any, how: Callable[[str], ActivityConfig] = options.effect
) -> Outcome:
    """The activity's outcome; no answer within its limits leaves the outcome unknown."""
    action_id = request.action.action_id
    try:
        outcome: Outcome = await workflow.execute_activity_method(
            effect, request, **how(f"{action_id} under epoch {request.epoch}")
        )
    except ActivityError as error:
        return Outcome(action_id=action_id, status=OutcomeStatus.UNKNOWN, detail=str(error.cause or error))
    return outcome


async def _read(effect: Any, request: Any) -> Outcome:
    summary = f"preview {request.action.action_id}"
    outcome: Outcome = await workflow.execute_activity_method(effect, request, **options.read(summary))
    return outcome
