"""The failure matrix of a region's evacuation: its own activities, and the effects of a cluster it moves.

Two clusters leave in two waves; at each point the evacuation is disturbed. Every cluster ends in a stated
place: moved once, or as it was, or rolled back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import TemporalError
from temporalio.service import RPCError

from qnwis.continuity.region_run import RegionResult
from qnwis.continuity.run import RunOutcome, RunProgress
from qnwis.temporal import connect
from workflows.names import failover_id, region_id

from .land import Land, RegionRun
from .matrix import AGAIN_S, SOON, Hold, Point, aborted, cancelled, reset_to_here, reset_to_the_start
from .people import Crowd

AT_ONCE = 8
WITHIN_S = 120.0
pytestmark = [pytest.mark.matrix, pytest.mark.timeout(600)]


@dataclass
class Case:
    """An evacuation that is held at a point, or watched where there is none."""

    on: Land
    hold: Hold
    run: RegionRun
    crowd: Crowd

    def __post_init__(self) -> None:
        self.serve()
        self.voting = asyncio.create_task(self._vote())

    @property
    def client(self) -> Client:
        return self.on.client

    @property
    def newest(self) -> WorkflowHandle[Any, RegionResult]:
        return self.client.get_workflow_handle(region_id(self.on.region), result_type=RegionResult)

    def serve(self) -> None:
        self.worker = self.on.workers()[0]
        self.serving = asyncio.create_task(self.worker.run())

    async def _vote(self) -> None:
        """Ann agrees to whatever waits for it."""
        voted = set[tuple[str, str]]()
        while True:
            await self.hold.asking.wait()
            await asyncio.sleep(AGAIN_S)
            with contextlib.suppress(TemporalError):
                progress = await self.newest.query("progress", result_type=RunProgress, rpc_timeout=SOON)
                pending = progress.approval
                if pending is None or (vote := (pending.run_id, pending.window.digest)) in voted:
                    continue
                await self.newest.execute_update("approve", self.crowd.vote("ann", pending), rpc_timeout=SOON)
                voted.add(vote)

    async def kill_worker(self) -> None:
        stopping = asyncio.create_task(self.worker.shutdown())
        await asyncio.sleep(0)
        self.hold.lost = True
        self.hold.go_on.set()
        await stopping
        self.on.client = await connect(self.client.service_client.config.target_host)
        self.serve()


@asynccontextmanager
async def held(client: Client, home: Path, at: Point | None) -> AsyncIterator[Case]:
    hold = Hold(at)
    watched = Client(**{**client.config(), "interceptors": [hold]})  # type: ignore[arg-type]
    hold.client = watched
    on = Land.made(watched, home, "a", "b", rules={"wave_size": 1})
    hold.of = frozenset({region_id(on.region), failover_id(next(iter(on.worlds.by_cluster)))})
    on.lose(on.region)
    crowd = Crowd(on)  # type: ignore[arg-type]
    case = Case(on, hold, await on.evacuate(crowd), crowd)
    try:
        yield case
    finally:
        case.voting.cancel()
        hold.go_on.set()
        await case.worker.shutdown()
        await case.serving


async def terminated(case: Case) -> None:
    """And begun anew by somebody; what the first one had begun goes on meanwhile."""
    await case.run.terminate("enough")
    case.hold.go_on.set()
    await case.on.evacuate(case.crowd)


async def worker_killed(case: Case) -> None:
    await case.kill_worker()
    case.hold.asking.set()


Disturbance = Callable[[Any], Awaitable[None]]
STOPPING: tuple[Disturbance, ...] = (cancelled, aborted)
GOING_ON: tuple[Disturbance, ...] = (terminated, reset_to_the_start, reset_to_here, worker_killed)


@pytest.fixture(scope="module")
async def found(client: Client, tmp_path_factory: pytest.TempPathFactory) -> list[Point]:
    """The points of an evacuation that nothing disturbs: its own, and the first cluster's effects."""
    async with held(client, tmp_path_factory.mktemp("passed"), None) as case:
        assert (await case.newest.result()).verified
        return [p for p in dict.fromkeys(case.hold.passed) if p.action_id or p.activity in OWN]


OWN = frozenset({"assess_region", "prove", "open_window", "unmoved", "record_region"})


def test_the_points_are_those_of_the_evacuation_and_of_the_effects_of_what_it_moves(
    found: list[Point],
) -> None:
    own = {point.activity for point in found if not point.action_id}
    assert own == OWN
    kinds = {point.action_id.partition("-")[2].partition("-")[0] for point in found if point.action_id}
    assert {"fence", "promote", "flip"} <= kinds


@pytest.mark.parametrize("disturbance", [*STOPPING, *GOING_ON], ids=lambda d: d.__name__)
async def test_wherever_an_evacuation_is_disturbed_every_cluster_ends_in_a_stated_place(
    client: Client, tmp_path: Path, found: list[Point], disturbance: Disturbance
) -> None:
    turn = asyncio.Semaphore(AT_ONCE)

    async def hit(number: int, point: Point) -> str:
        async with turn, held(client, tmp_path / str(number), point) as case:
            try:
                async with asyncio.timeout(WITHIN_S):
                    await case.hold.reached.wait()
                    await disturbance(case)
                    case.hold.go_on.set()
                    result = await case.newest.result()
                    for name in case.on.worlds.by_cluster:
                        await ended(case, name)
                    return wrong(case, result, point, stopping=disturbance in STOPPING)
            except Exception as error:
                return f"{type(error).__name__}: {error}; {case.on.serving()}"

    ends = await asyncio.gather(*(hit(number, point) for number, point in enumerate(found)))
    assert {str(p): end for p, end in zip(found, ends, strict=True) if end} == {}


async def ended(case: Case, name: str) -> None:
    """Return when no run of this cluster goes on."""
    with contextlib.suppress(RPCError):  # none was begun
        await case.on.run_of(name).result()


def wrong(case: Case, result: RegionResult, point: Point, *, stopping: bool) -> str:
    """What is not as it must be; empty when all is."""
    places = {}
    for name, world in case.on.worlds.by_cluster.items():
        if world.writable_at_most > 1 or len(world.journal) != len(set(world.journal)):
            return f"{name}: {world.writable_at_most} primaries, {world.journal}"
        first, third = (world.cluster.node(f"{name}-{n}").hostname for n in (1, 3))
        moved = (world.writable(), world.address) == ([f"{name}-3"], third)
        as_it_was = (world.writable(), world.address) == ([], first)
        if not (moved or (as_it_was and world.changes("promote") == [])):
            return f"{name}: {world.writable()} at {world.address}, {world.journal}"
        places[name[0]] = moved
    if not stopping:
        return "" if all(places.values()) else f"not all moved: {places}, {result.reason}"
    agreed = {RunOutcome.COMPLETED: 2, RunOutcome.UNTOUCHED: 0, RunOutcome.ROLLED_BACK: 0}
    said = agreed.get(result.outcome, 1)
    return "" if said == sum(places.values()) else f"{result.outcome} and {places}: {result.reason}"
