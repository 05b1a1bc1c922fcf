"""What orders do to the database: promote and demote. (The others have files of their own.)

Each looks first and then answers one of three: a Refusal, AlreadySo, or the effect to carry out. The caller
writes the intent down in between, so an effect never begins without a trace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import psycopg

from qnwis.continuity.handing_over import token_refusal
from qnwis.continuity.orders import DemoteOrder, DemotionToken, PromoteOrder
from qnwis.continuity.refusal import Refusal

from .database import Connection, DatabaseDownError, Facts
from .deadline import Deadline
from .guarding import Guarding
from .lease import Leases
from .postgres import Postgres
from .processes import processes_in
from .quiescing import Quiescing
from .receiving import Receiving

PROMOTE_AGAIN_S = 0.15
"""PostgreSQL can miss a promotion for 5 s when its startup process sleeps; a second request wakes it."""
PROMOTE_WITHIN_S = 30.0
REPLAYED_WITHIN_S = 1.0
"""What was received is replayed at once, unless that is held up."""
POLL_S = 0.003


@dataclass(frozen=True)
class AlreadySo:
    """The world is as ordered; nothing is to be done."""

    detail: str


@dataclass(frozen=True)
class Done:
    """What was done."""

    detail: str
    token: DemotionToken | None = None
    """Of a hand-over."""


Effect = Callable[[], Awaitable[Done | Refusal]]
"""Carries the order out; a Refusal says that it could not be done and was taken back. Raises EffectError
when neither is certain."""

Decision = Refusal | AlreadySo | Effect


class EffectError(Exception):
    """The effect began and is not known to be complete."""


@dataclass(frozen=True)
class Node:
    """What effects work on."""

    node_id: str
    postgres: Postgres
    connection: Connection
    leases: Leases
    guarding: Guarding
    receiving: Receiving
    quiescing: Quiescing
    handed_over: Deadline
    """After a hand-over: until when the database is left down for whoever takes over."""

    def starting(self) -> None:
        """The database is being started: what was ordered of an earlier life of it is over."""
        self.quiescing.over()
        self.handed_over.end()

    async def give_up_for_good(self) -> None:
        """Give the lease up, after the database was stopped: what it wrote is another's to continue."""
        if self.give_up():
            self.leases.take_nothing_up()
        await self.leases.told()

    def give_up(self) -> bool:
        """Give the lease up, after the database ended. False while processes of it are left. Raises OSError
        where that cannot be written down: then it is kept, and renewed no more."""
        released = self.leases.give_up(len(processes_in(self.postgres.data_dir)))
        if released:
            self.guarding.over()
        return released

    async def facts(self) -> Facts | None:
        """What the database says of itself; None while it does not answer."""
        try:
            return await self.connection.facts() if self.postgres.running else None
        except DatabaseDownError:
            return None


async def promote(node: Node, order: PromoteOrder) -> Decision:
    """Become the primary."""
    facts = await node.facts()
    if facts is None:
        return Refusal(
            rule="database_down",
            message=f"{node.node_id} cannot be promoted: its database does not answer",
            values={"running": node.postgres.running},
            remedy="Promote another standby, or start this one",
        )
    if not facts.in_recovery and node.leases.sought == order.epoch:
        return AlreadySo(f"{node.node_id} is the primary already, on timeline {facts.timeline}")
    if order.at is not None and (refusal := await _until_reached(node, order.at, facts)) is not None:
        return refusal

    async def effect() -> Done:
        refusal = await node.leases.acquire(order.epoch, order.run_id)
        if refusal is not None:
            raise EffectError(f"{node.node_id} has no lease for epoch {order.epoch}: {refusal}")
        if node.postgres.set_settings({}):  # its commits must wait for standbys from the first one on
            node.postgres.reload()
        clock = asyncio.get_running_loop().time
        began = asked = clock()
        await _ask_promotion(node.connection)
        while await _in_recovery(node.connection):
            if clock() - began > PROMOTE_WITHIN_S:
                raise EffectError(
                    f"{node.node_id} is still in recovery {PROMOTE_WITHIN_S:g} s after pg_promote"
                )
            if clock() - asked > PROMOTE_AGAIN_S:
                asked = clock()
                await _ask_promotion(node.connection)
            await asyncio.sleep(POLL_S)
        after = await node.connection.facts()
        return Done(f"{node.node_id} is the primary on timeline {after.timeline} at LSN {after.write_lsn}")

    return effect


async def promoted_since(node: Node, epoch: int) -> AlreadySo | None:
    """What has become of a promotion that was begun under `epoch`, once a later epoch was obeyed.

    A primary whose database ended may have taken the lease up again by itself: it is what it was promoted to
    be. None where nothing came of it, nor can: the data directory still is a standby's, and no order of the
    older epoch is carried out any more. Raises EffectError while neither is certain.
    """
    facts = await node.facts()
    if facts is not None and not facts.in_recovery and node.leases.held:
        return AlreadySo(
            f"{node.node_id} is the primary on timeline {facts.timeline}, by now under epoch"
            f" {node.leases.sought}"
        )
    primary = (facts is not None and not facts.in_recovery) or not node.postgres.standby
    if primary or node.leases.held:
        raise EffectError(
            f"{node.node_id} began its promotion under epoch {epoch}, has obeyed epoch {node.leases.epoch}"
            " since, and does not serve"
        )
    return None


async def demote(node: Node, order: DemoteOrder) -> Decision:
    """Stop every process of the database; it comes back only as a standby of an upstream yet to be named."""
    postgres = node.postgres
    stopped = not postgres.running and not processes_in(postgres.data_dir)
    if stopped and postgres.standby and postgres.upstream is None:
        return AlreadySo(f"{node.node_id} is stopped already and kept as a standby")

    async def effect() -> Done:
        # First the mark: whatever interrupts this, the next start is not a writable one.
        postgres.keep_standby()
        postgres.set_upstream(None)
        await postgres.stop()
        await node.give_up_for_good()
        return Done(f"{node.node_id}: every process of the database is gone; it comes back only as a standby")

    return effect


async def _until_reached(node: Node, token: DemotionToken, facts: Facts) -> Refusal | None:
    """Wait for the replay of the old primary's last record; why it was not replayed in time."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + REPLAYED_WITHIN_S
    latest: Facts | None = facts
    while True:
        if latest is not None:
            facts = latest
        refusal = token_refusal(
            node.node_id,
            token,
            timeline=facts.timeline,
            receive_lsn=facts.receive_lsn,
            replay_lsn=facts.replay_lsn,
        )
        if refusal is None or clock() > deadline:
            return refusal
        await asyncio.sleep(POLL_S)
        latest = await node.facts()


async def _ask_promotion(connection: Connection) -> None:
    try:
        await connection.row("SELECT pg_promote(false)")
    except psycopg.errors.ObjectNotInPrerequisiteState:
        return  # promoted in the meantime


async def _in_recovery(connection: Connection) -> bool:
    row = await connection.row("SELECT pg_is_in_recovery() AS in_recovery")
    return bool(row["in_recovery"])
