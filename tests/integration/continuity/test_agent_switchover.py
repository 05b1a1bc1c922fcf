"""The agents' part in a planned switchover, on real PostgreSQL: a primary that is quiesced, handed over, and
continued elsewhere or by itself, whatever is killed in between.

All tests share one synchronous cluster; each starts from a healed one, whoever is the primary by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterable

import psycopg
import pytest

from qnwis.agent.processes import processes_in
from qnwis.continuity.lease_messages import Withdrawal
from qnwis.continuity.orders import AnyOrder, DemotionToken, Receipt
from qnwis.providers.errors import Unreachable
from qnwis.providers.nodes import HttpNodes
from qnwis.transport import Transport

from .pg import TestCluster, TestNode, running_cluster
from .scene import Scene, healed, rows, until_gone, until_kept_down


@pytest.fixture(scope="module")
async def shared_cluster() -> AsyncIterator[TestCluster]:
    async with HttpNodes(Transport()) as nodes, running_cluster(nodes, synchronous=True) as cluster:
        yield cluster


@pytest.fixture
async def scene(shared_cluster: TestCluster) -> Scene:
    return await healed(shared_cluster)


async def test_a_switchover_by_hand_loses_no_acknowledged_write(scene: Scene) -> None:
    for member in (scene.primary, scene.standby):
        await scene.order(member, scene.prepare())
    async with writing_to_any(scene.primary, scene.standby) as client:
        await client.until_writes()
        timed = Timed(scene)
        await timed.order("quiesce", scene.primary, scene.quiesce())
        receipt = await timed.order("hand over", scene.primary, scene.hand_over())
        assert receipt.token is not None
        await timed.promises()
        promoted = await timed.order("promote", scene.standby, scene.promote(at=receipt.token))
        await timed.order("follow", scene.other, scene.follow(scene.standby))
        await client.until_writes()
        rejoined = await timed.order("rejoin", scene.primary, scene.rejoin(scene.standby))
        await client.until_writes()
    print(f"{timed}; longest gap between two acknowledged writes {1000 * client.longest_gap_s:.0f} ms")

    assert promoted.changed and rejoined.changed
    await scene.primary.until(
        streaming=True, upstream=scene.standby.node_id, handed_over=False, quiesced=False
    )
    assert client.acknowledged <= await rows(scene.standby)
    await scene.standby.until(writable=True)


class Timed:
    """Gives orders, and keeps how long each took."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._took: list[str] = []

    async def order(self, what: str, member: TestNode, order: AnyOrder) -> Receipt:
        began = time.monotonic()
        receipt = await self._scene.order(member, order)
        self._took.append(f"{what} {1000 * (time.monotonic() - began):.0f} ms")
        return receipt

    async def promises(self) -> None:
        began = time.monotonic()
        members = self._scene.cluster.members.values()
        await asyncio.gather(*(self._scene.promised(member) for member in members))
        self._took.append(f"promises {1000 * (time.monotonic() - began):.0f} ms")

    def __str__(self) -> str:
        return ", ".join(self._took)


class RovingClient:
    """Writes one row after another to the first of some nodes that takes it, and knows which were acknowledged."""

    def __init__(self, members: Iterable[TestNode]) -> None:
        self._members = tuple(members)
        self.acknowledged: set[str] = set()
        self.longest_gap_s = 0.0
        self._last = time.monotonic()
        self._written = asyncio.Event()

    async def run(self) -> None:
        number = 0
        while True:
            for member in self._members:
                with contextlib.suppress(psycopg.Error, TimeoutError):
                    async with asyncio.timeout(5), member.connect() as connection:
                        while True:
                            number += 1
                            name = f"roving {id(self)} {number}"
                            await connection.execute("INSERT INTO rows VALUES (%s)", (name,))
                            self._note(name)
                await asyncio.sleep(0.002)

    def _note(self, name: str) -> None:
        now = time.monotonic()
        if self.acknowledged:
            self.longest_gap_s = max(self.longest_gap_s, now - self._last)
        self._last = now
        self.acknowledged.add(name)
        self._written.set()

    async def until_writes(self, count: int = 20) -> None:
        """Returns after so many more acknowledged writes."""
        async with asyncio.timeout(30):
            for _ in range(count):
                self._written.clear()
                await self._written.wait()


@contextlib.asynccontextmanager
async def writing_to_any(*members: TestNode) -> AsyncIterator[RovingClient]:
    client = RovingClient(members)
    task = asyncio.ensure_future(client.run())
    try:
        yield client
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
