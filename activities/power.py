"""Cutting nodes off by a fencing hook, and what that, or a person's word, proves of the old primary."""

from __future__ import annotations

from datetime import UTC, datetime

from qnwis.continuity.orders import FencingEvidence, FencingEvidenceType
from qnwis.continuity.topology import FencingHook
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.fencing import Hook, HookAnswer

from .effect import EffectRequest


class Power:
    def __init__(self, hook: Hook) -> None:
        self._hook = hook

    async def off(self, hook: FencingHook, node_id: str, effect_id: str) -> HookAnswer:
        """Cut the node off. Raises Refused or Unreachable."""
        return await self._hook.switch(hook, node_id, "off", effect_id)

    async def on_again(self, hook: FencingHook, node_id: str, effect_id: str) -> HookAnswer:
        """Undo `off`, which had this effect id. Raises Unreachable, for a refusal too: a node must not stay
        off because a run gave up, so it is asked again."""
        try:
            return await self._hook.switch(hook, node_id, "on", f"{effect_id}/undo")
        except Refused as refused:
            raise Unreachable(str(refused.refusal)) from refused


def switched_off(
    request: EffectRequest, hook: FencingHook, holder: str, *, told: str, changed: bool
) -> FencingEvidence:
    """What it proves that the hook has cut the holder off; `told`: what it said."""
    return FencingEvidence(
        type=FencingEvidenceType.HOOK,
        holder=holder,
        epoch=request.epoch,
        source=hook.asked(holder, "off"),
        detail=told,
        at=datetime.now(UTC),
        changed=changed,
    )


def by_word(request: EffectRequest, holder: str, *, who: str | None, told: str) -> FencingEvidence:
    """What is known of the holder where nothing proves it: a person's word, or nobody's."""
    return FencingEvidence(
        type=FencingEvidenceType.NONE if who is None else FencingEvidenceType.ATTESTED,
        holder=holder,
        epoch=request.epoch,
        source=who or "nobody",
        detail=told,
        at=datetime.now(UTC),
        changed=False,
    )


def states_off(who: str, node_ids: str) -> str:
    """A person's word in a sentence; `node_ids` as people read them."""
    return f"{who} states that {node_ids} are off"
