"""Moving an application by its own demote and promote, and fencing a node of it. What is seen afterwards
counts, not that a request was answered."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from time import monotonic

from temporalio import activity

from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.http_actions import HttpDemote, HttpFence, HttpPromote
from qnwis.continuity.http_application import HttpApplication
from qnwis.continuity.http_service import not_demoted
from qnwis.continuity.orders import FencingEvidence, FencingEvidenceType
from qnwis.continuity.plan import Plan
from qnwis.continuity.policy import Policy
from qnwis.continuity.promotion import http_demotion_refusal, http_promotion_refusal
from qnwis.continuity.refusal import Refusal
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.fencing import Hook
from qnwis.providers.http_application import Applications, Change
from qnwis.providers.nodes import Nodes

from .effect import EffectRequest, carried_out, compensated, preview
from .power import Power, PowerBack, by_word, states_off, switched_off, told_to_people

LOOK_EVERY_S = 0.1
BACK_WITHIN_S = 120.0
"""How long an undo begins to ask for the old node's promotion, seconds: a restart of the application. One
that is lost does not come back by itself, and the run holds its cluster's lock."""
BACK_ATTEMPT_S = 80.0


class DemoteRequest(EffectRequest):
    action: HttpDemote
    plan: Plan
    policy: Policy


class HttpFenceRequest(EffectRequest):
    action: HttpFence


class HttpPromoteRequest(EffectRequest):
    action: HttpPromote
    plan: Plan
    policy: Policy


class ApplicationMoves:
    def __init__(self, nodes: Nodes, applications: Applications, hook: Hook) -> None:
        self._nodes = nodes
        self._applications = applications
        self._power = Power(hook)

    # Demoting the old node

    @activity.defn
    async def http_demote(self, request: DemoteRequest) -> Outcome:
        """Have the old node demote itself. Only that it is seen not to accept writes is evidence; an answer
        to the demote, of whatever status, is none."""
        action = request.action

        async def demoted() -> Outcome:
            before = await self._look(request)
            first = not request.may_be_asked
            refusal = http_demotion_refusal(request.plan, request.cluster, request.policy, before)
            if refusal is not None and first:
                raise Refused(refusal)
            said = await self._ask(request, action.node_id, "demote", first=first, unchanged=True)
            seen, refusal = await self._until_demoted(request)
            if refusal is not None:
                # It may still do it: undone, and not asked again.
                return Outcome(
                    action_id=action.action_id, status=OutcomeStatus.UNKNOWN, detail=f"{said}; {refusal}"
                )
            return _demoted(request, seen, said)

        return await carried_out(action.action_id, demoted)

    async def _until_demoted(self, request: DemoteRequest) -> tuple[ClusterEvidence, Refusal | None]:
        action, deadline = request.action, monotonic() + _of(request, request.action.node_id).settle_s
        while True:
            seen = await self._look(request)
            refusal = not_demoted(request.cluster, seen, old=action.node_id, target=action.target)
            if refusal is None or monotonic() >= deadline:
                return seen, refusal
            await asyncio.sleep(LOOK_EVERY_S)

    @activity.defn
    async def http_take_back(self, request: DemoteRequest) -> Outcome:
        """Compensation of `http_demote`: the old node is promoted again, unless another accepts writes by
        now."""
        action = request.action

        async def taken_back() -> Outcome:
            seen = await self._look(request)
            others = _writing(seen, besides=action.node_id)
            if others:
                detail = f"{action.node_id} was not promoted again: {', '.join(others)} accepts writes"
                return Outcome(
                    action_id=action.action_id, status=OutcomeStatus.UNDONE, changed=False, detail=detail
                )
            effect_id = f"{request.effect_id(action.action_id)}/undo"
            try:
                said = await self._applications.change(
                    request.cluster.node(action.node_id), "promote", effect_id=effect_id
                )
            except Refused as refused:  # one that never was demoted may say so; its state decides
                said = str(refused.refusal)
            await self._until_alone(request, action.node_id, said)
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.UNDONE,
                changed=True,
                detail=f"{action.node_id} accepts writes again; {said}",
            )

        return await compensated(
            action.action_id,
            taken_back,
            attempt_s=BACK_ATTEMPT_S,
            within_s=BACK_WITHIN_S,
            left=f"{action.node_id} was told to accept writes and may begin any moment: before another node"
            f" is promoted, demote it again or switch it off. If none is promoted: {action.node_id} may not"
            " accept writes, and then nobody does; promote it by hand",
        )

    @activity.defn
    async def preview_http_demote(self, request: DemoteRequest) -> Outcome:
        action, seen = request.action, await self._look(request)
        refusal = http_demotion_refusal(request.plan, request.cluster, request.policy, seen)
        order = _of(request, action.node_id).demote
        node = request.cluster.node(action.node_id)
        would = (
            f"would send {order.method} {order.url_of(node.node_id, node.hostname)} and wait until"
            f" {node.node_id} is seen not to accept writes"
        )
        return preview(action.action_id, would if refusal is None else f"{would}; now refused: {refusal}")

    # Fencing it without asking it

    @activity.defn
    async def http_fence(self, request: HttpFenceRequest) -> Outcome:
        """Switch the old node off, or take a person's word that it is."""
        action = request.action

        async def fenced() -> Outcome:
            evidence = await self._fenced(request)
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.SUCCEEDED,
                changed=evidence.changed,
                detail=evidence.detail,
                fencing=evidence,
            )

        return await carried_out(action.action_id, fenced, if_refused=request.if_refused)

    async def _fenced(self, request: HttpFenceRequest) -> FencingEvidence:
        action, hook = request.action, request.cluster.fencing
        if action.attested_by is not None:
            told = states_off(action.attested_by, action.node_id)
            return by_word(request, action.node_id, who=action.attested_by, told=told)
        assert hook is not None, "without a hook no such plan is made"
        answer = await self._power.off(hook, action.node_id, request.effect_id(action.action_id))
        return switched_off(request, hook, action.node_id, told=answer.detail, changed=answer.changed)

    @activity.defn
    async def http_unfence(self, request: HttpFenceRequest) -> Outcome:
        """Compensation of `http_fence`: the node has its power back. Asked as long as `Power.back` says."""
        action, hook = request.action, request.cluster.fencing

        async def undone() -> Outcome:
            back = PowerBack(changed=False, detail="a person's word needs no undoing")
            if action.attested_by is None:
                assert hook is not None, "without a hook no such plan is made"
                back = await self._power.back(hook, action.node_id, request.effect_id(action.action_id))
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.UNDONE,
                changed=back.changed,
                detail=back.detail,
                facts=told_to_people(back),
            )

        return await carried_out(action.action_id, undone)

    @activity.defn
    async def preview_http_fence(self, request: HttpFenceRequest) -> Outcome:
        action = request.action
        if action.attested_by is not None:
            told = f"would take {action.node_id} for off, as {action.attested_by} states"
        else:
            told = f"would have the fencing hook switch off {action.node_id}"
        return preview(action.action_id, told)

    # Promoting the target

    @activity.defn
    async def http_promote(self, request: HttpPromoteRequest) -> Outcome:
        """Have the target accept writes, and see that it alone does. The point of no return.

        What is refused before the first order was sent leaves a way back; from then on it is waited out.
        """
        action = request.action

        async def promoted() -> Outcome:
            seen = await self._look(request)
            first = not request.may_be_asked
            said = f"{action.node_id} accepts writes already"
            if not _accepts(seen, action.node_id):
                refusal = http_promotion_refusal(request.plan, request.cluster, request.policy, seen)
                if refusal is not None and first:
                    raise Refused(refusal)
                if refusal is not None:
                    raise Unreachable(f"an order to {action.node_id} may be on its way, and now: {refusal}")
                said = await self._ask(request, action.node_id, "promote", first=first, unchanged=False)
            await self._until_alone(request, action.node_id, said)
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.SUCCEEDED,
                changed=True,
                detail=f"{action.node_id} accepts writes, and no other node does; {said}",
                facts={"promoted_at": datetime.now(UTC).isoformat()},
            )

        return await carried_out(action.action_id, promoted)

    @activity.defn
    async def preview_http_promote(self, request: HttpPromoteRequest) -> Outcome:
        action = request.action
        node, order = request.cluster.node(action.node_id), _of(request, action.node_id).promote
        return preview(
            action.action_id,
            f"would send {order.method} {order.url_of(node.node_id, node.hostname)} and wait until"
            f" {node.node_id} alone accepts writes",
        )

    # What they share

    async def _ask(
        self,
        request: DemoteRequest | HttpPromoteRequest,
        node_id: str,
        what: Change,
        *,
        first: bool,
        unchanged: bool,
    ) -> str:
        """What the application answered. Raises Refused where it says no at the first request, and the node
        is seen as it was, accepting writes or not as `unchanged` says; otherwise that is not known."""
        effect_id = request.effect_id(request.action.action_id)
        try:
            return await self._applications.change(request.cluster.node(node_id), what, effect_id=effect_id)
        except Refused as refused:
            state = (await self._look(request)).of(node_id).state
            if not first or state is None or state.writable is not unchanged:
                raise Unreachable(str(refused.refusal)) from refused
            raise

    async def _until_alone(self, request: EffectRequest, node_id: str, said: str) -> None:
        """Raises Unreachable where the node is not seen, in time, to be the only one that accepts writes."""
        deadline = monotonic() + _of(request, node_id).settle_s
        while True:
            seen = await self._look(request)
            if _writing(seen) == [node_id]:
                return
            if monotonic() >= deadline:
                raise Unreachable(f"{said}; accepting writes are {_writing(seen)}, expected {node_id} alone")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self, request: EffectRequest) -> ClusterEvidence:
        return await collect_evidence(self._nodes, request.cluster)


def _demoted(request: DemoteRequest, seen: ClusterEvidence, said: str) -> Outcome:
    action, source = request.action, seen.of(request.action.node_id).source
    detail = (
        f"the application's own word, without a lease: asked to demote itself, {action.node_id} is seen not"
        f" to accept writes; {said}"
    )
    evidence = FencingEvidence(
        type=FencingEvidenceType.RELEASED,
        holder=action.node_id,
        epoch=request.epoch,
        source=source,
        detail=detail,
        at=datetime.now(UTC),
    )
    return Outcome(
        action_id=action.action_id,
        status=OutcomeStatus.SUCCEEDED,
        changed=True,
        detail=detail,
        fencing=evidence,
    )


def _of(request: EffectRequest, node_id: str) -> HttpApplication:
    application = request.cluster.node(node_id).http
    assert application is not None, "the topology demands it"
    return application


def _writing(evidence: ClusterEvidence, besides: str | None = None) -> list[str]:
    return [n.node_id for n in evidence.nodes if n.node_id != besides and _accepts(evidence, n.node_id)]


def _accepts(evidence: ClusterEvidence, node_id: str) -> bool:
    state = evidence.of(node_id).state
    return state is not None and state.writable
