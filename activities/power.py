"""Cutting nodes off by a fencing hook, and what that, or a person's word, proves of the old primary."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

from pydantic import JsonValue

from qnwis.continuity.executor import LEFT_TO_DO
from qnwis.continuity.orders import FencingEvidence, FencingEvidenceType
from qnwis.continuity.topology import FencingHook
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.fencing import Hook, HookAnswer

from .effect import EffectRequest, asked_s_ago

POWER_BACK_WITHIN_S = 120.0
"""How long an undo begins to ask a hook that does not say yes, seconds. Long enough for a management network
or a controller to come back; meanwhile the run holds its cluster's lock, and a failover waits for that."""
ANSWER_S = 1.0
"""Before an attempt of an activity is given up: what it takes to say what came of it."""


@dataclass(frozen=True)
class PowerBack:
    """What came of undoing `off`."""

    changed: bool | None
    """None where the hook never answered."""
    detail: str
    left_to_do: str | None = None
    """What a person must do, where the hook never said yes."""


class Power:
    def __init__(self, hook: Hook) -> None:
        self._hook = hook

    async def off(
        self, hook: FencingHook, node_id: str, effect_id: str, *, ends_at: float | None = None
    ) -> HookAnswer:
        """Cut the node off. Raises Refused or Unreachable.

        `ends_at`: when the attempt is given up, by `monotonic`; what the hook has not said shortly before
        that it has not said.
        """
        if ends_at is None:
            return await self._hook.switch(hook, node_id, "off", effect_id)
        within_s = max(ends_at - ANSWER_S - monotonic(), 0.0)
        try:
            async with asyncio.timeout(within_s):
                return await self._hook.switch(hook, node_id, "off", effect_id)
        except TimeoutError as error:
            asked = hook.asked(node_id, "off")
            raise Unreachable(f"fencing hook {asked}: no answer within {within_s:.1f} s") from error

    async def back(self, hook: FencingHook, node_id: str, effect_id: str) -> PowerBack:
        """Undo `off`, which had this effect id.

        Raises Unreachable, for a refusal too: a node must not stay off because a run gave up, so it is asked
        again; until an ask fails that ends later than `POWER_BACK_WITHIN_S` after the first that a worker
        made.
        """
        began = monotonic()
        try:
            answer = await self._hook.switch(hook, node_id, "on", f"{effect_id}/undo")
        except (Refused, Unreachable) as error:
            why = str(error.refusal if isinstance(error, Refused) else error)
            asked_s = asked_s_ago() + monotonic() - began
            if asked_s < POWER_BACK_WITHIN_S:
                raise Unreachable(why) from error
            left = (
                f"{node_id} may still be OFF, or have its power back any moment: in {asked_s:.0f} s the"
                f" fencing hook did not say that it has ({why}). Before another is promoted by hand, see that"
                " it stays off; if none is, that it has power and that what serves there runs; the hook is"
                f" {hook.asked(node_id, 'on')}"
            )
            return PowerBack(changed=None, detail=left, left_to_do=left)
        return PowerBack(changed=answer.changed, detail=answer.detail)


def told_to_people(*backs: PowerBack) -> dict[str, JsonValue]:
    """The facts of an undo's outcome: what it has left to people."""
    left = "; ".join(back.left_to_do for back in backs if back.left_to_do is not None)
    return {LEFT_TO_DO: left} if left else {}


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
