"""Quiesce and prepare: what a planned switchover asks of a primary before it is handed over."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pydantic import JsonValue

from qnwis.continuity.handing_over import PresentOrder, epoch_refusal
from qnwis.continuity.orders import PrepareOrder, QuiesceOrder
from qnwis.continuity.refusal import Refusal
from qnwis.logs import log

from .database import Connection, DatabaseDownError
from .effects import Decision, Done, EffectError, Node

HEEDED_WITHIN_S = 1.0
"""How long sessions may take to heed a reload, or their end."""
REPLAYED_WITHIN_S = 2.0
CHECKPOINT_WITHIN_S = 120.0
END_LOG_FILE_WITHIN_S = 10.0
RECEIVED_WITHIN_S = 10.0
"""How long standbys may take to receive what is left of a log file that is ended."""
POLL_S = 0.004

_WRITERS = """
SELECT current_setting('default_transaction_read_only')::bool AS read_only,
       (SELECT count(*) FROM pg_stat_activity
         WHERE backend_type = 'client backend' AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()
       ) AS writers
"""
_END_WRITERS = """
SELECT count(pg_terminate_backend(pid)) AS ended FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND backend_xid IS NOT NULL AND pid <> pg_backend_pid()
"""
# Commits wait meanwhile for what is left of the file to be sent, so that may be no more than a usual file.
_END_LOG_FILE = """
SELECT pg_switch_wal() AS ended FROM pg_settings
 WHERE name = 'wal_segment_size' AND current_setting('synchronous_standby_names') <> ''
   AND setting::bigint - (pg_walfile_name_offset(pg_current_wal_lsn())).file_offset <= 16 * 1024 * 1024
"""
_POSITION = "SELECT (pg_current_wal_lsn() - '0/0')::bigint AS lsn"
_STANDBYS = """
SELECT coalesce(json_object_agg(application_name, json_build_object(
         'flush_lsn', (flush_lsn - '0/0')::bigint,
         'replay_lsn', (replay_lsn - '0/0')::bigint)), '{}') AS standbys
  FROM pg_stat_replication WHERE state = 'streaming'
"""


async def quiesce(node: Node, order: QuiesceOrder) -> Decision:
    """Let no new writes in, end the open ones, and see that the standby has replayed all of them."""
    if (refusal := refuse_epoch(node, order)) is not None:
        return refusal
    facts = await node.facts()
    if facts is None or facts.in_recovery:
        return Refusal(
            rule="no_primary",
            message=f"{node.node_id} cannot quiesce: its database does not answer as a primary",
            values={"running": node.postgres.running},
            remedy="Order it to the primary, once that is up",
        )
    connected: list[JsonValue] = [s.application_name for s in facts.standbys if s.state == "streaming"]
    if order.standby not in connected:
        return Refusal(
            rule="standby_lags",
            message=f"{order.standby} does not stream from {node.node_id}, so it never has all of its writes",
            values={"standby": order.standby, "streaming": connected},
            remedy=f"Let {order.standby} stream again, or choose another standby",
        )

    async def effect() -> Done | Refusal:
        done: Done | Refusal | None = None
        try:
            node.quiescing.begin(order.for_s)
            done = await _drain(node, order) or await _zero_lag(node, order)
        finally:
            if not isinstance(done, Done):
                node.quiescing.end()
        return done

    return effect


async def prepare(node: Node, order: PrepareOrder) -> Decision:
    """Write a checkpoint, or a standby's restart point; where commits wait for standbys, end the log file
    that is written to.

    A standby that changes over to another primary asks for its log from the beginning of a file, and commits
    would wait for as long as that takes to be sent, in the midst of the switchover. They wait now, for as
    long as the rest of the file takes.
    """
    if (refusal := refuse_epoch(node, order)) is not None:
        return refusal

    async def effect() -> Done:
        # On a connection of its own: others ask for the node's state meanwhile.
        database = node.postgres.database
        connection = Connection(database, database.superuser)
        try:
            was_primary = not node.postgres.standby
            await connection.row("CHECKPOINT", timeout_s=CHECKPOINT_WITHIN_S)
            # It may have outlived its run: commits of a primary promoted meanwhile would wait in vain.
            still_wanted = was_primary and refuse_epoch(node, order) is None
            ended = still_wanted and await _end_log_file(connection)
        finally:
            await connection.close()
        return Done(f"{node.node_id} has written a checkpoint{' and begun a new log file' if ended else ''}")

    return effect


async def _end_log_file(connection: Connection) -> bool:
    """Begin a new file, and wait until the standbys have the rest of the old one; whether that was done. One
    that is slow is not waited for any longer: whoever quiesces sees whether it has everything."""
    try:
        if not await connection.row(_END_LOG_FILE, timeout_s=END_LOG_FILE_WITHIN_S):
            return False
        lsn: int = (await connection.row(_POSITION))["lsn"]
        clock = asyncio.get_running_loop().time
        deadline = clock() + RECEIVED_WITHIN_S
        while clock() < deadline:
            standbys = (await connection.row(_STANDBYS))["standbys"].values()
            if all(standby["flush_lsn"] is not None and standby["flush_lsn"] >= lsn for standby in standbys):
                break
            await asyncio.sleep(POLL_S)
    except DatabaseDownError as error:
        # It only saves time later: a switchover that goes on without it is none the worse.
        log("log_file_not_ended", reason=str(error))
        return False
    return True


def refuse_epoch(node: Node, order: PresentOrder) -> Refusal | None:
    return epoch_refusal(node.node_id, order, obeyed=node.leases.epoch, serves=node.leases.sought)


async def _drain(node: Node, order: QuiesceOrder) -> Refusal | None:
    """Returns when no writing transaction is open and none can begin; why that did not come to be."""
    if await _no_writers(node, order.drain_s):
        return None
    row = await node.connection.row(_END_WRITERS)
    if await _no_writers(node, HEEDED_WITHIN_S):
        return None
    return Refusal(
        rule="writers_remain",
        message=f"Writing transactions of {node.node_id} are open {order.drain_s:g} s after new ones were"
        f" stopped, and {HEEDED_WITHIN_S:g} s after {row['ended']} of them were ended",
        values={"drain_s": order.drain_s, "ended": row["ended"]},
        remedy="End them, and see that no role or session sets default_transaction_read_only = off",
    )


async def _no_writers(node: Node, within_s: float) -> bool:
    clock = asyncio.get_running_loop().time
    deadline = clock() + within_s
    while True:
        row = await node.connection.row(_WRITERS)
        if row["read_only"] and row["writers"] == 0:
            return True
        if clock() > deadline:
            return False
        await asyncio.sleep(POLL_S)


async def _zero_lag(node: Node, order: QuiesceOrder) -> Done | Refusal:
    """Wait until the standby has flushed and replayed all that is written."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + REPLAYED_WITHIN_S
    lsn: int = (await node.connection.row(_POSITION))["lsn"]
    while True:
        row = await node.connection.row(_STANDBYS)
        at: Mapping[str, int | None] = row["standbys"].get(order.standby, {})
        flushed, replayed = at.get("flush_lsn"), at.get("replay_lsn")
        if flushed is not None and replayed is not None and min(flushed, replayed) >= lsn:
            break
        if clock() > deadline:
            return Refusal(
                rule="standby_lags",
                message=f"{order.standby} has flushed {flushed} and replayed {replayed}, not yet {lsn}, after"
                f" {REPLAYED_WITHIN_S:g} s; {node.node_id} accepts writes again",
                values={"standby": order.standby, "lsn": lsn, "flush_lsn": flushed, "replay_lsn": replayed},
                remedy=f"See what holds the replay of {order.standby} up, or choose another standby",
            )
        await asyncio.sleep(POLL_S)
    if not node.postgres.quiesced:
        raise EffectError(f"{node.node_id} accepts writes again: {order.for_s:g} s are over")
    return Done(f"{node.node_id} lets no new writes in; {order.standby} has replayed all up to LSN {lsn}")
