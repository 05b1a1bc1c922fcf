"""What the agent makes of a database that ends by itself, hangs, freezes, or has no connection left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable

import psycopg
import pytest

from qnwis.agent.journal import JOURNAL, Mark, read_journal
from qnwis.agent.lease import HOLDER
from qnwis.agent.processes import processes_in
from qnwis.continuity.evidence import NodeState
from qnwis.continuity.lease_messages import LastGrant
from qnwis.providers.nodes import HttpNodes
from qnwis.transport import Transport
from tests.looking import WITHIN_S
from tests.no_room import NoRoom

from .pg import TestCluster, TestNode, running_cluster
from .scene import Scene, healed, rows, until_kept_down


@pytest.fixture(scope="module")
async def shared_cluster() -> AsyncIterator[TestCluster]:
    async with HttpNodes(Transport()) as nodes, running_cluster(nodes, synchronous=True) as cluster:
        yield cluster


@pytest.fixture
async def scene(shared_cluster: TestCluster) -> Scene:
    return await healed(shared_cluster)


async def test_a_crashed_database_gives_its_lease_up_at_once_and_comes_back_if_nobody_takes_over(
    scene: Scene,
) -> None:
    await scene.primary.sql("INSERT INTO rows VALUES ('before the crash')")
    epoch = (await scene.primary.state()).epoch
    async with asyncio.timeout(WITHIN_S), scene.primary.watching() as events:
        os.kill(scene.primary.postmaster_pid(), signal.SIGKILL)
        ended = await after_each(events, scene.primary, lambda state: state.database_ended)
        assert (ended.database_up, ended.restarting) == (False, False)
        assert "[database_ended]" in (ended.why_down or "")
        await until_released(scene.standby, scene.other, epoch=epoch)
        back = await after_each(events, scene.primary, lambda state: state.writable)
    assert back.epoch > epoch
    assert (back.database_ended, back.restarting) == (False, False)
    assert "before the crash" in await rows(scene.primary)


async def test_a_run_that_takes_over_after_a_crash_has_no_lease_to_wait_for(scene: Scene) -> None:
    os.kill(scene.primary.postmaster_pid(), signal.SIGKILL)
    await until_released(scene.standby, scene.other)
    for answer in await scene.promised(*scene.cluster.members.values()):
        assert answer.granted is not None
        assert (answer.granted.holder, answer.granted.released) == (scene.primary.node_id, True)
        assert answer.remaining_s == 0

    await scene.fail_over()
    await until_kept_down(scene.primary, "another_held_since")
    await scene.order(scene.primary, scene.rejoin(scene.standby))
    rejoined = await scene.primary.until(streaming=True, upstream=scene.standby.node_id)
    assert not rejoined.database_ended


@pytest.mark.parametrize("receipt", ["kept", "lost"])
async def test_a_promotion_is_known_to_be_done_though_its_node_took_the_lease_up_again_since(
    scene: Scene, receipt: str
) -> None:
    """A run whose promotion was not answered asks again, under the epoch that it has."""
    await scene.primary.power_off()
    await scene.order(scene.standby, scene.promote())
    os.kill(scene.standby.postmaster_pid(), signal.SIGKILL)
    await scene.standby.until(database_ended=True)
    back = await scene.standby.until(writable=True)
    assert back.epoch > scene.epoch
    if receipt == "lost":
        await scene.standby.stop_agent(signal.SIGKILL)
        forget(scene.standby, Mark.DONE)
        await scene.standby.start_agent()
        await scene.standby.until(writable=True)

    answer = await scene.order(scene.standby, scene.promote())
    again = await scene.order(scene.standby, scene.promote())

    assert answer.changed is (receipt == "lost")
    assert again == answer.model_copy(update={"changed": False})
    # The orders that follow are of this epoch: the other nodes promised it to the primary.
    assert answer.epoch == (await scene.standby.state()).epoch > scene.epoch
    await scene.order(scene.other, scene.follow(scene.standby, epoch=answer.epoch))
    assert await scene.refused(scene.standby, scene.promote("of another run")) == "epoch_superseded"


def forget(member: TestNode, mark: Mark) -> None:
    """Take the last line of the journal away, which is such a one, as if the agent had died before it."""
    file = member.folder / "state" / JOURNAL
    lines, _, _ = read_journal(file)
    assert lines[-1].mark is mark
    file.write_bytes(b"\n".join(file.read_bytes().splitlines()[:-1]) + b"\n")


async def test_a_crashed_database_stays_down_while_a_run_has_its_promises(scene: Scene) -> None:
    os.kill(scene.primary.postmaster_pid(), signal.SIGKILL)
    await scene.primary.until(database_ended=True)
    await scene.promised(scene.standby, scene.other)
    await until_kept_down(scene.primary, "reserved")
    assert (await scene.primary.state()).database_ended


async def test_a_release_that_a_full_disk_does_not_take_is_told_to_nobody_and_a_run_takes_over(
    scene: Scene,
) -> None:
    disk = NoRoom(scene.primary.folder / "state" / HOLDER)
    disk.fill()
    try:
        os.kill(scene.primary.postmaster_pid(), signal.SIGKILL)
        await scene.primary.until(database_ended=True)
        await until_kept_down(scene.primary, "state_not_written")
        for peer in (scene.standby, scene.other):
            granted = peer.grants().granted
            assert granted is not None and not granted.released
        await scene.fail_over()
        assert scene.primary.agent_runs
    finally:
        disk.free()
    await until_kept_down(scene.primary, "another_held_since")


async def test_a_release_reaches_a_peer_that_was_away(scene: Scene) -> None:
    away = scene.other.agent_pid()
    os.kill(away, signal.SIGSTOP)
    try:
        os.kill(scene.primary.postmaster_pid(), signal.SIGKILL)
        await scene.primary.until(database_ended=True)
        await until_released(scene.standby)
    finally:
        os.kill(away, signal.SIGCONT)
    await until_released(scene.other)


async def test_a_crashed_database_is_restarted_under_its_lease_where_the_agent_gives_it_time(
    scene: Scene,
) -> None:
    async with configured(scene.primary, local_restart_s=20.0):
        await scene.primary.sql("INSERT INTO rows VALUES ('before the crash')")
        before = await scene.primary.state()
        ends = len(scene.primary.logged("lease_over"))
        async with asyncio.timeout(WITHIN_S), scene.primary.watching() as events:
            os.kill(scene.primary.postmaster_pid(), signal.SIGKILL)
            told = await anext(events)
            back = await after_each(events, scene.primary, lambda state: state.writable)
        assert (told.database_up, told.in_hand) == (False, True)
        # The restart may be over before anybody has asked.
        assert scene.primary.logged("database_ended")[-1]["restarting"] is True
        assert back.epoch == before.epoch
        assert len(scene.primary.logged("lease_over")) == ends
        assert "before the crash" in await rows(scene.primary)

        # A second end so soon is no accident: that is left to a failover.
        os.kill(scene.primary.postmaster_pid(), signal.SIGKILL)
        ended = await scene.primary.until(database_ended=True)
        assert not ended.restarting
        await scene.primary.until(writable=True)


async def test_a_restart_that_takes_too_long_gives_the_lease_up(scene: Scene) -> None:
    async with configured(scene.primary, local_restart_s=1e-9):
        os.kill(scene.primary.postmaster_pid(), signal.SIGKILL)
        ended = await scene.primary.until(database_ended=True)
        assert not ended.restarting
        await until_released(scene.standby, scene.other)
        assert scene.primary.logged("restart_too_slow")
        await scene.primary.until(writable=True)


async def test_a_crashed_standby_says_so_and_comes_back(scene: Scene) -> None:
    async with asyncio.timeout(WITHIN_S), scene.standby.watching() as events:
        os.kill(scene.standby.postmaster_pid(), signal.SIGKILL)
        ended = await after_each(events, scene.standby, lambda state: state.database_ended)
        assert not ended.database_up
        back = await after_each(events, scene.standby, lambda state: state.streaming)
    assert not back.database_ended
    assert (await scene.primary.state()).writable


@pytest.mark.parametrize("role", ["primary", "other"])
async def test_a_hung_postmaster_is_not_up_though_its_backends_answer(scene: Scene, role: str) -> None:
    member: TestNode = getattr(scene, role)
    async with member.connect() as connection:
        postmaster = member.postmaster_pid()
        os.kill(postmaster, signal.SIGSTOP)
        try:
            hung = await member.until(database_up=False)
            assert "no new connection" in (hung.why_down or "")
            assert not hung.writable
            await connection.execute("SELECT 1")
            # Who asks again hears it before a prober's patience ends.
            again = await scene.cluster.nodes.state(member.node, timeout_s=0.8)
            assert not again.database_up
        finally:
            os.kill(postmaster, signal.SIGCONT)
        await member.until(database_up=True, writable=role == "primary")
        await connection.execute("SELECT 1")


async def test_a_frozen_database_is_not_up(scene: Scene) -> None:
    frozen = processes_in(scene.other.data_dir)
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        state = await scene.other.state()
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    assert not state.database_up and state.why_down is not None
    await scene.other.until(database_up=True, streaming=True)


async def test_exhausted_connections_are_not_ready_but_up(scene: Scene) -> None:
    async with contextlib.AsyncExitStack() as taken:
        with pytest.raises(psycopg.OperationalError, match=r"too many clients|remaining connection slots"):
            while True:
                await taken.enter_async_context(scene.other.connect())
        probe = await scene.cluster.nodes.probe(scene.other.node, "/health/ready", timeout_s=WITHIN_S)
        assert (probe.ok, probe.error_type) == (False, "http_503")
        assert (await scene.other.state()).database_up

        # An agent that finds not even a reserved connection still knows that the database is up.
        await scene.other.stop_agent(signal.SIGKILL)
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                await taken.enter_async_context(scene.other.connect())
        await scene.other.start_agent()
        state = await scene.other.state()
        assert (state.database_up, state.in_recovery) == (True, None)
        assert not (await scene.cluster.nodes.probe(scene.other.node, "/health/ready", timeout_s=WITHIN_S)).ok
    await scene.other.until(streaming=True)
    assert (await scene.cluster.nodes.probe(scene.other.node, "/health/ready", timeout_s=WITHIN_S)).ok


async def after_each(
    events: AsyncIterator[object], member: TestNode, wanted: Callable[[NodeState], bool]
) -> NodeState:
    """The state as seen after one of the node's events, the first that is as wanted."""
    while True:
        await anext(events)
        state = await member.state()
        if wanted(state):
            return state


async def until_released(*members: TestNode, epoch: int | None = None) -> None:
    """Returns when these agents have the release of their last grant on their disks; or, with `epoch`, a
    grant of a later one, which whoever returned by itself is given only after that."""
    async with asyncio.timeout(WITHIN_S):
        for member in members:
            while not _is_over(member.grants().granted, epoch):
                await asyncio.sleep(0.01)


def _is_over(granted: LastGrant | None, epoch: int | None) -> bool:
    if granted is None:
        return False
    return granted.released or (epoch is not None and granted.epoch > epoch)


@contextlib.asynccontextmanager
async def configured(member: TestNode, **changes: object) -> AsyncIterator[None]:
    """The node's agent runs with these changes, and afterwards without them."""
    original = member.config.read_text()

    async def again() -> None:
        await member.stop_agent()
        await member.start_agent()
        await member.until(writable=True)

    member.configure(**changes)
    await again()
    try:
        yield
    finally:
        member.config.write_text(original)
        await again()
