"""A land: clusters in regions, with people and a worker, for what is done to a whole region."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError
from temporalio.worker import Worker

from qnwis.config.registry import Registry
from qnwis.continuity.access import Deed
from qnwis.continuity.approvals import PendingApproval, Vote
from qnwis.continuity.orders import Order
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.region_run import EvacuateRequest, RegionResult
from qnwis.continuity.region_wait import RegionFinding
from qnwis.continuity.run import RunResult
from qnwis.continuity.tokens import PersonRequest
from qnwis.continuity.topology import Cluster, Node
from qnwis.continuity.weights import StepCheck
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.errors import Refused
from qnwis.providers.notifier import LogNotifier, Notifier
from qnwis.providers.region_weights import WeightsChange
from qnwis.starting import start_region_guardian
from tests.looking import WITHIN_S, Looks
from tests.unit.continuity import scenes
from workers.settings import WorkerSettings
from workers.wiring import Providers, workers_for
from workflows.guardian import Guardian
from workflows.guardian_state import GuardianState, GuardianView
from workflows.names import failover_id, guardian_id, region_guardian_id, region_id
from workflows.primary_failure import PrimaryFailure
from workflows.region_failure import RegionFailure
from workflows.region_guardian import RegionGuardian

from .people import Crowd
from .world import write_registry
from .worlds import Worlds, cluster_of, registered

Build = Callable[..., Awaitable[tuple["Land", Crowd]]]
RegionRun = WorkflowHandle[RegionFailure, RegionResult]
MANY_WITHIN_S = 600.0
View = TypeVar("View")


@dataclass
class ActiveActive:
    """An active/active cluster: the weights by which DNS shares its traffic out, what its databases say."""

    cluster: Cluster | None = None
    weights: dict[str, int] = field(default_factory=dict)
    shifts: list[dict[str, int]] = field(default_factory=list)
    """Each that changed something."""
    answers: list[StepCheck] = field(default_factory=list)
    """Of the checks, in their order; when there is none left, all is well."""
    before_shift: Callable[[], None] = lambda: None

    @staticmethod
    def cluster_of(name: str, here: str, there: str) -> Cluster:
        made = [
            scenes.node(
                f"{name}-{n}",
                "primary",
                region,
                hostname=f"10.0.2.{n}",
                weight=weight,
                capacity=80.0,
                record={"set_identifier": region},
            )
            for n, (region, weight) in enumerate(((here, 50), (there, 30), ("r3", 20)))
        ]
        dns = {"zone": "test", "name": name, "route53": {"hosted_zone_id": "Z"}}
        return scenes.cluster(*made, cluster_id=name, deployment="active_active", dns=dns)

    async def in_force(self, cluster: Cluster) -> dict[str, int]:
        self.weights = self.weights or {share.region: share.weight for share in cluster.shares}
        return dict(self.weights)

    async def shift(
        self, cluster: Cluster, *, before: Mapping[str, int], after: Mapping[str, int]
    ) -> WeightsChange:
        self.before_shift()
        if self.weights not in (before, after):
            raise Refused(Refusal(rule="dns_record_changed", message=f"{self.weights}", remedy="-"))
        changed = self.weights != after
        self.weights = dict(after)
        self.shifts += [self.weights] * changed
        return WeightsChange(changed=changed, detail="")

    async def check(self, cluster: Cluster, region: str, others: Collection[str]) -> StepCheck:
        well = StepCheck(writable=True, unsent_bytes=0, unreceived_bytes=0, differing_rows=0)
        return self.answers.pop(0) if self.answers else well


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
        policy: Mapping[str, Any] | None = None,
        notifier: Notifier | None = None,
        active: ActiveActive | None = None,
    ) -> Land:
        """Clusters whose primary is in the land's region, others `elsewhere`; `watched` from one vantage in
        the third region. `policy`: fields that differ. And an active/active one, if `active` stands for its
        DNS and its databases."""
        tag = uuid.uuid4().hex[:8]
        here, there = f"r1x{tag}", f"r2x{tag}"
        vantages = (f"v{tag}",) if watched else ()
        clusters = [
            cluster_of(f"{name}{tag}", home=own, away=away, vantages=vantages)
            for found, own, away in ((names, here, there), (elsewhere, there, here))
            for name in found
        ]
        config = home / "config"
        differing = {"approvals": True, "strategy": "manual", **(policy or {})}
        worlds = registered(config, clusters, **differing)
        if active is not None:
            active.cluster = ActiveActive.cluster_of(f"shop{tag}", here, there)
            write_registry(config, active.cluster, **differing)
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
            weights=active or ActiveActive(),
            checks=active or ActiveActive(),
        )
        return cls(client, worlds, settings, providers, here)

    @property
    def cluster_id(self) -> str:
        """What tokens of people name here."""
        return self.region

    def workers(self) -> list[Worker]:
        return list(workers_for(self.client, self.settings, self.providers))

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

    async def guard(self, **state: Any) -> None:
        """Start the guardian of every cluster."""
        for name in self.worlds.by_cluster:
            await self.client.start_workflow(
                Guardian.run,
                GuardianState.model_validate({"cluster_id": name, **state}),
                id=guardian_id(name),
                task_queue=self.settings.task_queue,
            )

    def guardian_of(self, name: str) -> WorkflowHandle[Guardian, None]:
        return self.client.get_workflow_handle_for(Guardian.run, guardian_id(name))

    async def watch_region(self) -> WorkflowHandle[RegionGuardian, None]:
        """Start the region's guardian; returns when it has told each cluster's that the region is well."""
        guardian = await start_region_guardian(self.client, self.region, self.settings.task_queue)
        for name in self.worlds.by_cluster:
            await self.until(name, lambda view: self.told(view) is RegionFinding.WELL)
        return guardian

    def told(self, view: GuardianView) -> RegionFinding | None:
        heard = view.regions.get(self.region)
        return heard.word.finding if heard is not None else None

    async def until(self, name: str, holds: Callable[[GuardianView], bool]) -> GuardianView:
        """The view of a cluster's guardian once it is as asked. A failure shows the last one."""
        return await until_view(lambda: self.guardian_of(name).query(Guardian.view), holds)

    async def end_guardians(self) -> None:
        for workflow_id in (region_guardian_id(self.region), *map(guardian_id, self.worlds.by_cluster)):
            with contextlib.suppress(RPCError):
                await self.client.get_workflow_handle(workflow_id).terminate("the test is over")

    def run_of(self, name: str) -> WorkflowHandle[PrimaryFailure, RunResult]:
        return self.client.get_workflow_handle_for(PrimaryFailure.run, failover_id(name))


def hold_the_promise(on: Land, cluster_id: str) -> tuple[asyncio.Event, asyncio.Event]:
    """When a run asks for promises, and what lets it go on."""
    reached, go_on = asyncio.Event(), asyncio.Event()
    world = on.worlds.by_cluster[cluster_id]
    promise = world.promise

    async def held(*arguments: Any, **more: Any) -> Any:
        reached.set()
        await go_on.wait()
        return await promise(*arguments, **more)

    world.promise = held  # type: ignore[method-assign]
    return reached, go_on


def hold_the_order(on: Land, cluster_id: str, kind: str) -> tuple[asyncio.Event, asyncio.Event]:
    """When a run gives a node such an order, and what lets that be obeyed."""
    reached, go_on = asyncio.Event(), asyncio.Event()
    world = on.worlds.by_cluster[cluster_id]
    order = world.order

    async def held(node: Node, asked: Order, **more: Any) -> Any:
        if asked.kind == kind:
            reached.set()
            await go_on.wait()
        return await order(node, asked, **more)

    world.order = held  # type: ignore[method-assign]
    return reached, go_on


@asynccontextmanager
async def lands(client: Client, home: Path) -> AsyncIterator[Build]:
    """Builds a land: `await build("a", "b", watched=True, …)`, as `Land.made`, with the people of it; its
    workers and guardians end with it."""
    async with AsyncExitStack() as running:

        async def build(*names: str, serve: bool = True, **how: Any) -> tuple[Land, Crowd]:
            made = Land.made(client, home, *names, **how)
            for worker in made.workers() if serve else ():
                await running.enter_async_context(worker)
            running.push_async_callback(made.end_guardians)
            return made, Crowd(made)  # type: ignore[arg-type]

        yield build


async def until_view(ask: Callable[[], Awaitable[View]], holds: Callable[[View], bool]) -> View:
    view = None
    try:
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while view is None or not holds(view):
                view = await ask()
                await looks.again()
    except TimeoutError:
        pytest.fail(f"never came true; last seen: {view!r}")
    return view


async def pending(run: RegionRun) -> PendingApproval:
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while True:
            found = (await run.query(RegionFailure.progress_view)).approval
            if found is not None:
                return found
            await looks.again()


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
