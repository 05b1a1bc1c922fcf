"""A land: clusters in regions, with people and a worker, for what is done to a whole region."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from qnwis.config.registry import Registry
from qnwis.continuity.access import Deed
from qnwis.continuity.approvals import PendingApproval, Vote
from qnwis.continuity.region_run import EvacuateRequest, RegionResult
from qnwis.continuity.run import RunResult
from qnwis.continuity.tokens import PersonRequest
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.notifier import LogNotifier, Notifier
from workers.settings import WorkerSettings
from workers.wiring import Providers, workers_for
from workflows.names import failover_id, region_id
from workflows.primary_failure import PrimaryFailure
from workflows.region_failure import RegionFailure

from .people import Crowd
from .worlds import Worlds, cluster_of, registered

RegionRun = WorkflowHandle[RegionFailure, RegionResult]
WITHIN_S = 60.0
MANY_WITHIN_S = 600.0


@dataclass
class Land:
    """Clusters in regions, with what serves them."""

    client: Client
    worlds: Worlds
    settings: WorkerSettings
    providers: Providers
    region: str
    """Where the primaries are."""

    @classmethod
    def made(
        cls,
        client: Client,
        home: Path,
        *names: str,
        elsewhere: Iterable[str] = (),
        watched: bool = False,
        rules: Mapping[str, Any] | None = None,
        notifier: Notifier | None = None,
    ) -> Land:
        """Clusters whose primary is in the land's region, others `elsewhere`; `watched` from one vantage."""
        tag = uuid.uuid4().hex[:8]
        here, there = f"r1x{tag}", f"r2x{tag}"
        vantages = (f"v{tag}",) if watched else ()
        clusters = [
            cluster_of(f"{name}{tag}", home=own, away=away, vantages=vantages)
            for found, own, away in ((names, here, there), (elsewhere, there, here))
            for name in found
        ]
        config = home / "config"
        worlds = registered(config, clusters, approvals=True, strategy="manual")
        if rules is not None:
            (config / "regions.yaml").write_text(yaml.safe_dump(dict(rules)))
        settings = WorkerSettings(
            config_dir=config, state_dir=home, vantages=vantages, task_queue=f"regions-{tag}"
        )
        double: Any = worlds
        providers = Providers(
            registry=Registry(config),
            nodes=double,
            dns=double,
            hook=double,
            audit=SqliteAuditStore(home / "audit.sqlite", home / "key.pem"),
            notifier=notifier or LogNotifier(),
        )
        return cls(client, worlds, settings, providers, here)

    @property
    def cluster_id(self) -> str:
        """What tokens of people name here."""
        return self.region

    def workers(self) -> list[Worker]:
        runner = UnsandboxedWorkflowRunner()
        return list(workers_for(self.client, self.settings, self.providers, runner=runner))

    def lose(self, region: str) -> None:
        for world in self.worlds.by_cluster.values():
            for node in world.cluster.nodes:
                if node.region == region:
                    world.kill(node.node_id)

    def serving(self) -> dict[str, list[str]]:
        return {name: world.writable() for name, world in self.worlds.by_cluster.items()}

    async def evacuate(self, crowd: Crowd, person: str = "bob", **fields: Any) -> RegionRun:
        request = EvacuateRequest(region=self.region, initiated_by=person, reason="flood", **fields)
        token = crowd.token(person, Deed.START, digest=request.digest)
        return await self.client.start_workflow(
            RegionFailure.run,
            request.model_copy(update={"token": token}),
            id=region_id(self.region, dry_run=request.dry_run),
            task_queue=self.settings.task_queue,
        )

    def run_of(self, name: str) -> WorkflowHandle[PrimaryFailure, RunResult]:
        return self.client.get_workflow_handle_for(PrimaryFailure.run, failover_id(name))


async def pending(run: RegionRun) -> PendingApproval:
    async with asyncio.timeout(WITHIN_S):
        while True:
            found = (await run.query(RegionFailure.progress_view)).approval
            if found is not None:
                return found
            await asyncio.sleep(0.05)


async def approve(crowd: Crowd, run: RegionRun, person: str = "ann") -> None:
    await run.execute_update("approve", crowd.vote(person, await pending(run)), result_type=Vote)


async def say(crowd: Crowd, run: RegionRun, update: str, deed: Deed, request: PersonRequest) -> None:
    token = crowd.token(
        request.by, deed, run_id=run.result_run_id, digest=request.digest, reason=request.reason
    )
    await run.execute_update(update, request.model_copy(update={"token": token}), result_type=str)


async def result_of(run: RegionRun, *, within_s: float = WITHIN_S) -> RegionResult:
    async with asyncio.timeout(within_s):
        return await run.result()
