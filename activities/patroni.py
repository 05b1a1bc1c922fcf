"""Having Patroni move its leader lock within a region, and reading back what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic

from temporalio import activity

from qnwis.continuity.evidence import ClusterEvidence, NodeState
from qnwis.continuity.executor import LEFT_TO_DO, Outcome, OutcomeStatus
from qnwis.continuity.orders import FencingEvidence, FencingEvidenceType
from qnwis.continuity.patroni_actions import PatroniFailover, PatroniSwitchover
from qnwis.continuity.plan import Plan
from qnwis.continuity.policy import Policy
from qnwis.continuity.promotion import patroni_failover_refusal
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.switchover import steady_state_refusal
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.nodes import Nodes
from qnwis.providers.patroni import Patroni, Tried

from .effect import EffectRequest, asked_s_ago, carried_out, preview

ASK_WITHIN_S = 70.0
"""Patroni answers when it has moved its leader, or after 20 s, or twice a loop_wait above 10 s."""
SEEN_WITHIN_S = 15.0
"""Beyond two rounds of Patroni: until the roles that it told of are seen."""
ATTEMPT_S = 85.0
"""Less than Temporal gives an attempt, so that what came of it is said."""
HANDED_OVER_WITHIN_S = 600.0
"""How long a hand-over begins to be asked for, seconds: the old leader writes a checkpoint first, without a
limit and as a primary that takes writes, and the run holds its cluster's lock meanwhile."""
LOOK_EVERY_S = 0.2
PATRONI_FAILED = "patroni_failed"


class PatroniRequest(EffectRequest):
    plan: Plan
    policy: Policy


class HandOverRequest(PatroniRequest):
    action: PatroniSwitchover | PatroniFailover


class PatroniMoves:
    def __init__(self, nodes: Nodes, patroni: Patroni) -> None:
        self._nodes = nodes
        self._patroni = patroni

    @activity.defn
    async def hand_over(self, request: HandOverRequest) -> Outcome:
        """Have Patroni make the target the leader, and see that it is one. The point of no return.

        A target that leads already is left as it is. What Patroni refuses at the first request, and a try of
        which it says that it failed while the old leader still leads, changed nothing; anything else is asked
        for again. No refusal is final then, as long as nobody leads or the old leader does: it may be on its
        way down, and writes its last checkpoint for as long as that takes. In the end it is for people.
        """
        action, began = request.action, monotonic()

        async def handed_over() -> Outcome:
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    return await self._hand_over(request)
            except (Unreachable, TimeoutError) as error:
                asked_s = asked_s_ago() + monotonic() - began
                if asked_s < HANDED_OVER_WITHIN_S:
                    raise
                return _not_known(action, error, asked_s)

        return await carried_out(action.action_id, handed_over)

    async def _hand_over(self, request: HandOverRequest) -> Outcome:
        action = request.action
        evidence = await self._look(request)
        if _leads(evidence, action.node_id):
            return self._succeeded(request, evidence, f"{action.node_id} leads already", changed=False)
        if request.may_be_asked:
            evidence = await self._until(
                request, lambda seen: _leads(seen, action.node_id), within_s=_rounds_s(evidence)
            )
            if _leads(evidence, action.node_id):
                return self._succeeded(request, evidence, f"{action.node_id} leads by now", changed=True)
        try:
            refusal = _refusal(request, evidence)
            if refusal is not None and not _may_be_in_hand(request, evidence):
                raise Refused(refusal)
            said = await self._ask(request)
        except Refused as refused:
            if not request.may_be_asked or _is_final(request, refused, await self._look(request)):
                raise
            raise Unreachable(f"{action.node_id} may be about to lead, and now: {refused}") from refused
        evidence = await self._until(
            request,
            lambda seen: _leads(seen, action.node_id) and not _writes(seen, action.leader),
            within_s=_rounds_s(evidence) + SEEN_WITHIN_S,
        )
        if not _leads(evidence, action.node_id) or _writes(evidence, action.leader):
            raise Unreachable(f"Patroni said {said!r}, and {action.node_id} is not seen to lead alone")
        return self._succeeded(request, evidence, said, changed=True)

    async def _ask(self, request: HandOverRequest) -> str:
        """What Patroni answered. Raises Refused where it says no, or tried in vain and nothing has
        changed."""
        action, target = request.action, request.cluster.node(request.action.node_id)
        try:
            if isinstance(action, PatroniSwitchover):
                return await self._patroni.switchover(
                    target, leader=action.leader, candidate=action.node_id, timeout_s=ASK_WITHIN_S
                )
            return await self._patroni.failover(target, candidate=action.node_id, timeout_s=ASK_WITHIN_S)
        except Tried as tried:
            if not _leads(await self._look(request), action.leader):
                raise
            raise Refused(
                Refusal(
                    rule=PATRONI_FAILED,
                    message=f"{tried}; {action.leader} leads as before",
                    values={"leader": action.leader, "candidate": action.node_id},
                    remedy=f"The log of Patroni on {action.leader} and {action.node_id} says why.",
                )
            ) from tried

    async def _look(self, request: HandOverRequest) -> ClusterEvidence:
        return await collect_evidence(self._nodes, request.cluster)

    async def _until(
        self, request: HandOverRequest, seen: Callable[[ClusterEvidence], bool], *, within_s: float
    ) -> ClusterEvidence:
        return await until(self._nodes, request, seen, within_s=within_s)

    @staticmethod
    def _succeeded(
        request: HandOverRequest, evidence: ClusterEvidence, said: str, *, changed: bool
    ) -> Outcome:
        """Patroni gives its leader lock to one member at a time: that the target has it speaks of the old
        one."""
        action, old = request.action, evidence.of(request.action.leader).state
        answers = old is not None and old.database_up
        told = (
            f"{action.leader} is in recovery" if answers else f"{action.leader} does not answer as a database"
        )
        return Outcome(
            action_id=action.action_id,
            status=OutcomeStatus.SUCCEEDED,
            changed=changed,
            detail=said,
            fencing=FencingEvidence(
                type=FencingEvidenceType.RELEASED if answers else FencingEvidenceType.LEASE_EXPIRED,
                holder=action.leader,
                epoch=request.epoch,
                source=evidence.of(action.node_id).source,
                detail=f"Patroni's leader lock is {action.node_id}'s; {told}",
                at=datetime.now(UTC),
                changed=changed,
            ),
        )

    @activity.defn
    async def preview_hand_over(self, request: HandOverRequest) -> Outcome:
        action = request.action
        path = "switchover" if isinstance(action, PatroniSwitchover) else "failover"
        refusal = _refusal(request, await self._look(request))
        would = f"would send POST /{path} to Patroni of {action.node_id}: {action.leader} → {action.node_id}"
        return preview(action.action_id, would if refusal is None else f"{would}; now refused: {refusal}")


async def until(
    nodes: Nodes, request: EffectRequest, seen: Callable[[ClusterEvidence], bool], *, within_s: float
) -> ClusterEvidence:
    """What is seen once it is as wanted, or at the end of the time."""
    deadline = monotonic() + within_s
    while True:
        evidence = await collect_evidence(nodes, request.cluster)
        if seen(evidence) or monotonic() >= deadline:
            return evidence
        await asyncio.sleep(LOOK_EVERY_S)


def rounds_s(states: list[NodeState | None]) -> float:
    """After so long Patroni has acted on what its DCS told it, or dropped it: two rounds of its loop,
    seconds."""
    waits = [s.patroni.loop_wait_s for s in states if s is not None and s.patroni is not None]
    return 2 * max(waits, default=10.0)


def _rounds_s(evidence: ClusterEvidence) -> float:
    return rounds_s([node.state for node in evidence.nodes])


def _refusal(request: HandOverRequest, evidence: ClusterEvidence) -> Refusal | None:
    """What has changed since the plan was made and forbids to begin."""
    plan, cluster, policy = request.plan, request.cluster, request.policy
    if isinstance(request.action, PatroniSwitchover):
        return steady_state_refusal(plan, cluster, policy, evidence)
    return patroni_failover_refusal(plan, cluster, policy, evidence)


def _may_be_in_hand(request: HandOverRequest, evidence: ClusterEvidence) -> bool:
    """Whether the old leader may be at what was asked before: only to ask again tells. Patroni has rules of
    its own by which a switchover loses nothing; a failover goes to whatever candidate it is given."""
    action = request.action
    leads = _leads(evidence, action.leader)
    return request.may_be_asked and isinstance(action, PatroniSwitchover) and leads


def _is_final(request: HandOverRequest, refused: Refused, evidence: ClusterEvidence) -> bool:
    """Whether Patroni does nothing any more of what it was asked before: it says so itself, or somebody else
    leads."""
    known = {request.action.leader, request.action.node_id}
    others = [node.node_id for node in evidence.nodes if node.node_id not in known]
    return refused.refusal.rule == PATRONI_FAILED or any(_leads(evidence, node_id) for node_id in others)


def _not_known(action: PatroniSwitchover | PatroniFailover, error: Exception, asked_s: float) -> Outcome:
    why = str(error) or f"no answer within {ATTEMPT_S:g} s"
    return Outcome(
        action_id=action.action_id,
        status=OutcomeStatus.UNKNOWN,
        detail=f"asked for {asked_s:.0f} s: {why}",
        facts={
            LEFT_TO_DO: f"whether Patroni makes {action.node_id} the leader is not known: see who leads"
            f" (`patronictl list`), and in the log of Patroni on {action.leader} what it is at; once that is"
            " over, ask for the move again if it still is wanted"
        },
    )


def _leads(evidence: ClusterEvidence, node_id: str) -> bool:
    state = evidence.of(node_id).state
    return (
        state is not None and state.writable and state.patroni is not None and state.patroni.leader == node_id
    )


def _writes(evidence: ClusterEvidence, node_id: str) -> bool:
    state = evidence.of(node_id).state
    return state is not None and state.writable
