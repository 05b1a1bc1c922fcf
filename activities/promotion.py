"""Promoting the target, and letting the other standbys follow it."""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic

from pydantic import JsonValue
from temporalio import activity

from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.executor import SERVES_UNDER, Outcome, OutcomeStatus
from qnwis.continuity.orders import (
    CatchUpOrder,
    DemotionToken,
    FollowOrder,
    PromoteOrder,
    Receipt,
    RejoinOrder,
)
from qnwis.continuity.plan import Plan, PromoteTarget, RepointStandbys
from qnwis.continuity.policy import Policy
from qnwis.continuity.promotion import missing_log, promotion_refusal
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.timelines import AHEAD
from qnwis.continuity.topology import Node
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.nodes import Nodes

from .effect import EffectRequest, carried_out, preview

PROMOTE_TIMEOUT_S = 15.0
CATCH_UP_TIMEOUT_S = 5.0
FOLLOW_TIMEOUT_S = 5.0
FOLLOW_PATIENCE_S = 1.0
"""For how long a standby that does not answer is asked again, seconds."""
FOLLOW_PAUSE_S = 0.1
REWIND_TIMEOUT_S = 15.0
"""For a standby that went further than the new primary; with asynchronous replication one may have."""


class PromoteRequest(EffectRequest):
    action: PromoteTarget
    plan: Plan
    policy: Policy
    at: DemotionToken | None = None
    """Where the old primary ended, if it was handed over."""


class RepointRequest(EffectRequest):
    action: RepointStandbys


class Promotion:
    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._following: set[asyncio.Future[None]] = set()

    @activity.defn
    async def promote(self, request: PromoteRequest) -> Outcome:
        """Order the target to become the primary under this run's epoch. The point of no return.

        The old primary is fenced by now, so log positions stand still: they are read once more, and a target
        that is no longer the right one is refused while the run can still go back. That is only before the
        first order: one that is on its way may still be obeyed, so from then on a refusal is waited out.
        After a hand-over nothing is read again while no client can write: the target itself refuses unless it
        has replayed the old primary's last record. An agent refuses no promotion that it has begun unless
        nothing came of it, nor can, so what it refuses leaves a way back at any attempt.

        Its first writes wait for a standby. After a hand-over the others are told to follow it while it is
        promoted, otherwise as soon as it is: before, a way back would have to undo that.
        """
        action = request.action

        async def order() -> Outcome:
            if request.at is None:
                await self._still_suitable(request)
            else:
                self._have_followers(request)
            receipt = await self._nodes.order(
                request.cluster.node(action.node_id),
                PromoteOrder(
                    effect_id=request.effect_id(action.action_id),
                    run_id=request.run_id,
                    epoch=request.epoch,
                    at=request.at,
                ),
                timeout_s=PROMOTE_TIMEOUT_S,
            )
            if request.at is None:
                self._have_followers(request.model_copy(update={"epoch": receipt.epoch}))
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.SUCCEEDED,
                changed=receipt.changed,
                detail=receipt.detail,
                facts={"promoted_at": receipt.at.isoformat(), **_later_epoch(request, receipt)},
            )

        return await carried_out(action.action_id, order)

    async def _still_suitable(self, request: PromoteRequest) -> None:
        """Raises Refused for a target that no longer is, Unreachable where it may be too late for that."""
        evidence = await collect_evidence(self._nodes, request.cluster)
        if _has_begun(request, evidence):
            return
        if await self._catch_up(request, evidence):
            evidence = await collect_evidence(self._nodes, request.cluster)
        refusal = promotion_refusal(request.plan, request.cluster, request.policy, evidence)
        if refusal is None:
            return
        if request.may_be_asked:
            raise Unreachable(f"an order to {request.action.node_id} may be on its way, and now: {refusal}")
        raise Refused(refusal)

    async def _catch_up(self, request: PromoteRequest, evidence: ClusterEvidence) -> bool:
        """Have the target take what log only another standby has; whether it lacked any. One that could not
        take all of it is judged by where it stands then."""
        missing = missing_log(request.plan, request.cluster, request.policy, evidence)
        if missing is None:
            return False
        order = CatchUpOrder(
            effect_id=f"{request.effect_id(request.action.action_id)}/catch-up-{missing.to_lsn}",
            run_id=request.run_id,
            epoch=request.epoch,
            upstream=missing.node_id,
            to_lsn=missing.to_lsn,
        )
        target = request.cluster.node(request.action.node_id)
        with contextlib.suppress(Unreachable, Refused):
            await self._nodes.order(target, order, timeout_s=CATCH_UP_TIMEOUT_S)
        return True

    def _have_followers(self, request: PromoteRequest) -> None:
        """Tell the other standbys to follow, ahead of the action that does it. Nobody waits for them here:
        one that is silent must not hold anything up, and that action sees who does not."""
        for action in request.plan.actions:
            if isinstance(action, RepointStandbys):
                for node_id in action.node_ids:
                    task = asyncio.ensure_future(self._follow_ahead(request, action, node_id))
                    self._following.add(task)
                    task.add_done_callback(self._following.discard)

    async def _follow_ahead(self, request: PromoteRequest, action: RepointStandbys, node_id: str) -> None:
        order = FollowOrder(
            effect_id=f"{request.effect_id(action.action_id)}/{node_id}/ahead",
            run_id=request.run_id,
            epoch=request.epoch,
            upstream=action.upstream,
            at=request.at,
        )
        with contextlib.suppress(Unreachable, Refused):
            await self._nodes.order(request.cluster.node(node_id), order, timeout_s=FOLLOW_TIMEOUT_S)

    @activity.defn
    async def repoint(self, request: RepointRequest) -> Outcome:
        """Order every remaining standby to follow the new primary.

        One that is silent neither stops the others nor fails the step: the verifier judges whether the run
        has lost it.
        """
        action = request.action

        async def order_all() -> Outcome:
            answers = await asyncio.gather(
                *(self._follow(request, node_id) for node_id in action.node_ids), return_exceptions=True
            )
            for answer in answers:
                if isinstance(answer, BaseException) and not isinstance(answer, Refused | Unreachable):
                    raise answer
            answered = dict(zip(action.node_ids, answers, strict=True))
            refused = [node_id for node_id, answer in answered.items() if isinstance(answer, Refused)]
            silent = [node_id for node_id, answer in answered.items() if isinstance(answer, Unreachable)]
            lines = [f"{n}: {a.detail if isinstance(a, Receipt) else a}" for n, a in answered.items()]
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.FAILED if refused else OutcomeStatus.SUCCEEDED,
                changed=any(isinstance(a, Receipt) and a.changed for a in answers),
                detail="; ".join(lines) or "no other standby",
                facts={"refused": list(refused), "silent": list(silent)},
            )

        return await carried_out(action.action_id, order_all)

    async def _follow(self, request: RepointRequest, node_id: str) -> Receipt:
        """Follow, or be rewound where the standby went further than the new primary. Raises Refused, or
        Unreachable once patience is over: clients wait for the step after this one."""
        order = FollowOrder(
            effect_id=f"{request.effect_id(request.action.action_id)}/{node_id}",
            run_id=request.run_id,
            epoch=request.epoch,
            upstream=request.action.upstream,
        )
        node, patient_until = request.cluster.node(node_id), monotonic() + FOLLOW_PATIENCE_S
        while True:
            try:
                return await self._nodes.order(node, order, timeout_s=FOLLOW_TIMEOUT_S)
            except Refused as error:
                if error.refusal.rule == AHEAD:
                    return await self._rewind(node, order, error.refusal)
                raise
            except Unreachable:
                if monotonic() >= patient_until:
                    raise
            await asyncio.sleep(FOLLOW_PAUSE_S)

    async def _rewind(self, node: Node, refused: FollowOrder, ahead: Refusal) -> Receipt:
        order = RejoinOrder(
            effect_id=f"{refused.effect_id}/rewound",
            run_id=refused.run_id,
            epoch=refused.epoch,
            upstream=refused.upstream,
        )
        receipt = await self._nodes.order(node, order, timeout_s=REWIND_TIMEOUT_S)
        return receipt.model_copy(update={"detail": f"{ahead.message}; {receipt.detail}"})

    @activity.defn
    async def preview_promote(self, request: PromoteRequest) -> Outcome:
        state = await self._nodes.state(
            request.cluster.node(request.action.node_id), timeout_s=FOLLOW_TIMEOUT_S
        )
        return preview(
            request.action.action_id,
            f"would promote {state.node_id} (in recovery: {state.in_recovery}, timeline {state.timeline},"
            f" received to {state.receive_lsn}) under epoch {request.epoch}",
        )

    @activity.defn
    async def preview_repoint(self, request: RepointRequest) -> Outcome:
        nodes = ", ".join(request.action.node_ids) or "no other standby"
        return preview(request.action.action_id, f"would let {nodes} follow {request.action.upstream}")


def _later_epoch(request: PromoteRequest, receipt: Receipt) -> dict[str, JsonValue]:
    """Where the target took the lease up again by itself since it was promoted: under which epoch it serves,
    for the orders that follow. Nodes that promised it that epoch obey none of the run's any more."""
    return {SERVES_UNDER: receipt.epoch} if receipt.epoch > request.epoch else {}


def _has_begun(request: PromoteRequest, evidence: ClusterEvidence) -> bool:
    """Whether an earlier attempt has promoted the target: then there is no way back, and no question left.

    Its epoch alone tells nothing: it promised that when the old primary was fenced.
    """
    state = evidence.of(request.action.node_id).state
    return state is not None and state.database_up and not state.in_recovery and state.epoch >= request.epoch
