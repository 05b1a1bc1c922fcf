"""The processes of one measurement: Temporal, the nameserver, the played agents and the worker."""

from __future__ import annotations

import asyncio
import base64
import resource
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from temporalio.client import Client

from qnwis.lab.errors import LabError
from qnwis.lab.layout import (
    DNS_PORT,
    METRICS_PORT,
    Block,
    claimed_block,
    prepare_directory,
    write_secret,
)
from qnwis.lab.processes import Processes, Started, last_lines, python_module
from qnwis.lab.temporal_server import TemporalServer, register_search_attributes, start_server
from qnwis.providers.dns import key_file_text
from qnwis.temporal import connect
from workflows.names import SEARCH_ATTRIBUTES

from .control import Control
from .cost import Memory, cpu_s, memory
from .world import NODES, TTL_S, VANTAGE, ZONE, address, cluster_id, register

KEPT = "figures.jsonl"
WORKER, AGENTS, NAMESERVER = "worker", "agents", "nameserver"
READY_WITHIN_S, LOOK_EVERY_S = 60.0, 0.1
IDLE_S = 10.0
"""For so long it is seen what the worker and the server take without a guardian."""
FILES = 2 * NODES
"""Files that a process has open for each cluster: to each node a connection, and an event stream."""
OTHER_FILES = 1000


@dataclass(frozen=True)
class Idle:
    """What a process takes while it holds no cluster."""

    cores: float
    memory: Memory


@dataclass(frozen=True)
class Bed:
    """Everything runs, and no guardian does yet."""

    root: Path
    block: Block
    processes: Processes
    server: TemporalServer
    client: Client
    control: Control
    worker: Started
    agents: Started
    idle_worker: Idle
    idle_temporal: Idle

    @property
    def temporal(self) -> Started:
        assert self.server.process is not None, "it is ours"
        return self.server.process

    @property
    def metrics_url(self) -> str:
        return f"http://{self.block.control}:{METRICS_PORT}/metrics"

    def kill_worker(self) -> None:
        """As a host takes it that is switched off."""
        self.processes.kill(WORKER)

    async def with_another_worker(self) -> Bed:
        """The same with a worker that starts now. Raises LabError where it does not."""
        worker = await _start_worker(self.processes, self.root, self.block, self.server)
        return replace(self, worker=worker)

    def check(self) -> None:
        """Raises LabError if one of the processes has ended."""
        for started in (self.worker, self.agents, self.temporal):
            if not started.alive:
                raise LabError(f"{started.name} has ended; its log ends:\n{last_lines(started.log, 20)}")


@asynccontextmanager
async def made(root: Path, cli: Path, clusters: int, *, wave_size: int) -> AsyncIterator[Bed]:
    """A bed for so many clusters, in a folder made anew. Raises LabError."""
    _allow_files(FILES * clusters + OTHER_FILES)
    prepare_directory(root)
    config, run = root / "config", root / "run"
    for folder in (config, run):
        folder.mkdir()
    processes = _processes(root)
    control = Control()
    key_file = root / "tsig.key"
    write_secret(key_file, key_file_text("qnwis-scale.", base64.b64encode(secrets.token_bytes(32)).decode()))
    try:
        with claimed_block(1) as block:
            await asyncio.to_thread(
                register, config, clusters, wave_size=wave_size, dns=block.nameserver, key_file=key_file
            )
            _start_nameserver(processes, run, block, clusters, key_file)
            agents = await _start_agents(processes, run, clusters)
            server = await start_server(processes, cli, block=block, database=run / "temporal.sqlite")
            await register_search_attributes(server, {key.name: "Keyword" for key in SEARCH_ATTRIBUTES})
            assert server.process is not None, "it is ours"
            worker = await _start_worker(processes, root, block, server)
        idle_worker, idle_temporal = await _idle(worker, server.process)
        client = await connect(server.address)
        yield Bed(
            root,
            block,
            processes,
            server,
            client,
            control,
            worker,
            agents,
            idle_worker,
            idle_temporal,
        )
    finally:
        await control.aclose()
        await asyncio.to_thread(processes.stop_all, grace_s=2.0)


def stop_what_is_left(root: Path) -> None:
    """Of a bench that was killed."""
    _processes(root).stop_all()


def _processes(root: Path) -> Processes:
    return Processes(root / "processes", root / "logs")


def _allow_files(needed: int) -> None:
    """For this process and those that it starts. Raises LabError where the system forbids it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, max(hard, needed)))
    except (ValueError, OSError) as error:
        raise LabError(
            f"{needed} open files are needed, {hard} are allowed; raise that (ulimit -n {needed})"
        ) from error


def _start_nameserver(processes: Processes, run: Path, block: Block, clusters: int, key_file: Path) -> None:
    records = [f"--record={cluster_id(number)}={address(number, 0)}" for number in range(clusters)]
    processes.start(
        NAMESERVER,
        python_module(
            "qnwis.lab.nameserver",
            *("--zone", ZONE, "--ttl", str(TTL_S), *records),
            *("--listen", block.nameserver, "--port", str(DNS_PORT)),
            *("--key-file", str(key_file), "--journal", str(run / "dns.jsonl")),
        ),
        cwd=run,
    )


async def _start_agents(processes: Processes, run: Path, clusters: int) -> Started:
    command = python_module("tests.bench.scale.agents", "--clusters", str(clusters))
    return await _once_it_says("ready", processes.start(AGENTS, command, cwd=run))


async def _start_worker(processes: Processes, root: Path, block: Block, server: TemporalServer) -> Started:
    """The product's own, as a lab starts it."""
    command = python_module(
        "qnwis.cli.qnwis_continuity",
        "worker",
        *("--config-dir", str(root / "config"), "--state-dir", str(root / "run" / "audit")),
        *("--vantage", VANTAGE, "--address", server.address),
        *("--metrics", f"{block.control}:{METRICS_PORT}"),
    )
    log = root / "logs" / f"{WORKER}.log"
    said_before = log.stat().st_size if log.exists() else 0  # by one that was killed
    started = processes.start(WORKER, command, cwd=root / "run")
    return await _once_it_says(f"polls qnwis-vantage-{VANTAGE}", started, said_before)


async def _once_it_says(text: str, started: Started, said_before: int = 0) -> Started:
    """Raises LabError where it does not. `said_before`: bytes of its log that do not count."""
    deadline = time.monotonic() + READY_WITHIN_S
    while text.encode() not in started.log.read_bytes()[said_before:]:
        if not started.alive or time.monotonic() > deadline:
            raise LabError(
                f"{started.name} has not said {text!r} within {READY_WITHIN_S:g} s; its log"
                f" ends:\n{last_lines(started.log, 20)}"
            )
        await asyncio.sleep(LOOK_EVERY_S)
    return started


async def _idle(*parties: Started) -> Sequence[Idle]:
    await asyncio.sleep(2.0)  # what a start leaves to do
    spent = {party.pid: Stopwatch(party.pid) for party in parties}
    await asyncio.sleep(IDLE_S)
    return [Idle(spent[party.pid].cpu_s() / IDLE_S, memory(party.pid)) for party in parties]


class Stopwatch:
    """Of a process's CPU time, from now on."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before_s = cpu_s(pid)

    def cpu_s(self) -> float:
        return cpu_s(self._pid) - self._before_s


def keep_logs(root: Path, kept: Path) -> None:
    """Of a bed that is gone."""
    shutil.rmtree(kept, ignore_errors=True)
    if (root / "logs").exists():
        shutil.copytree(root / "logs", kept)


Say = Callable[[str], None]
"""Takes one line for the person who waits."""
