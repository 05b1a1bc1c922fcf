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
        ReleasePrimary,
        RestoreTtl,
        VerifyService,
    )
    from qnwis.continuity.policy import Policy
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.topology import Cluster


BY_THE_PRIMARY_ITSELF = frozenset({"release_primary", "patroni_demote_cluster", "http_demote"})
"""What the old primary did and must undo itself."""


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
        self._world = {"run_id": run_id, "epoch": epoch, "cluster": cluster}
        self._log = list(log)
        self._outage = outage or Outage()
        self.waits_out_a_ttl = False
        """Whether nothing is done just now, until clients have forgotten the old TTL."""

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
            if held() and stop() is None and not self.past_return:
                await workflow.wait_condition(lambda: not held() or stop() is not None or forgot())
                continue
            match advance(self._plan, self._log, stop=stop()):
                case Do(action=VerifyService() as verification):
                    self._outage.before(verification, workflow.now())
                    return verification
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
        if isinstance(action, LowerTtl):
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
        outcome: Outcome = await workflow.execute_activity_method(
            WAYS[type(action)].preview,
            self._request(action),
            **options.read(f"preview {action.action_id}"),
        )
        return outcome

    def _request(self, action: Action, *, again: bool = False) -> Any:
        """What every effect carries, and what some need besides."""
        besides: dict[str, object] = {}
        match action:
            case FencePrimary():
                besides = {"target": self._plan.failover_target_id}
            case ForceMembership():
                plan = self._plan
                besides = {"target": plan.failover_target_id, "reason": plan.trigger_reason}
            case ReleasePrimary():
                besides = {"plan": self._plan, "policy": self._policy}
            case (
                PatroniSwitchover()
                | PatroniFailover()
                | PatroniDemoteCluster()
                | PatroniPromoteCluster()
                | HttpDemote()
                | HttpPromote()
            ):
                besides = {"plan": self._plan, "policy": self._policy, "again": again}
            case PromoteTarget():
                besides = {"plan": self._plan, "policy": self._policy, "at": self._token, "again": again}
        return WAYS[type(action)].asked_with(action=action, **besides, **self._world)

    @property
    def _token(self) -> DemotionToken | None:
        """Where the old primary ended, once it was handed over."""
        released = self.outcome_of("release_primary")
        token = released.facts.get("token") if released is not None else None
        return None if token is None else DemotionToken.model_validate(token)


async def _one_old_ttl(action: LowerTtl, stop: Callable[[], str | None]) -> None:
    """Until then clients may hold the address for as long as the old TTL said."""
    with contextlib.suppress(TimeoutError):
        await workflow.wait_condition(
            lambda: stop() is not None, timeout=action.from_ttl_s, timeout_summary="one old TTL"
        )
