"""Follow: a standby replicates from another upstream, without a restart of the database where that suffices.

One that replayed more of the old history than the new upstream has cannot, and says so: it needs a rejoin.

A standby that received the beginning of a record which the new upstream's history does not have may read that
again and again instead of what the upstream sends. A restart makes it forget what it read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from qnwis.continuity.membership import Peer
from qnwis.continuity.orders import FollowOrder
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.timelines import ahead_refusal
from qnwis.logs import log

from .database import Connection, DatabaseDownError, Facts
from .effects import AlreadySo, Decision, Done, Node

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
    now, connected = node.receiving.upstream, node.postgres.upstream
    same = connected is not None and connected.node_id == upstream.node_id  # not one that is held
    if same and facts is not None and facts.streaming:
        return AlreadySo(f"{node.node_id} follows {upstream.node_id} already")
    fits = facts is not None and order.at is not None and facts.timeline == order.at.timeline
    if facts is not None and not fits and (refusal := await _ahead(node, upstream, facts)) is not None:
        return refusal

    async def effect() -> Done:
        before = f"{node.node_id} follows {upstream.node_id}, before that {now.node_id if now else 'nobody'}"
        node.receiving.receive_from(upstream)
        if node.postgres.running:
            node.postgres.reload()
        else:
            await node.postgres.start()
        if fits:
            return Done(f"{before}; it streams once that is the primary")
        theirs = await _facts_of(node, upstream)
        if theirs is None:
            return Done(f"{before}; {upstream.node_id} does not answer as a primary")
        if await replays(node, theirs, STREAMS_WITHIN_S, after=facts):
            return Done(before)
        log("follow_restarts", upstream=upstream.node_id)
        await node.postgres.stop()
        await node.postgres.start()
        if await replays(node, theirs, RESTARTED_WITHIN_S, after=facts):
            return Done(f"{before}; it did not stream until it was restarted")
        return Done(
            f"{before}; it does not stream, nor after a restart: order a rejoin, and see postgres.log"
        )

    return effect


async def replays(node: Node, theirs: Facts, within_s: float, *, after: Facts | None = None) -> bool:
    """Whether in time it streams the upstream's timeline and has replayed up to where that was, or further
    than it was itself at the time of `after`.

    To stream alone proves nothing: a standby begins to stream again and again, and gets nowhere.
    """
    assert theirs.write_lsn is not None, "the caller has checked that the upstream is a primary"
    wanted = theirs.write_lsn
    if after is not None and after.replay_lsn is not None:
        wanted = min(wanted, after.replay_lsn + 1)
    clock = asyncio.get_running_loop().time
    deadline = clock() + within_s
    while node.postgres.running and clock() < deadline:
        mine = await node.facts()
        if mine is not None and streams(mine, theirs) and (mine.replay_lsn or 0) >= wanted:
            return True
        await asyncio.sleep(POLL_S)
    return False


def streams(mine: Facts, theirs: Facts) -> bool:
    """Whether it streams what the upstream writes now, not what is left of an earlier timeline."""
    return mine.streaming and mine.timeline == theirs.timeline


async def _ahead(node: Node, upstream: Peer, mine: Facts) -> Refusal | None:
    """Why it cannot follow as it is. None also while the upstream does not answer as a primary."""
    async with _asking(node, upstream) as source:
        theirs = await _primary_facts(source)
        if theirs is None or theirs.timeline == mine.timeline or mine.replay_lsn is None:
            return None
        try:
            history = await source.history(theirs.timeline)
        except DatabaseDownError:
            return None
    return ahead_refusal(
        node.node_id,
        upstream.node_id,
        timeline=mine.timeline,
        replayed_lsn=mine.replay_lsn,
        history=history,
    )


async def _facts_of(node: Node, upstream: Peer) -> Facts | None:
    """What the upstream says of itself; None while it does not answer as a primary."""
    async with _asking(node, upstream) as source:
        return await _primary_facts(source)


async def _primary_facts(source: Connection) -> Facts | None:
    try:
        facts = await source.facts()
    except DatabaseDownError:
        return None
    return None if facts.in_recovery else facts


@contextlib.asynccontextmanager
async def _asking(node: Node, upstream: Peer) -> AsyncIterator[Connection]:
    assert upstream.database is not None, "the caller has checked that the upstream holds data"
    source = Connection(upstream.database, node.postgres.database.superuser)
    try:
        yield source
    finally:
        await source.close()
