"""The break-glass steps before the point of no return, each with how to turn back."""

from __future__ import annotations

import json

from .break_glass_hands import HANDED_OVER, PROMISE, Hands, Otherwise, Step
from .break_glass_shell import filled_in, look, tell, tell_text
from .orders import HandOverOrder, PrepareOrder, QuiesceOrder, ResumeOrder
from .plan import FencePrimary, LowerTtl, PrepareNodes, ReleasePrimary

QUIET_S = 12.0
"""Beyond the time to drain, as a run has it: both orders stand in one block."""
RETURN_AFTER_S = 120.0
"""Longer than a run gives: a person reads what came before they paste the promotion."""
RELEASE_WITHIN_S, PREPARE_WITHIN_S = 30.0, 130.0


def fence(action: FencePrimary, h: Hands) -> Step:
    hook, power, by_hand = h.cluster.fencing, [], ""
    if hook is not None and hook.url is not None:
        url = hook.asked(action.node_id, "off")
        body = json.dumps({"effect_id": h.effect(action)})
        power = [
            f"within={hook.timeout_s:g} tell power-off '{url}' '{body}'"
            " || echo 'the power switch did not do it: the lease decides'"
        ]
    elif hook is not None and hook.provider is not None:
        by_hand = f" A run would also have {hook.provider.name} switch it off; these steps cannot."
    return Step(
        title=f"Fence {action.node_id}",
        does=f"Asks every agent to promise epoch {h.epoch} to this run, and waits until the lease of"
        f" {action.node_id} has run out: from then on it cannot acknowledge a write, wherever it is."
        + by_hand,
        commands=h.block(*power, *h.ask_promises(PROMISE), f"promised {PROMISE}"),
        see=f"`promised_by` names at least {h.membership.majority} members, `last_holder` is"
        f" {action.node_id}. Else nothing is certain: paste it again, or turn back.",
        otherwise=(
            Otherwise(
                when="To turn back:",
                text="Only before the promotion was ordered."
                f" {action.node_id} may take its lease up again, and the standbys receive again."
                + (" Then switch its power on." if power else ""),
                commands=h.block(*h.withdraw()),
            ),
        ),
    )


def lower_ttl(action: LowerTtl, h: Hands) -> Step:
    address = h.flip.from_address
    back = h.retold(address, address, action.from_ttl_s)
    return Step(
        title=f"Lower the TTL of {action.record} to {action.to_ttl_s} s",
        does=f"One old TTL ({action.from_ttl_s} s) later, no client keeps the address for longer.",
        commands=h.block(*h.retold(address, address, action.to_ttl_s), f"sleep {action.from_ttl_s}"),
        see=f"each server answers {address}.",
        otherwise=(Otherwise(when="To turn back:", text="The ordinary TTL.", commands=h.block(*back)),),
    )


def prepare(action: PrepareNodes, h: Hands) -> Step:
    orders = []
    for node in map(h.cluster.node, action.node_ids):
        order = PrepareOrder.model_validate(h.order_head(action, node.node_id, epoch=h.epoch_of(node)))
        orders.append(tell(f"prepare-{node.node_id}", node, "/orders", order, within_s=PREPARE_WITHIN_S))
    return Step(
        title="Write checkpoints, and begin a new log file",
        does="So that the primary stops in a short time, and standbys change over in a short time. Commits"
        " that wait for a standby wait until it has the rest of the old file, at most 16 MiB.",
        commands=h.block(*orders),
        see="a receipt of each node.",
    )


def release(action: ReleasePrimary, h: Hands) -> Step:
    node = h.cluster.node(action.node_id)
    epoch = h.epoch_of(node)
    quiesce = QuiesceOrder.model_validate(
        {
            **h.order_head(action, "quiesce", epoch=epoch),
            "standby": action.target,
            "drain_s": action.drain_s,
            "for_s": action.drain_s + QUIET_S,
        }
    )
    hand_over = HandOverOrder.model_validate(
        {**h.order_head(action, "hand-over", epoch=epoch), "return_after_s": RETURN_AFTER_S}
    )
    resume = ResumeOrder.model_validate(h.order_head(action, "resume"))
    now = '.epoch = $from[0].epoch | .effect_id += "/\\($from[0].epoch)"'
    return Step(
        title=f"Release {action.node_id}",
        does=f"{action.node_id} lets no new writes in, waits until {action.target} has all, stops and"
        f" releases its lease; then every agent promises epoch {h.epoch} to this run. The service stands"
        f" still until the promotion: read it first, and go on within {RETURN_AFTER_S:g} s, or"
        f" {action.node_id} serves again by itself.",
        commands=h.block(
            tell("quiesce", node, "/orders", quiesce, within_s=action.drain_s + RELEASE_WITHIN_S),
            tell(HANDED_OVER, node, "/orders", hand_over, within_s=RELEASE_WITHIN_S),
            f"jq -e .token {HANDED_OVER}.json",
            *h.ask_promises(PROMISE),
            f"promised {PROMISE} released",
        ),
        see=f"the token (where the log of {action.node_id} ends), `promised_by` with at least"
        f" {h.membership.majority} members, and `last_holder` {action.node_id}, `released` true."
        " Else turn back.",
        otherwise=(
            Otherwise(
                when="To turn back:",
                text=f"{action.node_id} accepts writes again.",
                commands=h.block(
                    *h.withdraw(),
                    look(node),
                    tell_text(
                        "resume",
                        node,
                        "/orders",
                        filled_in(resume, now, f"state-{node.node_id}.json"),
                        within_s=RELEASE_WITHIN_S,
                    ),
                ),
            ),
        ),
    )
