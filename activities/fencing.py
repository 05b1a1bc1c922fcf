"""Fencing the old primary, and undoing it."""

from __future__ import annotations

from datetime import UTC, datetime

from temporalio import activity

from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.orders import FencingEvidence, FencingEvidenceType
from qnwis.continuity.plan import FencePrimary
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.fencing import Hook

from .effect import EffectRequest, carried_out, preview


class FenceRequest(EffectRequest):
    action: FencePrimary


class Fencing:
    def __init__(self, hook: Hook) -> None:
        self._hook = hook

    @activity.defn
    async def fence(self, request: FenceRequest) -> Outcome:
        """Switch the old primary's node off; succeeded only with the hook's own word for it."""
        action, hook = request.action, request.cluster.fencing
        if hook is None:
            return Outcome(
                action_id=action.action_id, status=OutcomeStatus.FAILED, changed=False, detail=NO_FENCING
            )

        async def off() -> Outcome:
            answer = await self._hook.switch(hook, action.node_id, "off", request.effect_id(action.action_id))
            evidence = FencingEvidence(
                type=FencingEvidenceType.HOOK,
                holder=action.node_id,
                epoch=request.epoch,
                source=hook.url.format(node_id=action.node_id, state="off"),
                detail=answer.detail,
                at=datetime.now(UTC),
                changed=answer.changed,
            )
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.SUCCEEDED,
                changed=answer.changed,
                detail=answer.detail,
                fencing=evidence,
            )

        return await carried_out(action.action_id, off)

    @activity.defn
    async def unfence(self, request: FenceRequest) -> Outcome:
        """Compensation of `fence`: switch the node on again; its agent decides whether it may serve.

        Asked without limit until the hook says yes: a node must not stay off because a run gave up.
        """
        action, hook = request.action, request.cluster.fencing

        async def on() -> Outcome:
            detail = "nothing was fenced: no fencing is configured"
            changed = False
            if hook is not None:
                effect_id = request.effect_id(action.action_id) + "/undo"
                try:
                    answer = await self._hook.switch(hook, action.node_id, "on", effect_id)
                except Refused as refused:
                    raise Unreachable(str(refused.refusal)) from refused
                detail, changed = answer.detail, answer.changed
            return Outcome(
                action_id=action.action_id, status=OutcomeStatus.UNDONE, changed=changed, detail=detail
            )

        return await carried_out(action.action_id, on)

    @activity.defn
    async def preview_fence(self, request: FenceRequest) -> Outcome:
        hook = request.cluster.fencing
        url = hook and hook.url.format(node_id=request.action.node_id, state="off")
        return preview(request.action.action_id, f"would send POST {url}" if url else NO_FENCING)


NO_FENCING = (
    "no fencing is configured for this cluster, so nothing can prove that the old primary has stopped;"
    " add `fencing:` to its cluster.yaml"
)
