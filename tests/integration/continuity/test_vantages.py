"""Several vantages on a real Temporal server: who has a say, who abstains, and what a majority is worth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from activities.health import Health, WatchReport, WatchRequest
from qnwis.continuity.detection import Finding
from qnwis.continuity.topology import Node
from qnwis.providers.nodes import Probe
from workers.vantages import vantage_workers
from workflows.guardian import Guardian
from workflows.guardian_state import GuardianView
from workflows.names import vantage_queue

from .conftest import Stage
from .test_guardian import all_healthy, until
from .world import World


class Place:
    """The world as one vantage sees it: some nodes do not answer there."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.blind_to: set[str] = set()

    def __getattr__(self, name: str) -> object:
        return getattr(self._world, name)

    async def probe(self, node: Node, path: str, *, timeout_s: float) -> Probe:
        if node.node_id in self.blind_to:
            return Probe(ok=False, latency_ms=1.0, error="no route to host", error_type="unreachable")
        return await self._world.probe(node, path, timeout_s=timeout_s)


class Freezing(Health):
    """A vantage that reports once, and freezes in each watch that follows: nothing ends, nothing is heard."""

    _has_reported = False

    @activity.defn
    async def watch(self, request: WatchRequest) -> WatchReport:
        if self._has_reported:
            await asyncio.Event().wait()
        self._has_reported = True
        return await super().watch(request)


class Vantages:
    """A guardian over three vantages, each with a worker of its own."""

    def __init__(self, stage: Stage, guardian: WorkflowHandle[Guardian, None]) -> None:
        self.world = stage.world
        self.guardian = guardian
        self._stage = stage
        self.places = {vantage: Place(stage.world) for vantage in stage.world.cluster.vantages}
        self._workers: dict[str, Worker] = {}

    async def start(self, vantage: str) -> None:
        settings = self._stage.settings.model_copy(update={"vantages": (vantage,), "vantages_only": True})
        registry, place = self._stage.providers.registry, self.places[vantage]
        (self._workers[vantage],) = vantage_workers(self._stage.client, settings, registry, place)  # type: ignore[arg-type]
        await self._workers[vantage].__aenter__()

    async def start_freezing(self, vantage: str) -> None:
        watch = Freezing(self._stage.providers.registry, self.world).watch
        queue = vantage_queue(vantage)
        self._workers[vantage] = Worker(self._stage.client, task_queue=queue, activities=[watch])
        await self._workers[vantage].__aenter__()

    async def stop(self, vantage: str) -> None:
        await self._workers.pop(vantage).shutdown()

    async def stop_all(self) -> None:
        for vantage in list(self._workers):
            await self.stop(vantage)

    async def until(self, holds: Callable[[GuardianView], bool]) -> GuardianView:
        return await until(self.guardian, holds)


@pytest.fixture
async def three(client: Client, tmp_path: Path) -> AsyncIterator[Callable[[], Awaitable[Vantages]]]:
    """`await three()`: a healthy cluster that three vantages see."""
    async with AsyncExitStack() as running:

        async def build() -> Vantages:
            stage = Stage.set(client, tmp_path, vantages=3)
            runbooks = stage.settings.model_copy(update={"vantages": ()})
            for worker in stage.workers(runbooks):
                await running.enter_async_context(worker)
            guardian = await stage.start_guardian()
            running.push_async_callback(client.get_workflow_handle(guardian.id).terminate)
            vantages = Vantages(stage, guardian)
            running.push_async_callback(vantages.stop_all)
            for vantage in stage.world.cluster.vantages:
                await vantages.start(vantage)
            await vantages.until(lambda view: all_healthy(view) and not view.abstaining)
            return vantages

        yield build


Three = Callable[[], Awaitable[Vantages]]


def finding(view: GuardianView) -> Finding:
    return view.verdicts["node-1"].finding


async def test_one_vantage_that_sees_a_primary_no_more_is_not_believed(three: Three) -> None:
    on = await three()
    first, second, third = on.places
    on.places[third].blind_to = {"node-1"}

    view = await on.until(lambda v: finding(v) is Finding.PARTITION_SUSPECTED)

    why = view.verdicts["node-1"].why
    assert f"say failed: {third}" in why and f"say healthy: {first}, {second}" in why
    assert on.world.journal == [] and view.history == ()
    on.places[third].blind_to = set()
    view = await on.until(all_healthy)
    assert view.holding is None


async def test_a_majority_fails_a_dead_primary_over_while_one_vantage_is_gone(three: Three) -> None:
    on = await three()
    *_, third = on.places
    await on.stop(third)
    view = await on.until(lambda v: third in v.abstaining)
    assert view.abstaining == {third: view.abstaining[third]} and third not in view.statements
    assert all_healthy(view), "two of three are a majority"

    on.world.kill("node-1")

    view = await on.until(lambda v: v.last_result is not None)
    assert view.last_result is not None and view.last_result.verified
    assert on.world.writable() == ["node-2"]


async def test_one_vantage_of_three_fails_nothing_over_until_another_is_back(three: Three) -> None:
    on = await three()
    first, second, third = on.places
    await on.stop(second)
    await on.stop(third)
    await on.until(lambda v: v.abstaining.keys() == {second, third})

    on.world.kill("node-1")
    view = await on.until(lambda v: v.holding is not None)
    assert "[too_few_vantages]" in (view.holding or "") and f"say failed: {first}" in (view.holding or "")
    assert on.world.writable() == [] and view.history == ()

    await on.start(second)
    view = await on.until(lambda v: v.last_result is not None)
    assert view.last_result is not None and view.last_result.verified


async def test_a_vantage_that_comes_back_has_forgotten_its_old_word(three: Three) -> None:
    """It said healthy an hour ago; what it says now is what it sees now."""
    on = await three()
    *_, third = on.places
    await on.stop(third)
    await on.until(lambda v: third in v.abstaining)
    on.places[third].blind_to = {"node-2"}

    await on.start(third)

    view = await on.until(lambda v: third in v.statements)
    detector = view.statements[third].votes["node-2"].detector
    assert (detector.status, detector.beats) in {("unknown", 1), ("unknown", 2), ("failed", 3)}
    assert view.verdicts["node-2"].status != "failed"


async def test_the_word_of_a_vantage_where_nobody_takes_up_the_watch_does_not_stand(three: Three) -> None:
    """It died between two watches, or while the guardian went on as new."""
    on = await three()
    *_, third = on.places
    said = (await on.until(lambda view: all_healthy(view) and not view.abstaining)).statements
    await on.stop(third)
    await on.guardian.terminate()
    on.guardian = await on._stage.start_guardian(statements=said)
    view = await on.until(lambda v: third in v.abstaining)
    assert third not in view.statements


async def test_a_vantage_that_freezes_abstains_and_its_old_word_counts_no_more(three: Three) -> None:
    on = await three()
    *_, third = on.places
    await on.stop(third)
    await on.until(lambda v: third in v.abstaining)

    await on.start_freezing(third)
    await on.until(lambda v: third in v.statements)
    view = await on.until(lambda v: third in v.abstaining)

    assert view.abstaining[third] == f"not heard from for {on.world.cluster.heartbeat.watch_timeout_sec:g} s"
    assert third not in view.statements and all_healthy(view)
