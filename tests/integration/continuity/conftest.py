"""Session-wide real parts: a Temporal dev server; and, per test, a worker around a world in memory."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from qnwis.config.registry import Registry
from qnwis.continuity.run import FailoverRequest, RunResult
from qnwis.lab.layout import Block, claimed_block, default_directory
from qnwis.lab.processes import Processes
from qnwis.lab.temporal_server import (
    PROCESS_NAME,
    TemporalServer,
    obtain_server,
    start_server,
    stop_server,
)
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.notifier import LogNotifier, Notifier
from qnwis.temporal import connect
from workers.settings import WorkerSettings
from workers.wiring import Providers, workers_for
from workflows.guardian import Guardian
from workflows.guardian_state import GuardianState
from workflows.names import SEARCH_ATTRIBUTES, failover_id, guardian_id
from workflows.primary_failure import PrimaryFailure

from .world import NothingToKeep, World, three_nodes, write_registry

CACHE = default_directory().with_name(default_directory().name + "-cache")
"""Where downloads are kept between test runs."""


@dataclass(frozen=True)
class OwnServer:
    """A real Temporal server with the search attributes, as the lab has it."""

    found: TemporalServer
    processes: Processes
    block: Block
    database: Path

    async def restart(self) -> None:
        """Kill it, and start it again on what it had written."""
        assert self.found.process is not None, "somebody else's server is never killed"
        self.processes.kill(PROCESS_NAME)
        cli = Path(self.found.process.command[0])
        await start_server(self.processes, cli, block=self.block, database=self.database)


@asynccontextmanager
async def dev_server(home: Path) -> AsyncIterator[OwnServer]:
    processes, database = Processes(home / "processes", home / "logs"), home / "temporal.sqlite"
    with claimed_block(0) as block:
        found = await obtain_server(
            processes,
            block=block,
            database=database,
            search_attributes={key.name: "Keyword" for key in SEARCH_ATTRIBUTES},
            cache=CACHE,
            say=print,
        )
        try:
            yield OwnServer(found, processes, block, database)
        finally:
            if found.process is not None:
                stop_server(processes)


@pytest.fixture(scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TemporalServer]:
    """The real dev server, once for all tests; they keep apart by ids and task queues."""
    async with dev_server(tmp_path_factory.mktemp("temporal")) as own:
        yield own.found


@pytest.fixture(scope="session")
async def client(server: TemporalServer) -> Client:
    return await connect(server.address)


@dataclass
class Stage:
    """One cluster in memory, registered, with a worker that serves it."""

    client: Client
    world: World
    settings: WorkerSettings
    providers: Providers

    @classmethod
    def set(
        cls,
        client: Client,
        home: Path,
        *,
        cluster: dict[str, object] | None = None,
        notifier: Notifier | None = None,
        vantages: int = 1,
        **policy: object,
    ) -> Stage:
        """Register a cluster of three nodes; `cluster` and policy fields differ from the default."""
        differing = dict(cluster or {})
        cluster_id = str(differing.pop("cluster_id", f"c{uuid.uuid4().hex[:8]}"))
        places = [f"{cluster_id}-{number}" for number in range(1, vantages + 1)]
        world = World.of(three_nodes(cluster_id, vantages=places, **differing))
        settings = WorkerSettings(
            config_dir=write_registry(home / "config", world.cluster, **policy),
            state_dir=home,
            vantages=tuple(places),
            task_queue=f"runbooks-{cluster_id}",
        )
        providers = Providers(
            registry=Registry(settings.config_dir),
            nodes=world,
            dns=world,
            hook=world,
            audit=SqliteAuditStore(home / "audit.sqlite", home / "key.pem"),
            notifier=notifier or LogNotifier(),
            upkeeps=NothingToKeep(),
        )
        return cls(client, world, settings, providers)

    @property
    def cluster_id(self) -> str:
        return self.world.cluster.cluster_id

    async def start(self, *, workflow_id: str | None = None, **request: object) -> Run:
        """Start a run, as a person would."""
        asked = FailoverRequest.model_validate(
            {"cluster_id": self.cluster_id, "initiated_by": "ann", "reason": "test", **request}
        )
        return await self.client.start_workflow(
            PrimaryFailure.run,
            asked,
            id=workflow_id or failover_id(self.cluster_id, dry_run=asked.dry_run),
            task_queue=self.settings.task_queue,
        )

    async def start_guardian(self, **state: object) -> WorkflowHandle[Guardian, None]:
        return await self.client.start_workflow(
            Guardian.run,
            GuardianState.model_validate({"cluster_id": self.cluster_id, **state}),
            id=guardian_id(self.cluster_id),
            task_queue=self.settings.task_queue,
        )

    def workers(self, settings: WorkerSettings | None = None) -> list[Worker]:
        """A further set of workers, as a new process would bring."""
        return list(workers_for(self.client, settings or self.settings, self.providers))


Run = WorkflowHandle[PrimaryFailure, RunResult]
Setting = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def stage(client: Client, tmp_path: Path) -> AsyncIterator[Setting]:
    """Builds a stage: `await stage()`, with `cluster=…` and policy fields to differ from the default."""
    async with AsyncExitStack() as running:

        async def build(
            *, cluster: dict[str, object] | None = None, serve: bool = True, **policy: object
        ) -> Stage:
            built = Stage.set(client, tmp_path, cluster=cluster, **policy)
            if serve:
                for worker in built.workers():
                    await running.enter_async_context(worker)
            return built

        yield build
