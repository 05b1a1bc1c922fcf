"""A planned switchover's own effects: prepare, release the old primary, take that back, and its rejoin."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from pydantic import JsonValue
from temporalio import activity

from qnwis.continuity.evidence import NodeState
from qnwis.continuity.executor import LEFT_TO_DO, Outcome, OutcomeStatus
from qnwis.continuity.orders import (
    FencingEvidenceType,
    FollowOrder,
    HandOverOrder,
    PrepareOrder,
    QuiesceOrder,
    Receipt,
    RejoinOrder,
    ResumeOrder,
)
from qnwis.continuity.plan import Plan, PrepareNodes, RejoinOldPrimary, ReleasePrimary, RepointStandbys
from qnwis.continuity.policy import Policy
from qnwis.continuity.promises import lease_evidence
from qnwis.continuity.switchover import steady_state_refusal
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.nodes import Nodes

from .effect import EffectRequest, carried_out, preview, scheduled_s_ago
from .fencing import Fencing

QUIET_S = 12.0
"""Beyond the time to drain: for so long a primary lets no writes in and waits to be handed over."""
RETURN_AFTER_S = 8.0
"""A primary that was handed over and that nobody succeeds comes back by itself after this long."""
BACK_BY_ITSELF_S = 5.0
"""Beyond both: by then a primary that lives serves again, whoever can hear it."""
STATE_WITHIN_S = 2.0
PREPARE_WITHIN_S = 20.0
RELEASE_WITHIN_S = 20.0
RESUME_WITHIN_S = 20.0
REJOIN_WITHIN_S = 22.0


class PrepareRequest(EffectRequest):
    action: PrepareNodes


class ReleaseRequest(EffectRequest):
    action: ReleasePrimary
    plan: Plan
    policy: Policy


class RejoinRequest(EffectRequest):
    action: RejoinOldPrimary


class Switchover:
    def __init__(self, nodes: Nodes, fencing: Fencing) -> None:
        self._nodes = nodes
        self._fencing = fencing

    @activity.defn
    async def prepare(self, request: PrepareRequest) -> Outcome:
        """Have checkpoints written and a new log file begun, so that there is little to write when the
        primary stops, and little to be sent when standbys change over."""
        action = request.action

        async def prepared() -> Outcome:
            await asyncio.gather(*(self._prepare(request, node_id) for node_id in action.node_ids))
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.SUCCEEDED,
                changed=False,
                detail=f"{' and '.join(action.node_ids)} have written checkpoints",
            )

        return await carried_out(action.action_id, prepared)

    async def _prepare(self, request: PrepareRequest, node_id: str) -> None:
        state = await self._state(request, node_id)
        order = PrepareOrder(
            effect_id=f"{request.effect_id(request.action.action_id)}/{node_id}",
            run_id=request.run_id,
            epoch=state.epoch,
        )
        await self._nodes.order(request.cluster.node(node_id), order, timeout_s=PREPARE_WITHIN_S)

    @activity.defn
    async def release(self, request: ReleaseRequest) -> Outcome:
        """Quiesce the primary, hand it over, and reserve the next epoch for this run.

        The first two are of the primary's own epoch. No promise is asked for before it has ended, so that
        nothing that fails until then costs it its lease. What is refused before says nothing of an earlier
        attempt, which may have taken the service down: then it is taken back.
        """
        action, node = request.action, request.cluster.node(request.action.node_id)
        effect = request.effect_id(action.action_id)

        async def released() -> Outcome:
            await self._see_steady_state(request)
            state = await self._state(request, action.node_id)
            # Now, because from the next order on no client can write.
            membership = await self._fencing.membership(request.cluster)
            quiesced = await self._quiesce(request, state.epoch)
            order = HandOverOrder(
                effect_id=f"{effect}/hand-over",
                return_after_s=RETURN_AFTER_S,
                run_id=request.run_id,
                epoch=state.epoch,
            )
            try:
                handed_over = await self._nodes.order(node, order, timeout_s=RELEASE_WITHIN_S)
                gate = await self._fencing.promised(request, action.target, membership)
            except Refused as refused:
                # Who refused changed nothing, but by now no new writes are let in.
                return Outcome(
                    action_id=action.action_id,
                    status=OutcomeStatus.UNKNOWN,
                    detail=str(refused.refusal),
                    facts={"rule": refused.refusal.rule},
                )
            at = datetime.now(UTC)
            evidence = lease_evidence(gate, action.node_id, epoch=request.epoch, at=at)
            token = handed_over.token
            if token is None or evidence is None or evidence.type is not FencingEvidenceType.RELEASED:
                why = "no demotion token" if token is None else f"no release, but {evidence}"
                return Outcome(
                    action_id=action.action_id,
                    status=OutcomeStatus.UNKNOWN,
                    detail=f"{action.node_id} was handed over, and there is {why}",
                )
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.SUCCEEDED,
                changed=True,
                detail=f"{quiesced.detail}; it ended at LSN {token.lsn} of timeline {token.timeline}",
                fencing=evidence,
                facts={
                    "token": token.model_dump(mode="json"),
                    "quiesced_at": quiesced.at.isoformat(),
                    "handed_over_at": handed_over.at.isoformat(),
                    "promised_by": list(gate.members),
                },
            )

        return await carried_out(action.action_id, released, if_refused=request.if_refused)

    async def _quiesce(self, request: ReleaseRequest, epoch: int) -> Receipt:
        action = request.action
        order = QuiesceOrder(
            effect_id=f"{request.effect_id(action.action_id)}/quiesce",
            run_id=request.run_id,
            epoch=epoch,
            standby=action.target,
            drain_s=action.drain_s,
            for_s=action.drain_s + QUIET_S,
        )
        node = request.cluster.node(action.node_id)
        return await self._nodes.order(node, order, timeout_s=action.drain_s + RELEASE_WITHIN_S)

    async def _see_steady_state(self, request: ReleaseRequest) -> None:
        """Raises Refused for what would make the release dangerous now, before anything of it has begun."""
        evidence = await collect_evidence(self._nodes, request.cluster)
        seen = evidence.of(request.action.node_id).state
        if seen is not None and (seen.quiesced or seen.handed_over):
            return  # by an earlier attempt of this
        refusal = steady_state_refusal(request.plan, request.cluster, request.policy, evidence)
        if refusal is not None:
            raise Refused(refusal)

    @activity.defn
    async def take_back(self, request: ReleaseRequest) -> Outcome:
        """Compensation of `release`: the primary accepts writes again.

        Asked until it has, or until it would by itself: what was asked of it ends with its time, and the
        promise is let go of first. One that says nothing by then is a case for a failover, which needs the
        lock that this run holds.
        """
        action = request.action
        alone_after_s = action.drain_s + max(QUIET_S, RETURN_AFTER_S) + BACK_BY_ITSELF_S

        async def undone() -> Outcome:
            await self._fencing.withdraw(request)
            try:
                receipt = await self._resume(request)
            except Unreachable as error:
                if scheduled_s_ago() < alone_after_s:
                    raise
                return _not_back(action, error, after_s=alone_after_s)
            await self._follow_again(request)
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.UNDONE,
                changed=receipt.changed,
                detail=receipt.detail,
            )

        return await carried_out(action.action_id, undone)

    async def _resume(self, request: ReleaseRequest) -> Receipt:
        state = await self._state(request, request.action.node_id)
        order = ResumeOrder(
            effect_id=f"{request.effect_id(request.action.action_id)}/resume/{state.epoch}",
            run_id=request.run_id,
            epoch=state.epoch,
        )
        node = request.cluster.node(request.action.node_id)
        try:
            return await self._nodes.order(node, order, timeout_s=RESUME_WITHIN_S)
        except Refused as refused:
            # Nothing that it refuses is final while nobody else was promoted.
            raise Unreachable(str(refused.refusal)) from refused

    async def _follow_again(self, request: ReleaseRequest) -> None:
        """Those who had begun to follow the target follow the primary again, without the detour."""
        action, state = request.action, await self._state(request, request.action.node_id)
        node_ids = [
            node_id for a in request.plan.actions if isinstance(a, RepointStandbys) for node_id in a.node_ids
        ]
        await asyncio.gather(
            *(
                self._nodes.order(
                    request.cluster.node(node_id),
                    FollowOrder(
                        effect_id=f"{request.effect_id(action.action_id)}/follow-again/{node_id}/{state.epoch}",
                        run_id=request.run_id,
                        epoch=state.epoch,
                        upstream=action.node_id,
                    ),
                    timeout_s=STATE_WITHIN_S,
                )
                for node_id in node_ids
            ),
            return_exceptions=True,
        )

    @activity.defn
    async def rejoin(self, request: RejoinRequest) -> Outcome:
        """Let the old primary, which ended where the new one began, follow it."""
        action = request.action

        async def rejoined() -> Outcome:
            order = RejoinOrder(
                effect_id=request.effect_id(action.action_id),
                run_id=request.run_id,
                epoch=request.epoch,
                upstream=action.upstream,
            )
            receipt = await self._nodes.order(
                request.cluster.node(action.node_id), order, timeout_s=REJOIN_WITHIN_S
            )
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.SUCCEEDED,
                changed=receipt.changed,
                detail=receipt.detail,
            )

        return await carried_out(action.action_id, rejoined)

    @activity.defn
    async def preview_prepare(self, request: PrepareRequest) -> Outcome:
        nodes = " and ".join(request.action.node_ids)
        return preview(
            request.action.action_id,
            f"would have {nodes} write checkpoints, and the primary begin a new log file",
        )

    @activity.defn
    async def preview_release(self, request: ReleaseRequest) -> Outcome:
        action, state = request.action, await self._state(request, request.action.node_id)
        followers = [standby.application_name for standby in state.standbys]
        return preview(
            action.action_id,
            f"would let no new writes into {action.node_id} (followed by {', '.join(followers) or 'nobody'}),"
            f" drain for at most {action.drain_s:g} s, wait until {action.target} has all, and stop it",
        )

    @activity.defn
    async def preview_rejoin(self, request: RejoinRequest) -> Outcome:
        action = request.action
        return preview(action.action_id, f"would let {action.node_id} follow {action.upstream}")

    async def _state(self, request: EffectRequest, node_id: str) -> NodeState:
        return await self._nodes.state(request.cluster.node(node_id), timeout_s=STATE_WITHIN_S)


def _not_back(action: ReleasePrimary, error: Unreachable, *, after_s: float) -> Outcome:
    """One that refuses to come back answers, so no failover begins: what is left is for people."""
    if isinstance(refused := error.__cause__, Refused):
        left = f"{action.node_id} answers, and does not accept writes again: {refused.refusal}"
        facts: dict[str, JsonValue] = {LEFT_TO_DO: left}
    else:
        left = (
            f"{action.node_id} does not say that it accepts writes again ({error}). If it lives it does by"
            f" itself: {after_s:g} s are over and more; if not, its guardian may fail over"
        )
        facts = {}
    return Outcome(
        action_id=action.action_id,
        status=OutcomeStatus.UNDONE,
        changed=True,  # it may have let no new writes in meanwhile
        detail=f"the promise is withdrawn; {left}",
        facts=facts,
    )
