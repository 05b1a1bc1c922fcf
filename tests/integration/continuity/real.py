"""A lab with its control plane under test: healed before each test, and what its journals say was done."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError

from qnwis.agent.journal import Line, Mark
from qnwis.agent.processes import processes_in
from qnwis.continuity.evidence import NodeState
from qnwis.continuity.orders import RejoinOrder
from qnwis.continuity.run import RunResult
from qnwis.continuity.topology import NodeStatus
from qnwis.lab.clearing import NAMESERVER
from qnwis.lab.cluster import Lab
from qnwis.lab.control_plane import WORKER, ControlPlane, start_vantage, start_worker
from qnwis.lab.layout import Folder, default_directory, prepare_directory
from qnwis.lab.processes import import_path, python_module
from qnwis.lab.procfs import kill_inside, living_inside
from qnwis.lab.shape import VANTAGES
from qnwis.lab.temporal_server import PROCESS_NAME as TEMPORAL
from qnwis.lab.temporal_server import start_server
from qnwis.providers.errors import Unreachable
from qnwis.providers.nodes import HttpNodes
from tests.looking import WITHIN_S, Looks
from workflows.guardian import Guardian
from workflows.guardian_state import GuardianView
from workflows.names import failover_id
from workflows.primary_failure import PrimaryFailure

Run = WorkflowHandle[PrimaryFailure, RunResult]
PAUSE_MS = 20.0
"""After each write of a lab's client: often enough to see who serves, and nobody is busy with it. Whoever
waits for a write reads all that were made."""
Effect = tuple[str, str]
"""What was changed, and where: ("off", "node-1")."""


@dataclass
class Scene:
    """A healthy cluster under its guardian, with the roles of the moment."""

    lab: Lab
    control: ControlPlane
    nodes: HttpNodes
    primary: str
    target: str
    """The standby that the policy prefers; under a write load the other one may be further on."""
    other: str
    last_run_id: str | None
    """Of the run before this test."""

    def __post_init__(self) -> None:
        self.old_dns_changes = len(self.dns_changes())

    async def state(self, node_id: str) -> NodeState:
        return await self.nodes.state(self.lab.cluster.node(node_id), timeout_s=WITHIN_S)

    async def until_state(self, node_id: str, holds: Callable[[NodeState], bool]) -> NodeState:
        """The node's state, once it is as asked."""
        return await until_state(self.lab, self.nodes, node_id, holds)

    async def until_guardian(self, holds: Callable[[GuardianView], bool]) -> GuardianView:
        """The guardian's view, once it is as asked."""
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while not holds(view := await self.control.guardian.query(Guardian.view)):
                await looks.again()
        return view

    async def next_run(self) -> Run:
        """The run that this test brings about, once there is one."""
        run_id = None
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while (run_id := await latest_run_id(self.control)) in (None, self.last_run_id):
                await looks.again()
        workflow_id = failover_id(self.lab.cluster.cluster_id)
        return self.control.client.get_workflow_handle_for(PrimaryFailure.run, workflow_id, run_id=run_id)

    # What the journals say

    def orders(self, node_id: str, run_id: str) -> list[Line]:
        """The lines of one run in a node's own journal."""
        path = self.lab.machine(node_id).state_dir / "journal.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in map(Line.model_validate_json, lines) if line.order.run_id == run_id]

    def dns_changes(self) -> list[str]:
        """Every address that the service's record was changed to, since the lab began."""
        return [
            address
            for line in json_lines(self.lab.folder.dns_journal)
            for change in line["changes"]
            if change["type"] == "A"
            for address in change["after"]
        ]

    def effects(self, run_id: str) -> list[Effect]:
        """Everything that this run changed in the world, by the journals of those who did it."""
        power = [
            (line["state"], line["node_id"])
            for line in json_lines(self.lab.folder.power_journal)
            if line["effect_id"].startswith(run_id) and line["changed"]
        ]
        orders = [
            (line.order.kind, node.node_id)
            for node in self.lab.cluster.nodes
            for line in self.orders(node.node_id, run_id)
            if line.mark is Mark.INTENT or (line.receipt is not None and line.receipt.changed)
        ]
        dns = [("dns", address) for address in self.dns_changes()[self.old_dns_changes :]]
        return sorted(power + orders + dns)

    def one_failover(self, target: str) -> list[Effect]:
        """The effects of a failover in which each happened once; an order leaves an intent and a receipt."""
        (other,) = {self.target, self.other} - {target}
        return [
            ("dns", self.lab.cluster.node(target).hostname),
            *[("follow", other)] * 2,
            *[("promote", target)] * 2,
        ]

    # Holding a run in the middle

    @contextlib.contextmanager
    def stalled(self, place: str) -> Iterator[None]:
        """Whoever carries this effect out ("promote" or "flip") stands still inside, and then goes on."""
        if place == "promote":
            pid = _startup_process(self.lab.machine(self.target).data_dir)
        else:
            nameserver = self.lab.processes.find(NAMESERVER)
            assert nameserver is not None and nameserver.alive
            pid = nameserver.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    async def until_waiting(self, run: Run, place: str) -> None:
        """Return once the run has begun this effect and waits for it."""
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while not await self._begun(run, place):
                await looks.again()
            if place == "promote":
                looks = Looks()
                while not self.orders(self.target, run.result_run_id or ""):
                    await looks.again()

    async def _begun(self, run: Run, place: str) -> bool:
        with contextlib.suppress(RPCError):
            progress = await run.query(PrimaryFailure.progress_view, rpc_timeout=timedelta(seconds=2))
            return bool(progress.outcomes) and f"-{place}-" in progress.outcomes[-1].action_id
        return False


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def start_command(
    *arguments: str, env: dict[str, str] | None = None, new_session: bool = False
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *python_module("qnwis.cli.qnwis_continuity", *arguments),
        cwd="/",
        env={**os.environ, **import_path(), "NO_COLOR": "1", "COLUMNS": "200", **(env or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=new_session,
    )


async def command(*arguments: str, env: dict[str, str] | None = None) -> Said:
    """Run `qnwis-continuity` as a process of its own, to its end."""
    process = await start_command(*arguments, env=env)
    try:
        async with asyncio.timeout(WITHIN_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())


async def settings_of(lab: Lab) -> dict[str, str]:
    """What `eval "$(qnwis-continuity lab env)"` sets."""
    printed = await command("lab", "env", "--directory", str(lab.folder.root))
    assert printed.code == 0, printed
    words = (shlex.split(line) for line in printed.out.splitlines())
    return dict(word.split("=", 1) for _export, word in words)


@contextlib.contextmanager
def lab_directory() -> Iterator[Path]:
    """A directory for a lab of its own, with the programs that all labs share. Nothing is left of it."""
    root = Path(f"/var/tmp/qnwis-test-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    cache = Folder(root).cache
    cache.symlink_to(prepare_directory(Folder(default_directory()).cache))
    try:
        yield root
    finally:
        kill_inside(root)  # of a test that failed
        shutil.rmtree(root, ignore_errors=True)
        cache.unlink()


@contextlib.asynccontextmanager
async def running_lab(root: Path) -> AsyncIterator[ControlPlane]:
    """A lab with its control plane, whose policy lets one failover follow upon another."""
    lab = await Lab.create(root)
    try:
        policy = lab.folder.config / "policy.yaml"
        often = {"cooldown_s": 0, "max_failovers_per_hour": 100}
        policy.write_text(yaml.safe_dump({**yaml.safe_load(policy.read_text()), **often}))
        yield await ControlPlane.start(lab, print)
    finally:
        await kill(lab)
    assert left_behind(root) == []


async def kill(lab: Lab) -> None:
    """End a lab at once. To be asked to stop takes it seconds, and is tested where demonstrations end."""
    await asyncio.to_thread(kill_inside, lab.folder.root)
    lab.processes.reap()


async def healed(control: ControlPlane, nodes: HttpNodes) -> Scene:
    """Whatever the test before left: every part runs, every node streams from the primary of the moment."""
    lab = control.lab
    if not running(lab, TEMPORAL):
        await restart_temporal(control)
    if not running(lab, WORKER):
        start_worker(lab, control.server)
    for vantage in VANTAGES[1:]:
        if not running(lab, vantage):
            start_vantage(lab, control.server, vantage)
    for node in lab.cluster.nodes:
        lab.machine(node.node_id).power_on()
    members = [node.node_id for node in lab.cluster.nodes]
    states = [await until_state(lab, nodes, node_id, lambda _: True) for node_id in members]
    epoch = max(state.epoch for state in states)
    primary = max(states, key=lambda state: (state.writable, state.epoch)).node_id
    end = (await until_state(lab, nodes, primary, lambda state: state.writable)).write_lsn or 0
    standbys = [node_id for node_id in members if node_id != primary]
    for node_id in standbys:
        effect = f"heal-{node_id}-{uuid.uuid4().hex}"
        order = RejoinOrder(effect_id=effect, run_id="heal", epoch=max(epoch, 1), upstream=primary)
        await nodes.order(lab.cluster.node(node_id), order, timeout_s=WITHIN_S)
        await until_state(lab, nodes, node_id, lambda s: s.streaming and (s.receive_lsn or 0) >= end)

    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while not await guarded(control, primary):
            await looks.again()
    # Of the two standbys the one in the first region is preferred: node-1 and node-2 take turns.
    target = standbys[0]
    return Scene(lab, control, nodes, primary, target, standbys[1], await latest_run_id(control))


async def guarded(control: ControlPlane, primary: str) -> bool:
    """Whether the guardian sees this primary, and every vantage every node healthy."""
    with contextlib.suppress(RPCError):
        view = await control.guardian.query(Guardian.view, rpc_timeout=timedelta(seconds=2))
        healthy = dict.fromkeys(view.statuses, NodeStatus.HEALTHY)
        settled = len(healthy) == 3 and view.statuses == healthy and not view.abstaining
        return view.primary_node_id == primary and settled
    return False


async def latest_run_id(control: ControlPlane) -> str | None:
    handle = control.client.get_workflow_handle(failover_id(control.lab.cluster.cluster_id))
    try:
        return (await handle.describe()).run_id
    except RPCError:
        return None


async def restart_temporal(control: ControlPlane) -> None:
    """Start the server that was killed, on its database."""
    lab = control.lab
    killed = lab.processes.find(TEMPORAL)
    assert killed is not None
    database = lab.folder.run / "temporal.sqlite"
    await start_server(lab.processes, Path(killed.command[0]), block=lab.block, database=database)


def running(lab: Lab, name: str) -> bool:
    found = lab.processes.find(name)
    return found is not None and found.alive


def _startup_process(data_dir: Path) -> int:
    """The process of a standby that replays the log, and ends recovery when it is promoted."""
    (pid,) = [pid for pid in processes_in(data_dir) if " startup " in _command_line(pid)]
    return pid


def left_behind(root: Path) -> list[str]:
    """The command lines of processes that work in this folder or were told of it."""
    inside = set(living_inside(root))
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    told = {pid for pid in pids if pid != os.getpid() and str(root) in _command_line(pid)}
    return [_command_line(pid) for pid in inside | told]


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def json_lines(path: Path) -> list[dict[str, Any]]:
    """A journal, as far as it is written; one that nothing was ever written to does not exist."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def until(condition: Callable[[], bool]) -> None:
    """Return once it holds; other processes bring it about."""
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while not condition():
            await looks.again()


async def until_each_client_writes(lab: Lab, count: int, *, after: int = 0, to: str | None = None) -> None:
    """Return once each client has had a write acknowledged, later than so many or by that server."""

    def writes() -> bool:
        acks = [ack for ack in lab.ack_log().acks[after:] if to in (None, ack.server)]
        return len({ack.client for ack in acks}) == count

    await until(writes)


async def until_state(
    lab: Lab, nodes: HttpNodes, node_id: str, holds: Callable[[NodeState], bool]
) -> NodeState:
    """The node's state, once it is as asked."""
    state = None
    try:
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while True:
                with contextlib.suppress(Unreachable):
                    state = await nodes.state(lab.cluster.node(node_id), timeout_s=2)
                    if holds(state):
                        return state
                await looks.again()
    except TimeoutError:
        raise AssertionError(f"{node_id} never became as asked; last: {state}") from None
