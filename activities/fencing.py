"""Fencing the old primary, and undoing it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from time import monotonic

from temporalio import activity

from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.lease_messages import Membership, Promised, PromiseRequest, Withdrawal
from qnwis.continuity.orders import FencingEvidence
from qnwis.continuity.plan import FencePrimary
from qnwis.continuity.promises import Gate, lease_evidence, promotion_gate
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import Cluster, Node
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.fencing import Hook
from qnwis.providers.nodes import Nodes

from .effect import EffectRequest, attempt_ends_at, carried_out, preview
from .power import Power, switched_off, told_to_people

ANSWER_WITHIN_S = 0.8
"""An agent that runs promises in milliseconds; a run must not wait longer for a dead one."""
HOOK_AGAIN_WITHIN_S, HOOK_PAUSE_S = 1.0, 0.2
"""For how long a hook that does not answer is asked again, and after which pause."""


class FenceRequest(EffectRequest):
    action: FencePrimary
    target: str
    """node_id of the node that the plan promotes."""


class Fencing:
    def __init__(self, nodes: Nodes, hook: Hook) -> None:
        self._nodes = nodes
        self._power = Power(hook)

    @activity.defn
    async def fence(self, request: FenceRequest) -> Outcome:
        """End the old primary's right to serve, and wait until it is over.

        The agents promise this run's epoch and renew the old lease no more; the database stops by its own
        guard when that has run out. A fencing hook, where there is one, cuts the node off besides; one that
        does not say yes proves nothing, and takes nothing from what the lease proves. Without any evidence
        the outcome is unknown, so that the promises, and what the hook may have done, are undone.
        """
        action, ends_at = request.action, attempt_ends_at()

        async def fenced() -> Outcome:
            gate = await self.promised(request, request.target)
            switched, _ = await asyncio.gather(
                self.tried_to_switch_off(request, action.action_id, action.node_id, ends_at=ends_at),
                asyncio.sleep(gate.wait_s),
            )
            at = datetime.now(UTC)
            expired = lease_evidence(gate, action.node_id, epoch=request.epoch, at=at)
            if isinstance(switched, Unreachable) and expired is None:
                raise switched
            evidence = switched if isinstance(switched, FencingEvidence) else expired
            told = _no_evidence(request, gate, switched) if evidence is None else _told(evidence, switched)
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.UNKNOWN if evidence is None else OutcomeStatus.SUCCEEDED,
                changed=True,
                detail=told,
                fencing=evidence,
                facts={"promised_by": list(gate.members), "waited_s": round(gate.wait_s, 3)},
            )

        return await carried_out(action.action_id, fenced)

    @activity.defn
    async def unfence(self, request: FenceRequest) -> Outcome:
        """Compensation of `fence`: the old primary may take its lease up again, and has its power back.

        The promise is let go of first: no hook that is silent may hold it. Then the hook is asked until it
        says yes, for as long as `Power.back` says; from there on it is for people, as the outcome tells them.
        """
        action, hook = request.action, request.cluster.fencing

        async def undone() -> Outcome:
            await self.withdraw(request)
            withdrawn = "the epoch's promise is withdrawn"
            if hook is None:
                return Outcome(
                    action_id=action.action_id, status=OutcomeStatus.UNDONE, changed=True, detail=withdrawn
                )
            back = await self._power.back(hook, action.node_id, request.effect_id(action.action_id))
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.UNDONE,
                changed=back.changed,
                detail=f"{withdrawn}; {back.detail}",
                facts=told_to_people(back),
            )

        return await carried_out(action.action_id, undone)

    @activity.defn
    async def preview_fence(self, request: FenceRequest) -> Outcome:
        hook = request.cluster.fencing
        asked = hook and hook.asked(request.action.node_id, "off")
        members = ", ".join(node.node_id for node in request.cluster.nodes)
        besides = f", and have it switched off: {asked}" if asked else ""
        return preview(
            request.action.action_id,
            f"would let {members} promise epoch {request.epoch}, wait for the lease of"
            f" {request.action.node_id} to run out{besides}",
        )

    async def withdraw(self, request: EffectRequest) -> None:
        """Let go of this run's epoch. An agent that does not hear of it forgets it after a while."""
        withdrawal = Withdrawal(epoch=request.epoch, run_id=request.run_id)
        await asyncio.gather(
            *(
                self._nodes.withdraw(node, withdrawal, timeout_s=ANSWER_WITHIN_S)
                for node in request.cluster.nodes
            ),
            return_exceptions=True,
        )

    async def promised(
        self, request: EffectRequest, target: str, membership: Membership | None = None
    ) -> Gate:
        """A majority's promises of this run's epoch. Raises Unreachable until there is one: nothing is sure
        before that, and a minority that promised is told again or let go by the compensation.

        `membership`: the newest, where that was asked for already; who knows a newer one refuses.
        """
        membership = membership or await self.membership(request.cluster)
        asked = PromiseRequest(
            epoch=request.epoch, run_id=request.run_id, membership_version=membership.version
        )
        members = [node for node in request.cluster.nodes if node.node_id in membership.members]
        answers = await asyncio.gather(
            *(self._promise(node, asked) for node in members), return_exceptions=True
        )
        gate = promotion_gate(membership, asked, [a for a in answers if isinstance(a, Promised)], target)
        if isinstance(gate, Refusal):
            raise Unreachable(f"{gate}: {_whys(answers)}")
        return gate

    async def membership(self, cluster: Cluster) -> Membership:
        """The newest that is known of, once a majority of it has answered: no wait for a dead node.

        Raises Unreachable. One that is newer still can have no majority that has not heard of it.
        """
        asked = [
            asyncio.ensure_future(self._nodes.membership(node, timeout_s=ANSWER_WITHIN_S))
            for node in cluster.nodes
        ]
        newest, answered = Membership(), set[str]()
        try:
            for answer in asyncio.as_completed(asked):
                with contextlib.suppress(Unreachable):
                    view = await answer
                    newest = max(newest, view.membership, key=lambda membership: membership.version)
                    answered.add(view.node_id)
                    if newest.members and len(answered & set(newest.members)) >= newest.majority:
                        return newest
        finally:
            for one in asked:
                one.cancel()
        raise Unreachable(
            f"the agents of {', '.join(sorted(answered)) or 'no node'} answered, which is no majority of the"
            f" members {', '.join(newest.members) or '(none known)'}"
        )

    async def _promise(self, node: Node, asked: PromiseRequest) -> Promised:
        return await self._nodes.promise(node, asked, timeout_s=ANSWER_WITHIN_S)

    async def tried_to_switch_off(
        self, request: EffectRequest, action_id: str, node_id: str, *, ends_at: float
    ) -> FencingEvidence | Refused | Unreachable | None:
        """What it proves that the hook has cut the node off, or why it did not; None without a hook.

        It ends while there is time left in the attempt, which is given up at `ends_at` by `monotonic`. A hook
        that fails at once is asked again a few times.
        """
        hook = request.cluster.fencing
        if hook is None:
            return None
        again_until = min(ends_at, monotonic() + HOOK_AGAIN_WITHIN_S)
        while True:
            try:
                answer = await self._power.off(hook, node_id, request.effect_id(action_id), ends_at=ends_at)
            except Refused as error:
                return error
            except Unreachable as error:
                if monotonic() + HOOK_PAUSE_S > again_until:
                    return error
            else:
                return switched_off(request, hook, node_id, told=answer.detail, changed=answer.changed)
            await asyncio.sleep(HOOK_PAUSE_S)


def _told(evidence: FencingEvidence, switched: object) -> str:
    """The evidence, and that there is no more where the hook was asked for it."""
    if not _failed(switched):
        return evidence.detail
    why = switched.refusal if isinstance(switched, Refused) else switched
    return f"{evidence.detail}; the fencing hook did not answer that it has cut the node off: {why}"


def _no_evidence(request: FenceRequest, gate: Gate, switched: object) -> str:
    no_hook = "no fencing hook is configured (`fencing:` in cluster.yaml)"
    hook = f"the fencing hook refused: {switched.refusal}" if isinstance(switched, Refused) else no_hook
    return (
        f"no evidence that {request.action.node_id} has stopped: the last lease that"
        f" {', '.join(gate.members)} granted was {gate.holder or 'nobody'}'s, and {hook}"
    )


def _whys(answers: Sequence[object]) -> str:
    return "; ".join(str(a.refusal if isinstance(a, Refused) else a) for a in answers if _failed(a)) or "-"


def _failed(answer: object) -> bool:
    return isinstance(answer, BaseException)
