"""Catch up: a standby that is to be promoted takes the rest of the log from one that has more of it.

The former primary is fenced by then and confirms nothing, so positions only grow towards what exists already.
The standby promised its epoch and receives nothing else; afterwards it is as it was, only further on.
"""

from __future__ import annotations

import asyncio

from qnwis.continuity.membership import Peer
from qnwis.continuity.orders import CatchUpOrder
from qnwis.continuity.refusal import Refusal

from .effects import AlreadySo, Decision, Done, Node

CAUGHT_UP_WITHIN_S = 4.0
POLL_S = 0.003


async def catch_up(node: Node, order: CatchUpOrder, source: Peer) -> Decision:
    """Receive and replay up to `to_lsn` from `source`."""
    facts = await node.facts()
    if facts is None or not facts.in_recovery:
        return Refusal(
            rule="not_a_standby",
            message=f"{node.node_id} cannot catch up: its database is no standby that answers",
            values={"running": node.postgres.running},
            remedy="Promote another standby, or start this one",
        )
    if await _reached(node) >= order.to_lsn:
        return AlreadySo(f"{node.node_id} has the log up to {order.to_lsn} already")

    async def effect() -> Done | Refusal:
        clock = asyncio.get_running_loop().time
        deadline = clock() + CAUGHT_UP_WITHIN_S
        node.postgres.set_upstream(source)
        node.postgres.reload()
        try:
            while True:
                reached = await _reached(node)
                if reached >= order.to_lsn or clock() > deadline:
                    break
                await asyncio.sleep(POLL_S)
        finally:
            # Held again, as it promised: whom it follows is the run's to say.
            node.postgres.set_upstream(None)
            node.postgres.reload()
        if reached >= order.to_lsn:
            return Done(f"{node.node_id} took the log up to {order.to_lsn} from {source.node_id}")
        return Refusal(
            rule="not_caught_up",
            message=f"{node.node_id} did not reach {order.to_lsn} from {source.node_id} in time",
            values={"reached_lsn": reached, "to_lsn": order.to_lsn, "within_s": CAUGHT_UP_WITHIN_S},
            remedy=f"Plan again with {source.node_id} as the target, which has that log",
        )

    return effect


async def _reached(node: Node) -> int:
    """Where replay stands: what is replayed is what a promotion keeps for certain."""
    facts = await node.facts()
    return 0 if facts is None or facts.replay_lsn is None else facts.replay_lsn
