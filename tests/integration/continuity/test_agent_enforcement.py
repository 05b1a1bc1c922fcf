"""The lease's end on real PostgreSQL: no write is acknowledged after it, whatever is frozen or killed.

A run that lies orders the promotion of a standby as soon as a majority promised it the epoch, while a client
goes on writing to the old primary. Once the standby is granted the lease, nothing that the old primary does
may be acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from qnwis.agent.guarding import COUNT
from qnwis.providers.nodes import HttpNodes
from qnwis.transport import Transport
from tests.looking import WITHIN_S, Looks

from .pg import TestCluster, running_cluster
from .scene import PinnedClient, Scene, healed, until_gone, writing_to


@pytest.fixture(scope="module")
async def shared_cluster() -> AsyncIterator[TestCluster]:
    async with HttpNodes(Transport()) as nodes, running_cluster(nodes, synchronous=True) as cluster:
        yield cluster


@pytest.fixture
async def scene(shared_cluster: TestCluster) -> Scene:
    return await healed(shared_cluster)


def pids(scene: Scene, client: PinnedClient, targets: str) -> list[int]:
    primary = scene.primary
    found = {
        "postmaster": lambda: primary.postmaster_pid(),
        "backend": lambda: client.backend,
        "agent": primary.agent_pid,
        "guard": lambda: primary.guard_pids()[0],
        "other guard": lambda: primary.guard_pids()[1],
    }
    return [found[target]() for target in targets.split("+")]


TARGETS = (
    "postmaster",
    "backend",
    "agent",
    "guard",
    "guard+other guard",
    "agent+guard",
    "agent+postmaster",
)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
@pytest.mark.parametrize("targets", TARGETS)
async def test_no_write_is_acknowledged_after_the_lease(
    scene: Scene, targets: str, number: signal.Signals
) -> None:
    before = len(scene.standby.logged("lease_held"))
    async with writing_to(scene.primary) as client:
        await client.wrote.wait()
        for pid in pids(scene, client, targets):
            os.kill(pid, number)
        # A frozen one does not answer.
        asking = [scene.promised(member, timeout_s=1) for member in scene.cluster.members.values()]
        await asyncio.gather(*asking, return_exceptions=True)
        assert (await scene.order(scene.standby, scene.promote())).changed
        granted = scene.standby.logged("lease_held")[before:]
        # An old primary that goes on is given the time to be caught at it.
        client.wrote.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(client.wrote.wait(), 1)
    granted_at = datetime.fromisoformat(granted[0]["at"]).timestamp()
    assert client.written
    late = [at - granted_at for at in client.written if at >= granted_at]
    assert not late, f"{len(late)} writes up to {max(late):.3f} s after the grant"
    await until_gone(scene.primary)
    await scene.primary.power_off()


async def test_a_guard_that_is_killed_is_replaced(scene: Scene) -> None:
    killed, other = scene.primary.guard_pids()
    os.kill(killed, signal.SIGKILL)
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while killed in (now := scene.primary.guard_pids()) or len(now) < COUNT:
            await looks.again()
    assert other in now
    assert (await scene.primary.state()).writable


async def test_a_frozen_agent_does_not_keep_its_database_writable(scene: Scene) -> None:
    agent = scene.primary.agent_pid()
    os.kill(agent, signal.SIGSTOP)
    try:
        await until_gone(scene.primary)
    finally:
        os.kill(agent, signal.SIGCONT)
    await scene.primary.until(writable=True)


async def test_a_database_ends_with_its_agent(scene: Scene) -> None:
    await scene.primary.stop_agent(signal.SIGKILL)
    await until_gone(scene.primary)
    await scene.primary.start_agent()
    await scene.primary.until(writable=True)


async def test_a_primary_that_loses_its_majority_stops_though_its_guards_are_frozen(scene: Scene) -> None:
    guards = scene.primary.guard_pids()
    for guard in guards:
        os.kill(guard, signal.SIGSTOP)
    for peer in (scene.standby, scene.other):
        await peer.stop_agent(signal.SIGKILL)
    await until_gone(scene.primary)

    await scene.other.start_agent()
    await scene.primary.until(writable=True)
    await scene.standby.start_agent()


async def test_a_promotion_waits_for_the_lease_of_a_primary_that_nobody_stopped(scene: Scene) -> None:
    """A run that lies: it has its promises, and orders the promotion at once, while the primary serves."""
    await scene.promised(*scene.cluster.members.values())
    promoting = asyncio.ensure_future(scene.order(scene.standby, scene.promote()))
    while not promoting.done():
        writable = [m.node_id for m in scene.cluster.members.values() if await m.serves()]
        assert len(writable) <= 1
    assert (await promoting).changed
    assert not await scene.primary.serves()
