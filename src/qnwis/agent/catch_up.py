"""Catch up: a standby that is to be promoted takes the rest of the log from one that has more of it.

The former primary is fenced by then and confirms nothing, so positions only grow towards what exists already.
The standby promised its epoch and receives nothing else; afterwards it is as it was, only further on.

What the other one has may end within a record, where the former primary died while it sent that. Nobody can
replay the half, and a promotion ends before it: who received that far and replayed all it can has the log.
"""

from __future__ import annotations

import asyncio

from qnwis.continuity.membership import Peer
from qnwis.continuity.orders import CatchUpOrder
from qnwis.continuity.refusal import Refusal

from .database import DatabaseDownError, Facts
from .effects import AlreadySo, Decision, Done, Node

CAUGHT_UP_WITHIN_S = 4.0
POLL_S = 0.003

_WAITING = """
SELECT EXISTS (SELECT FROM pg_stat_activity
                WHERE backend_type = 'startup' AND wait_event = 'RecoveryWalStream') AS waiting
"""
"""Whether replay waits for more log than was received."""


async def catch_up(node: Node, order: CatchUpOrder, source: Peer) -> Decision:
    """Receive up to `to_lsn` from `source`, and replay what of that can be replayed."""
    facts = await node.facts()
    if facts is None or not facts.in_recovery:
        return Refusal(
            rule="not_a_standby",
            message=f"{node.node_id} cannot catch up: its database is no standby that answers",
            values={"running": node.postgres.running},
            remedy="Promote another standby, or start this one",
        )
    if (facts.replay_lsn or 0) >= order.to_lsn:
        return AlreadySo(f"{node.node_id} has the log up to {order.to_lsn} already")

    async def effect() -> Done | Refusal:
        clock = asyncio.get_running_loop().time
        deadline = clock() + CAUGHT_UP_WITHIN_S
        node.postgres.set_upstream(source)
        node.postgres.reload()
        looked: Facts | None = None
        try:
            while True:
                before, looked = looked, await node.facts()
                caught_up = await _caught_up(node, order.to_lsn, looked, before)
                if caught_up or clock() > deadline:
                    break
                await asyncio.sleep(POLL_S)
        finally:
            # Held again, as it promised: whom it follows is the run's to say.
            node.postgres.set_upstream(None)
            node.postgres.reload()
        if caught_up:
            return Done(f"{node.node_id} took the log up to {order.to_lsn} from {source.node_id}")
        return Refusal(
            rule="not_caught_up",
            message=f"{node.node_id} did not reach {order.to_lsn} from {source.node_id} in time",
            values={
                "received_lsn": None if looked is None else looked.receive_lsn,
                "replayed_lsn": None if looked is None else looked.replay_lsn,
                "to_lsn": order.to_lsn,
                "within_s": CAUGHT_UP_WITHIN_S,
            },
            remedy=f"Plan again with {source.node_id} as the target, which has that log",
        )

    return effect


async def _caught_up(node: Node, to_lsn: int, now: Facts | None, before: Facts | None) -> bool:
    """Whether it replayed that far, or received that far and replays no further since the look before."""
    if now is None:
        return False
    if (now.replay_lsn or 0) >= to_lsn:
        return True
    stands_still = before is not None and before.replay_lsn == now.replay_lsn
    return stands_still and (now.receive_lsn or 0) >= to_lsn and await _waits_for_log(node)


async def _waits_for_log(node: Node) -> bool:
    try:
        return bool((await node.connection.row(_WAITING))["waiting"])
    except DatabaseDownError:
        return False
