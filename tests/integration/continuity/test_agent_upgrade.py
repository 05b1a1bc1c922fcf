"""An agent that executes itself anew: its database, its guards and its lease go on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from qnwis.continuity.lease_messages import LeaseTerms
from qnwis.providers.nodes import HttpNodes
from qnwis.transport import Transport
from tests.looking import WITHIN_S, Looks

from .pg import TestCluster, TestNode, running_cluster
from .scene import Scene, healed, until_gone, writing_to


@pytest.fixture(scope="module")
async def shared_cluster() -> AsyncIterator[TestCluster]:
    async with HttpNodes(Transport()) as nodes, running_cluster(nodes, synchronous=True) as cluster:
        yield cluster


@pytest.fixture
async def scene(shared_cluster: TestCluster) -> Scene:
    return await healed(shared_cluster)


async def held_on(member: TestNode) -> tuple[object, ...]:
    """What an upgrade must leave as it is."""
    state = await member.state()
    ends = len(member.logged("lease_over")) + len(member.logged("database_ended"))
    return member.agent_pid(), member.postmaster_pid(), member.guard_pids(), state.epoch, ends


async def test_an_upgrade_under_write_load_stops_no_write_and_loses_no_lease(scene: Scene) -> None:
    before = await held_on(scene.primary)
    async with writing_to(scene.primary, patience_s=10) as client:
        for _ in range(3):
            client.wrote.clear()
            await client.wrote.wait()
            await scene.primary.execute_anew()
            (started,) = scene.primary.logged("agent_started")[-1:]
            assert (started["adopted"], started["goes_on"]) == (True, True)
        # Until the lease that was handed on has run out, and one renewed by the new program is what counts.
        renewed = client.written[-1] + LeaseTerms().duration_s
        async with asyncio.timeout(WITHIN_S):
            while client.written[-1] < renewed:
                client.wrote.clear()
                await client.wrote.wait()
        assert client.connections == 1
    assert await held_on(scene.primary) == before


async def test_every_agent_of_a_cluster_is_upgraded_to_other_terms_without_an_interruption(
    scene: Scene,
) -> None:
    before = await held_on(scene.primary)
    shorter = LeaseTerms(duration_s=2.9, renew_every_s=0.25).model_dump()
    # Shorter terms reach the holder first: it may count on no more than its grantors are bound by.
    members = [scene.primary, scene.standby, scene.other]
    async with writing_to(scene.primary, patience_s=10) as client:
        for member in members:
            member.configure(lease=shorter)
            await member.execute_anew()
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while any((g := m.grants().granted) is None or g.duration_s != 2.9 for m in members):
                await looks.again()
        assert client.connections == 1
        for member in reversed(members):
            member.configure(lease=LeaseTerms().model_dump())
            await member.execute_anew()
        assert client.connections == 1
    assert await held_on(scene.primary) == before


async def test_an_upgrade_that_would_not_start_is_left_alone(scene: Scene) -> None:
    before, original = await held_on(scene.primary), scene.primary.config.read_text()
    scene.primary.config.write_text("lease: {duration_s: -1}")
    try:
        await scene.primary.execute_anew()
    finally:
        scene.primary.config.write_text(original)
    (said,) = scene.primary.logged("agent_not_executed_anew")[-1:]
    assert "lease.duration_s" in said["reason"]
    assert await held_on(scene.primary) == before


async def test_an_upgrade_to_an_address_or_a_folder_that_cannot_be_used_is_left_alone(scene: Scene) -> None:
    before, original = await held_on(scene.primary), scene.primary.config.read_text()
    assert scene.primary.node.database is not None
    faults: dict[str, dict[str, object]] = {
        "cannot listen on 192.0.2.1": {"listen_host": "192.0.2.1", "plain_http": True},
        "tls: Value error, is absent, and listen_host is 192.0.2.1": {"listen_host": "192.0.2.1"},
        "cannot listen on 127.0.7": {"listen_port": scene.primary.node.database.port},
        "state_dir is": {"state_dir": str(scene.primary.folder / "blank")},
    }
    for said, change in faults.items():
        scene.primary.configure(**change)
        try:
            await scene.primary.execute_anew()
        finally:
            scene.primary.config.write_text(original)
        (left_alone,) = scene.primary.logged("agent_not_executed_anew")[-1:]
        assert said in left_alone["reason"]
    assert await held_on(scene.primary) == before


async def test_an_upgrade_to_files_that_cannot_be_used_is_left_alone(scene: Scene) -> None:
    before, password = await held_on(scene.primary), scene.cluster.root / "super.password"
    away = password.rename(password.with_suffix(".away"))
    try:
        await scene.primary.execute_anew()
    finally:
        away.rename(password)
    (said,) = scene.primary.logged("agent_not_executed_anew")[-1:]
    assert f"{password}: cannot be read" in said["reason"]
    assert await held_on(scene.primary) == before


async def test_after_an_upgrade_a_crash_is_seen_at_once_and_the_guards_still_obey(scene: Scene) -> None:
    await scene.primary.execute_anew()
    postmaster = scene.primary.postmaster_pid()
    os.kill(postmaster, signal.SIGKILL)
    await scene.primary.until(database_ended=True)
    assert not Path(f"/proc/{postmaster}").exists(), "it was waited for"
    await scene.primary.until(writable=True)

    await scene.primary.execute_anew()
    guards = scene.primary.guard_pids()
    await scene.primary.stop_agent(signal.SIGKILL)
    await until_gone(scene.primary)
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while set(guards) & set(scene.primary.guard_pids()):
            await looks.again()
