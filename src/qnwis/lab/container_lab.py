"""The cluster of `docker-compose.yml`, brought up, written to, broken, repaired and taken down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import Self

from temporalio.client import Client, WorkflowHandle

from qnwis.continuity.run import RunResult
from qnwis.continuity.topology import Cluster
from qnwis.temporal import NoServer, connect
from workflows.guardian import Guardian
from workflows.names import failover_id
from workflows.primary_failure import PrimaryFailure

from .acks import AckLog, Row, ack_log
from .compose import NETWORK, SLOW_S, Compose
from .container_setup import CLUSTER_ID, PG_BIN, SHAPE, container_cluster
from .control_plane import next_run, watched
from .errors import LabError
from .history import by_time, from_line
from .layout import Block
from .postgres import APP_DATABASE, SUPERUSER
from .temporal_server import Say

WRITERS = "writers"
READY_WITHIN_S = 120.0
LOOK_EVERY_S = 0.5


@dataclass
class ContainerLab:
    """Its containers and volumes are there until `stop`."""

    compose: Compose
    cluster: Cluster = field(init=False)
    _starts: int = 0
    """Of the clients; each has a history of its own."""

    def __post_init__(self) -> None:
        network = IPv4Network(f"{self.compose.environment[NETWORK]}.0/24")
        self.cluster = container_cluster(Block(number=0, network=network))

    @classmethod
    async def create(cls, file: Path, project: str, say: Say) -> Self:
        """Build the images and start everything; returns when compose says that it has. Raises LabError."""
        compose = await asyncio.to_thread(Compose.found, file, project)
        lab = cls(compose)
        say(f"building the images with `{' '.join(compose.command)}` (some minutes, once)")
        await asyncio.to_thread(compose.do, "build", within_s=SLOW_S)
        try:
            say(f"starting keys, three nodes, DNS, Temporal, two workers, API, Prometheus in {project}")
            await asyncio.to_thread(compose.do, "up", "--detach", within_s=SLOW_S)
        except BaseException:
            await lab.stop()
            raise
        return lab

    async def stop(self) -> None:
        """Take down every container, volume and network of it."""
        await self._do("--profile", "tools", "down", "--volumes", "--remove-orphans")

    async def start_clients(self, count: int = 4, *, pause_ms: float = 2.0) -> None:
        """Start the clients of the service's name; returns when each has had a write acknowledged."""
        self._starts += 1
        settings = {"CLIENTS": str(count), "PAUSE_MS": str(pause_ms), "HISTORY": self._history}
        await self._do("up", "--detach", "--no-deps", WRITERS, settings=settings)

        async def writing() -> str | None:
            try:
                log = await asyncio.to_thread(self.ack_log)
            except LabError as error:  # their container is up before they have begun to write
                return str(error)
            silent = {str(number) for number in range(count)} - {ack.client for ack in log.acks}
            return f"clients {sorted(silent)} have written nothing; {log.errors[:3]}" if silent else None

        await until(writing, "the clients")

    async def stop_clients(self) -> None:
        await self._do("stop", WRITERS)

    async def kill_node(self, node_id: str) -> int:
        """SIGKILL the node's container; how many processes it had."""
        processes = await asyncio.to_thread(self.compose.processes, node_id)
        await self.kill(node_id)
        return processes

    async def kill(self, service: str) -> None:
        """SIGKILL its container."""
        await asyncio.to_thread(self.compose.kill, service)

    async def start(self, service: str) -> None:
        """Start a container that was killed; returns when its health check passes."""
        await self._do("start", service)

        async def healthy() -> str | None:
            health = await asyncio.to_thread(self.compose.health, service)
            return None if health == "healthy" else f"its health check says {health}"

        await until(healthy, service)

    async def command(self, *arguments: str) -> str:
        """What `qnwis-continuity` with these arguments prints; as bob, in a container of its own."""
        return await self._do("run", "--rm", "--no-deps", "-T", "cli", *arguments)

    async def rows(self, node_id: str) -> set[Row]:
        """The clients' rows in a node's database. Raises LabError."""
        listens = self.cluster.node(node_id).database
        assert listens is not None
        found = await asyncio.to_thread(
            self.compose.execute,
            node_id,
            *("env", "PGPASSFILE=/node/pgpass", str(PG_BIN / "psql")),
            *("-h", listens.host, "-p", str(listens.port), "-U", SUPERUSER, "-d", APP_DATABASE),
            *("--no-psqlrc", "-qAt", "-F", " ", "-c", "SELECT client, n FROM rows"),
        )
        return {(client, int(n)) for client, n in (line.split() for line in found.splitlines())}

    def ack_log(self) -> AckLog:
        """What the clients have seen since they were started last."""
        text = self.compose.copy(WRITERS, f"/private/{self._history}")
        return ack_log(by_time(map(from_line, text[: text.rfind(b"\n") + 1].splitlines())))

    @property
    def _history(self) -> str:
        return f"history-{self._starts}.jsonl"

    async def _do(self, *arguments: str, settings: Mapping[str, str] = {}) -> str:
        return await asyncio.to_thread(self.compose.do, *arguments, settings=settings)


@dataclass
class ContainerControl:
    """What watches the cluster and fails it over, in containers as well."""

    lab: ContainerLab
    client: Client
    guardian: WorkflowHandle[Guardian, None]
    last_run: WorkflowHandle[PrimaryFailure, RunResult] | None = None
    """The failover that was seen last."""

    @classmethod
    async def reached(cls, lab: ContainerLab) -> Self:
        """Returns when the guardian sees every node healthy. Raises LabError."""
        address = f"127.0.0.1:{lab.compose.environment['TEMPORAL_PORT']}"
        try:
            client = await connect(address)
        except NoServer as error:
            raise LabError(str(error)) from error
        return cls(lab, client, await watched(client, lab.cluster))

    async def all_healthy(self) -> None:
        """Returns when the guardian sees every node healthy. Raises LabError."""
        await watched(self.client, self.lab.cluster)

    async def primary(self) -> str:
        """node_id, as the guardian sees it. Raises LabError where it sees none."""
        found = (await self.guardian.query(Guardian.view)).primary_node_id
        if found is None:
            raise LabError("the guardian sees no primary")
        return found

    async def bring_back(self, node_id: str) -> str:
        """Start a node that was killed and have it follow the present primary; what it says. Returns when the
        guardian sees every node healthy. Raises LabError."""
        await self.lab.start(node_id)
        said = await self.lab.command("rejoin", node_id, "--cluster", "/config/cluster.yaml")
        await self.all_healthy()
        return said.strip()

    async def cooldown_over(self) -> None:
        """Returns when the guardian may start a failover again after the last one."""
        if self.last_run is not None:
            ended_at = (await self.last_run.result()).ended_at
            cooldown_s = float(str(SHAPE.policy["cooldown_s"]))
            await asyncio.sleep(cooldown_s - (datetime.now(UTC) - ended_at).total_seconds())

    async def next_run(self, *, within_s: float) -> WorkflowHandle[PrimaryFailure, RunResult]:
        """The next failover run. Raises LabError when none starts in time."""
        self.last_run = await next_run(
            self.client,
            self.guardian,
            self.lab.cluster.cluster_id,
            within_s=within_s,
            after=None if self.last_run is None else self.last_run.run_id,
        )
        return self.last_run

    def run_url(self, run_id: str) -> str | None:
        """The Temporal UI's page of a failover run."""
        port, workflow_id = self.lab.compose.environment["TEMPORAL_UI_PORT"], failover_id(CLUSTER_ID)
        return f"http://127.0.0.1:{port}/namespaces/default/workflows/{workflow_id}/{run_id}"


async def until(missing: Callable[[], Awaitable[str | None]], what: str) -> None:
    """Ask until nothing is missing. Raises LabError with the reason when the time is up."""
    deadline = time.monotonic() + READY_WITHIN_S
    while (reason := await missing()) is not None:
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not ready within {READY_WITHIN_S:g} s ({reason})")
        await asyncio.sleep(LOOK_EVERY_S)
