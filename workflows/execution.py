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
from temporalio.exceptions import TimeoutError as GivenUp

from . import options
from .ways import WAYS

with workflow.unsafe.imports_passed_through():
    from activities.effect import preview
    from qnwis.continuity.executor import (
        FENCES,
        PATRONI_HANDS_OVER,
        Do,
        Finish,
        Outcome,
        OutcomeStatus,
        Undo,
        abort_refusal,
        advance,
        is_committed,
        serves_under,
    )
    from qnwis.continuity.http_actions import HttpDemote, HttpPromote
    from qnwis.continuity.orders import DemotionToken
    from qnwis.continuity.outage import Outage
    from qnwis.continuity.patroni_actions import (
        PatroniDemoteCluster,
        PatroniFailover,
        PatroniPromoteCluster,
        PatroniSwitchover,
    )
    from qnwis.continuity.plan import (
        Action,
        FencePrimary,
        ForceMembership,
        LowerTtl,
        Plan,
        PromoteTarget,
        RejoinOldPrimary,
        ReleasePrimary,
        RepointStandbys,
        RestoreTtl,
        VerifyService,
    )
    from qnwis.continuity.policy import Policy
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.topology import Cluster


BY_THE_PRIMARY_ITSELF = frozenset({"release_primary", "patroni_demote_cluster", "http_demote"})
"""What the old primary did and must undo itself."""
WAITS_FOR_WHAT_WAS_LOWERED = "an old TTL is waited out where it was lowered"
"""Patch: before, also where that had failed."""
STOPS_PREVIEWING = "a dry run that is stopped previews nothing further"
"""Patch: before, it went on to its end."""


class Execution:
    """One plan being carried out (or previewed) under one epoch.

    Raises ValueError for a log that no run of this plan can have written.
    """

    def __init__(
        self,
        plan: Plan,
        cluster: Cluster,
        policy: Policy,
        epoch: int,
        run_id: str,
        log: Sequence[Outcome] = (),
        outage: Outage | None = None,
    ) -> None:
        self._plan = plan
        self._cluster = cluster
        self._policy = policy
        self._epoch = epoch
        self._world = {"run_id": run_id, "epoch": epoch, "cluster": cluster}
        self._log = list(log)
        self._outage = outage or Outage()
        self.waits_out_a_ttl = False
        """Whether nothing is done just now, until clients have forgotten the old TTL."""
        self.unseen: list[str] = []
        """Ids of the actions that a dry run could not look at."""

    async def drive(
        self,
        stop: Callable[[], str | None],
        held: Callable[[], bool],
        shown: Callable[[], None],
        forgot: Callable[[], bool],
        outdated: Callable[[], bool],
    ) -> Finish | VerifyService | None:
        """Go on until the plan is finished or its verification is due.

        `stop` gives an abort's reason; `held` says that a person wants no further action begun. None as soon
        as `forgot` says that this log may not be all that the run has done: a reset set the workflow back.
        None also where the first action is due and `outdated` says that the plan is of too long ago.
        """
        while not forgot():
            if held() and stop() is None and not self.past_return:
                await workflow.wait_condition(lambda: not held() or stop() is not None or forgot())
                continue
            match advance(self._plan, self._log, stop=stop()):
                case Do(action=VerifyService() as verification):
                    self._outage.before(verification, workflow.now())
                    return verification
                case Do() if not self._log and outdated():
                    return None
                case Do(action=action, again=again):
                    self._outage.before(action, workflow.now())
                    self._register(Outcome(action_id=action.action_id, status=OutcomeStatus.STARTED))
                    shown()
                    self._register(await self._do(action, again=again, stop=stop))
                case Undo(action=action):
                    self._register(await self._undo(action))
                case Finish() as finish:
                    return finish
            shown()
        return None

    async def preview(self, stop: Callable[[], str | None], shown: Callable[[], None]) -> bool:
        """A dry run: ask every action what it would do. No code that changes anything is called from here.

        False where `stop` gave a reason to end it; what goes on just then is waited for.
        """
        for action in self._plan.actions:
            if stop() is not None and workflow.patched(STOPS_PREVIEWING):
                return False
            self._register(await self._preview(action))
            shown()
        return True

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
    def past_return(self) -> bool:
        """Whether the promotion may have had an effect: from there the run only goes forward."""
        return is_committed(self._plan, self._log)

    @property
    def needs_no_primary_to_be_undone(self) -> bool:
        """Whether all of it can be undone without a word of the old primary. Once that has given up what it
        had, only its answer takes that back; with it gone, going on is the shorter way to a service."""
        begun = {outcome.action_id for outcome in self._log if outcome.status is not OutcomeStatus.UNDONE}
        kinds = {action.kind for action in self._plan.actions if action.action_id in begun}
        return not (self.past_return or kinds & BY_THE_PRIMARY_ITSELF)

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
        kinds = FENCES | PATRONI_HANDS_OVER
        return next((outcome for kind in kinds if (outcome := self.outcome_of(kind)) is not None), None)

    def _register(self, outcome: Outcome) -> None:
        self._log.append(outcome)

    async def _do(self, action: Action, *, again: bool, stop: Callable[[], str | None]) -> Outcome:
        """The activity's outcome; no answer within its limits leaves the outcome unknown."""
        way = WAYS[type(action)]
        summary = f"{action.action_id} under epoch {self._world['epoch']}"
        try:
            outcome: Outcome = await workflow.execute_activity_method(
                way.do, self._request(action, again=again), **way.done_with(action, self._cluster, summary)
            )
        except ActivityError as error:
            outcome = Outcome(
                action_id=action.action_id, status=OutcomeStatus.UNKNOWN, detail=str(error.cause or error)
            )
        if isinstance(action, LowerTtl) and (
            outcome.status is OutcomeStatus.SUCCEEDED or not workflow.patched(WAITS_FOR_WHAT_WAS_LOWERED)
        ):
            self.waits_out_a_ttl = True
            await _one_old_ttl(action, stop)
            self.waits_out_a_ttl = False
        return outcome

    async def _undo(self, action: Action) -> Outcome:
        way = WAYS[type(action)]
        assert way.undo is not None, f"{action.kind} is not reversible"
        outcome: Outcome = await workflow.execute_activity_method(
            way.undo,
            self._request(action),
            **way.undone_with(action, self._cluster, f"undo {action.action_id}"),
        )
        return outcome

    async def _preview(self, action: Action) -> Outcome:
        match action:
            case LowerTtl() | RestoreTtl():
                would = f"set the TTL of {action.record} to {action.to_ttl_s} s"
                return preview(action.action_id, f"would {would}")
            case VerifyService():
                return preview(action.action_id, f"would verify that {action.node_id} serves")
        try:
            outcome: Outcome = await workflow.execute_activity_method(
                WAYS[type(action)].preview,
                self._request(action),
                **options.preview(f"preview {action.action_id}"),
            )
        except ActivityError as error:
            self.unseen.append(action.action_id)
            return preview(action.action_id, f"could not be looked at: {_why(error)}")
        return outcome

    def _request(self, action: Action, *, again: bool = False) -> Any:
        """What every effect carries, and what some need besides."""
        # Left out where it says nothing, so that a worker of an earlier version reads the request.
        besides: dict[str, object] = {"again": True} if again else {}
        match action:
            case FencePrimary():
                besides |= {"target": self._plan.failover_target_id}
            case ForceMembership():
                plan = self._plan
                besides |= {"target": plan.failover_target_id, "reason": plan.trigger_reason}
            case (
                ReleasePrimary()
                | PatroniSwitchover()
                | PatroniFailover()
                | PatroniDemoteCluster()
                | PatroniPromoteCluster()
                | HttpDemote()
                | HttpPromote()
            ):
                besides |= {"plan": self._plan, "policy": self._policy}
            case PromoteTarget():
                besides |= {"plan": self._plan, "policy": self._policy, "at": self._token}
            case RepointStandbys() | RejoinOldPrimary():
                besides |= {"epoch": serves_under(self._epoch, self.outcome_of("promote_target"))}
        return WAYS[type(action)].asked_with(**{"action": action, **self._world, **besides})

    @property
    def _token(self) -> DemotionToken | None:
        """Where the old primary ended, once it was handed over."""
        released = self.outcome_of("release_primary")
        token = released.facts.get("token") if released is not None else None
        return None if token is None else DemotionToken.model_validate(token)


def _why(error: ActivityError) -> str:
    """The last failure of an activity that was given up: a time limit tells it as its cause."""
    given_up = error.cause
    cause = given_up.cause if isinstance(given_up, GivenUp) else given_up
    return str(cause or given_up or error)


async def _one_old_ttl(action: LowerTtl, stop: Callable[[], str | None]) -> None:
    """Until then clients may hold the address for as long as the old TTL said."""
    with contextlib.suppress(TimeoutError):
        await workflow.wait_condition(
            lambda: stop() is not None, timeout=action.from_ttl_s, timeout_summary="one old TTL"
        )
