"""Hand over and resume: a primary that ends in a clean way, and comes back by itself if nobody takes over.

Its data directory stays a primary's. What keeps it from a second life beside another primary is the lease:
released only once no process of the database is left, and taken up again only under an epoch of its own,
which a majority promises as long as it granted nobody else since and reserves it for no run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from qnwis.continuity.orders import HandOverOrder, ResumeOrder
from qnwis.continuity.refusal import Refusal

from .effects import AlreadySo, Decision, Done, EffectError, Node
from .programs import read_control
from .quiesce import refuse_epoch

TOOK_NO_TIME_S = 0.5
"""An end that took longer has used up time of whoever takes over, which begins anew then."""
WRITABLE_WITHIN_S = 30.0
POLL_S = 0.01


async def hand_over(node: Node, order: HandOverOrder) -> Decision:
    """Stop the database and release its lease; the token says where it ended."""
    if (refusal := refuse_epoch(node, order)) is not None:
        return refusal
    postgres = node.postgres
    if postgres.standby:
        return _standby(node, order)
    if not postgres.running and not (await read_control(postgres)).shut_down:
        return Refusal(
            rule="database_down",
            message=f"{node.node_id} cannot be handed over: its database ended, and not in a clean way",
            values={"running": False},
            remedy="Wait until it is up again, or order a failover",
        )

    async def effect() -> Done:
        # No client can write from here on: what takes time is done while the database ends. Its walsenders
        # end only when every standby that is connected has the shutdown checkpoint.
        ended = asyncio.ensure_future(_end(node, order.return_after_s))
        control, _ = await asyncio.gather(read_control(postgres, after=ended), _let_go(node, after=ended))
        if not control.shut_down:
            node.handed_over.end()  # nobody can continue it, so the keeper need not wait
            raise EffectError(f"the database of {node.node_id} was not shut down: {control.state}")
        token = control.checkpoint
        return Done(
            f"{node.node_id}: every process of the database is gone; it ended on timeline {token.timeline}"
            f" with the record at LSN {token.lsn}, and comes back in {order.return_after_s:g} s if nobody"
            " takes over",
            token,
        )

    return effect


async def _end(node: Node, return_after_s: float) -> None:
    """Stop the database; from its end on it is left down for whoever takes over."""
    stopped = asyncio.ensure_future(node.postgres.stop())
    await asyncio.sleep(0)  # it is told to end
    try:
        node.handed_over.begin(return_after_s)
    finally:
        await stopped
    if node.handed_over.left_s < return_after_s - TOOK_NO_TIME_S:
        node.handed_over.begin(return_after_s)


async def _let_go(node: Node, *, after: Awaitable[None]) -> None:
    """Release the lease, and begin to tell. Who is told a moment later grants a moment later: this node's own
    promise says that it released."""
    await after
    if not node.give_up():
        raise EffectError(f"processes of the database of {node.node_id} are left")


async def resume(node: Node, order: ResumeOrder) -> Decision:
    """Accept writes again, with the lease that there is or a new one."""
    if (refusal := refuse_epoch(node, order)) is not None:
        return refusal
    postgres = node.postgres
    if postgres.standby:
        return _standby(node, order)
    if not postgres.quiesced and await _writable(node):
        return AlreadySo(f"{node.node_id} accepts writes already")

    async def effect() -> Done | Refusal:
        node.quiescing.end()
        node.handed_over.end()
        if not postgres.running:
            refusal = await node.leases.take_up()
            if refusal is not None and refusal.rule == "another_held_since":
                return refusal
            if refusal is not None:
                raise EffectError(f"{node.node_id} has no lease: {refusal}")
            await postgres.start()
        clock = asyncio.get_running_loop().time
        deadline = clock() + WRITABLE_WITHIN_S
        while not await _writable(node):
            if not postgres.running or clock() > deadline:
                raise EffectError(f"the database of {node.node_id} does not accept writes; see postgres.log")
            await asyncio.sleep(POLL_S)
        return Done(f"{node.node_id} accepts writes again, under epoch {node.leases.sought}")

    return effect


async def _writable(node: Node) -> bool:
    facts = await node.facts()
    return facts is not None and not facts.in_recovery and not facts.read_only


def _standby(node: Node, order: HandOverOrder | ResumeOrder) -> Refusal:
    return Refusal(
        rule="is_standby",
        message=f"{node.node_id} cannot {order.kind}: its data directory is a standby's",
        values={"node_id": node.node_id},
        remedy="Order it to the primary",
    )
