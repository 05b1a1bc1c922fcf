"""A healthy cluster of real agents, with the roles of the moment and the orders that tests give."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
import pytest

from qnwis.agent.processes import processes_in
from qnwis.continuity.lease_messages import Promised, PromiseRequest
from qnwis.continuity.orders import (
    AnyOrder,
    CatchUpOrder,
    DemoteOrder,
    DemotionToken,
    FollowOrder,
    HandOverOrder,
    PrepareOrder,
    PromoteOrder,
    QuiesceOrder,
    Receipt,
    RejoinOrder,
    ResumeOrder,
)
from qnwis.providers.errors import Refused, Unreachable
from tests.looking import WITHIN_S, Looks

from .pg import TestCluster, TestNode

SCENES = itertools.count(1)


@dataclass
class Scene:
    """A healthy cluster with the roles of the moment."""

    cluster: TestCluster
    primary: TestNode
    standby: TestNode
    other: TestNode
    epoch: int
    """An epoch that no node has obeyed yet."""
    present: int
    """The epoch that the primary serves under."""
    number: int
    """Of this scene, among those in this process."""

    async def order(self, member: TestNode, order: AnyOrder) -> Receipt:
        return await ordered(self.cluster, member, order)

    async def refused(self, member: TestNode, order: AnyOrder) -> str:
        """The rule by which the order is refused."""
        with pytest.raises(Refused) as caught:
            await self.order(member, order)
        return caught.value.refusal.rule

    def promote(
        self, effect: str = "promote", *, epoch: int | None = None, at: DemotionToken | None = None
    ) -> PromoteOrder:
        return PromoteOrder(at=at, **self._head(effect, epoch))

    def demote(self, effect: str = "demote") -> DemoteOrder:
        return DemoteOrder(**self._head(effect, None))

    def follow(
        self,
        upstream: TestNode,
        effect: str = "follow",
        *,
        epoch: int | None = None,
        at: DemotionToken | None = None,
    ) -> FollowOrder:
        return FollowOrder(upstream=upstream.node_id, at=at, **self._head(effect, epoch))

    def catch_up(self, source: TestNode, to_lsn: int, effect: str = "catch up") -> CatchUpOrder:
        return CatchUpOrder(upstream=source.node_id, to_lsn=to_lsn, **self._head(effect, None))

    def rejoin(self, upstream: TestNode, effect: str = "rejoin") -> RejoinOrder:
        return RejoinOrder(upstream=upstream.node_id, **self._head(effect, None))

    # Orders of the present epoch

    def quiesce(
        self, effect: str = "quiesce", *, drain_s: float = 0.2, for_s: float = 600, epoch: int | None = None
    ) -> QuiesceOrder:
        head = self._present_head(effect, epoch)
        return QuiesceOrder(standby=self.standby.node_id, drain_s=drain_s, for_s=for_s, **head)

    def prepare(self, effect: str = "prepare", *, epoch: int | None = None) -> PrepareOrder:
        return PrepareOrder(**self._present_head(effect, epoch))

    def hand_over(
        self, effect: str = "hand over", *, return_after_s: float = 20, epoch: int | None = None
    ) -> HandOverOrder:
        return HandOverOrder(return_after_s=return_after_s, **self._present_head(effect, epoch))

    def resume(self, effect: str = "resume", *, epoch: int | None = None) -> ResumeOrder:
        return ResumeOrder(**self._present_head(effect, epoch))

    def _present_head(self, effect: str, epoch: int | None) -> dict[str, object]:
        # Without a failover the next scene has the same epochs, but effects of its own.
        return self._head(f"{effect}, scene {self.number}", epoch or self.present)

    def _head(self, effect: str, epoch: int | None) -> dict[str, object]:
        run_id = f"run-{self.epoch}"
        return {"effect_id": f"{run_id}:{effect}", "run_id": run_id, "epoch": epoch or self.epoch}

    async def promised(self, *members: TestNode, timeout_s: float = WITHIN_S) -> list[Promised]:
        """What these members answer to a run that asks for the promise of the scene's epoch."""
        request = PromiseRequest(epoch=self.epoch, run_id=f"run-{self.epoch}", membership_version=1)
        return [await self.cluster.nodes.promise(m.node, request, timeout_s=timeout_s) for m in members]

    async def fail_over(self) -> None:
        """The standby is promoted, the other node follows it."""
        await self.order(self.standby, self.promote())
        await self.order(self.other, self.follow(self.standby))
        await self.other.until(streaming=True, upstream=self.standby.node_id)


async def ordered(cluster: TestCluster, member: TestNode, order: AnyOrder) -> Receipt:
    try:
        return await cluster.nodes.order(member.node, order, timeout_s=WITHIN_S)
    except Unreachable as error:
        raise AssertionError(f"{error}\n{member.logs()}") from error


async def healed(cluster: TestCluster) -> Scene:
    """Every agent runs, one node is the primary, and the others stream from it."""
    for member in cluster.members.values():
        if not member.agent_runs:
            await member.start_agent()
    async with asyncio.timeout(WITHIN_S):  # for one that comes back by itself, if no run was promised that
        looks = Looks()
        while True:
            states = [await member.state() for member in cluster.members.values()]
            writable = [state.node_id for state in states if state.writable]
            if writable:
                break
            await looks.again()
    newest = max(state.epoch for state in states)
    (holder,) = writable
    primary = cluster[holder]
    granted = primary.grants().granted
    if granted is None or granted.epoch < newest:
        # Promised to a run that never promoted: the others renew the primary's lease no more.
        newest += 1
        await ordered(cluster, primary, PromoteOrder(effect_id=f"heal-{newest}", run_id="heal", epoch=newest))
    for member in cluster.members.values():
        if member is not primary:
            heal = f"heal-{newest}-{member.node_id}-{datetime.now(UTC).timestamp()}"
            order = RejoinOrder(effect_id=heal, run_id="heal", epoch=newest or 1, upstream=holder)
            await ordered(cluster, member, order)
            await member.until(streaming=True, upstream=holder)
    standby, other = (member for member in cluster.members.values() if member is not primary)
    await until_streaming_to(primary, standby, other)
    await primary.sql("CREATE TABLE IF NOT EXISTS rows (name text)")
    return Scene(cluster, primary, standby, other, newest + 2, newest, next(SCENES))


async def until_streaming_to(primary: TestNode, *standbys: TestNode) -> None:
    """Returns when the primary says so, too: while one that has just connected catches up, a quiesce that
    names it is refused."""
    names = {standby.node_id for standby in standbys}
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while not names <= {
            s.application_name for s in (await primary.state()).standbys if s.state == "streaming"
        }:
            await looks.again()


async def rows(member: TestNode) -> set[str]:
    return {name for (name,) in await member.sql("SELECT name FROM rows")}


async def until_gone(member: TestNode) -> None:
    """Returns when no process of the database is left."""
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while processes_in(member.data_dir):
            await looks.again()


async def until_kept_down(member: TestNode, rule: str) -> None:
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while f"[{rule}]" not in ((await member.state()).why_down or ""):
            await looks.again()
    assert not (await member.state()).database_up


WRITE_PAUSE_S = 0.005
"""After each write: dense enough to catch a database that serves for a moment too long, and so seldom that
client, database and two cores have time for what the test is about."""
WRITE = "INSERT INTO rows VALUES ('pinned') RETURNING extract(epoch from clock_timestamp())::float8"


class PinnedClient:
    """Writes to one node, waits for no standby, and comes back when its connection breaks."""

    def __init__(self, member: TestNode, patience_s: float) -> None:
        self._member = member
        self._patience_s = patience_s
        self.written: list[float] = []
        """When the server did the writes that it acknowledged, in seconds of the wall clock."""
        self.wrote = asyncio.Event()
        self.backend = 0
        self.connections = 0

    async def run(self) -> None:
        clock, longest_s = asyncio.get_running_loop().time, self._patience_s
        while True:
            with contextlib.suppress(psycopg.Error, TimeoutError):
                async with asyncio.timeout(longest_s) as patience, self._member.connect() as connection:
                    self.connections += 1
                    self.backend = connection.info.backend_pid
                    await connection.execute("SET synchronous_commit = local")
                    while True:
                        patience.reschedule(clock() + longest_s)
                        cursor = await connection.execute(WRITE)
                        ((at,),) = await cursor.fetchall()
                        self.written.append(at)
                        self.wrote.set()
                        await asyncio.sleep(WRITE_PAUSE_S)
            await asyncio.sleep(WRITE_PAUSE_S)


@contextlib.asynccontextmanager
async def writing_to(member: TestNode, *, patience_s: float = 1) -> AsyncIterator[PinnedClient]:
    """A client that writes meanwhile, and connects anew when a write takes longer than its patience."""
    client = PinnedClient(member, patience_s)
    task = asyncio.ensure_future(client.run())
    try:
        yield client
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
