"""Follow: a standby replicates from another upstream, without a restart of the database where that suffices.

A standby that received the beginning of a record which the new upstream's history does not have may read that
again and again instead of what the upstream sends. A restart makes it forget what it read.
"""

from __future__ import annotations

import asyncio

from qnwis.continuity.membership import Peer
from qnwis.continuity.orders import FollowOrder
from qnwis.continuity.refusal import Refusal

from .database import Connection, DatabaseDownError, Facts
from .effects import AlreadySo, Decision, Node
from .logs import log

STREAMS_WITHIN_S = 2.0
"""A standby whose log fits does within a tenth of this."""
RESTARTED_WITHIN_S = 5.0
POLL_S = 0.01


async def follow(node: Node, order: FollowOrder, upstream: Peer) -> Decision:
    """Replicate from `upstream`, with a restart of the database only where nothing else helps."""
    facts = await node.facts()
    if not node.postgres.standby or (facts is not None and not facts.in_recovery):
        return Refusal(
            rule="is_primary",
            message=f"{node.node_id} cannot follow {upstream.node_id}: it is a primary",
            values={"node_id": node.node_id, "upstream": upstream.node_id},
            remedy="Order a rejoin, which rewinds it to the upstream's history",
        )
    now = node.postgres.upstream
    same = now is not None and now.node_id == upstream.node_id
    if same and facts is not None and facts.streaming:
        return AlreadySo(f"{node.node_id} follows {upstream.node_id} already")

    async def effect() -> str:
        before = f"{node.node_id} follows {upstream.node_id}, before that {now.node_id if now else 'nobody'}"
        node.postgres.set_upstream(upstream)
        if node.postgres.running:
            node.postgres.reload()
        else:
            await node.postgres.start()
        theirs = await _written(node, upstream)
        if theirs is None:
            return f"{before}; {upstream.node_id} does not answer"
        wanted = theirs if facts is None or facts.replay_lsn is None else min(theirs, facts.replay_lsn + 1)
        if await replays(node, wanted, STREAMS_WITHIN_S):
            return before
        log("follow_restarts", upstream=upstream.node_id)
        await node.postgres.stop()
        await node.postgres.start()
        if await replays(node, wanted, RESTARTED_WITHIN_S):
            return f"{before}; it did not stream until it was restarted"
        return f"{before}; it does not stream, nor after a restart: order a rejoin, and see postgres.log"

    return effect


async def _written(node: Node, upstream: Peer) -> int | None:
    """Up to where the upstream has written its log; None while it does not answer as a primary."""
    assert upstream.database is not None, "the caller has checked that the upstream holds data"
    source = Connection(upstream.database, node.postgres.database.superuser)
    try:
        return (await source.facts()).write_lsn
    except DatabaseDownError:
        return None
    finally:
        await source.close()


async def replays(node: Node, wanted: int, within_s: float) -> bool:
    """Whether it streams and has replayed up to there in time. To stream alone proves nothing: one that reads
    its own log again and again begins to stream each time."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + within_s
    while node.postgres.running and clock() < deadline:
        if _has_replayed(await node.facts(), wanted):
            return True
        await asyncio.sleep(POLL_S)
    return False


def _has_replayed(facts: Facts | None, wanted: int) -> bool:
    if facts is None or not facts.streaming or facts.replay_lsn is None:
        return False
    return facts.replay_lsn >= wanted
