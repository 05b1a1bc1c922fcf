"""Fencing a region whose Patroni cannot be asked: its members are switched off, or a person says they are."""

from __future__ import annotations

import asyncio

from temporalio import activity

from qnwis.continuity.executor import LEFT_TO_DO, Outcome, OutcomeStatus
from qnwis.continuity.orders import FencingEvidence
from qnwis.continuity.patroni_actions import PatroniFenceCluster
from qnwis.providers.fencing import Hook, HookAnswer

from .effect import EffectRequest, carried_out, preview
from .power import Power, by_word, states_off, switched_off, told_to_people


class FenceClusterRequest(EffectRequest):
    action: PatroniFenceCluster

    def of_member(self, node_id: str) -> str:
        """The effect id of switching this one off."""
        return f"{self.effect_id(self.action.action_id)}/{node_id}"


class PatroniFencing:
    def __init__(self, hook: Hook) -> None:
        self._power = Power(hook)

    @activity.defn
    async def fence_cluster(self, request: FenceClusterRequest) -> Outcome:
        """Switch every member of the old region off, or take a person's word that they are.

        Where the hook refuses one of several it may have switched others off: that is undone.
        """
        several = len(request.action.node_ids) > 1

        async def fenced() -> Outcome:
            evidence = await self._evidence(request)
            return Outcome(
                action_id=request.action.action_id,
                status=OutcomeStatus.SUCCEEDED,
                changed=evidence.changed,
                detail=evidence.detail,
                fencing=evidence,
            )

        return await carried_out(
            request.action.action_id,
            fenced,
            if_refused=OutcomeStatus.UNKNOWN if several else request.if_refused,
        )

    async def _evidence(self, request: FenceClusterRequest) -> FencingEvidence:
        action, hook = request.action, request.cluster.fencing
        if action.attested_by is not None:
            told = states_off(action.attested_by, ", ".join(action.node_ids))
            return by_word(request, action.node_id, who=action.attested_by, told=told)
        assert hook is not None, "without a hook no such plan is made"
        # All of them end before one's failure counts: what is still under way cannot be undone.
        asked = await asyncio.gather(
            *(self._power.off(hook, node_id, request.of_member(node_id)) for node_id in action.node_ids),
            return_exceptions=True,
        )
        answers = [_answer(one) for one in asked]
        told = "; ".join(
            f"{node_id}: {answer.detail}" for node_id, answer in zip(action.node_ids, answers, strict=True)
        )
        changed = any(answer.changed for answer in answers)
        return switched_off(request, hook, action.node_id, told=told, changed=changed)

    @activity.defn
    async def unfence_cluster(self, request: FenceClusterRequest) -> Outcome:
        """Compensation of `fence_cluster`: the members have their power back. Asked as long as `Power.back`
        says."""
        action, hook = request.action, request.cluster.fencing

        async def undone() -> Outcome:
            if action.attested_by is not None:
                return Outcome(
                    action_id=action.action_id,
                    status=OutcomeStatus.UNDONE,
                    changed=False,
                    detail="a person's word needs no undoing",
                )
            assert hook is not None, "without a hook no such plan is made"
            backs = await asyncio.gather(
                *(self._power.back(hook, node, request.of_member(node)) for node in action.node_ids)
            )
            left = told_to_people(*backs)
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.UNDONE,
                changed=any(back.changed for back in backs),
                detail=str(left[LEFT_TO_DO]) if left else f"{', '.join(action.node_ids)} have power",
                facts=left,
            )

        return await carried_out(action.action_id, undone)

    @activity.defn
    async def preview_fence_cluster(self, request: FenceClusterRequest) -> Outcome:
        action, members = request.action, ", ".join(request.action.node_ids)
        if action.attested_by is not None:
            return preview(action.action_id, f"would take {members} for off, as {action.attested_by} states")
        return preview(action.action_id, f"would have the fencing hook switch off {members}")


def _answer(one: HookAnswer | BaseException) -> HookAnswer:
    if isinstance(one, BaseException):
        raise one
    return one
