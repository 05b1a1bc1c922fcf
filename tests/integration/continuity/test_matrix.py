"""The failure matrix: whatever happens to a run, wherever, it ends in a stated place and does nothing twice.

Each point of a run (before and after every activity, so every step and every action of the plan) is hit by
each disturbance, over doubles that journal what really happened. On real processes: `make matrix`.
"""

from __future__ import annotations

import asyncio
import traceback
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from temporalio.client import Client

from qnwis.continuity.run import RunKind, RunOutcome, RunResult
from qnwis.lab.temporal_server import ADDRESS_VARIABLE
from qnwis.runbook import load_runbook
from qnwis.temporal import connect

from .conftest import OwnServer, Stage, dev_server
from .matrix import (
    FAILOVER,
    GOING_ON,
    STOPPING,
    Case,
    Disturbance,
    Point,
    Scene,
    end_of,
    held,
    points,
)

AT_ONCE = 6
"""More runs on two cores, beside those of another file, keep each other from answering in time."""
MINUTES = pytest.mark.timeout(600)
"""Dozens of runs, each bounded by `WITHIN_S`: a slow machine needs minutes for all of them."""
WITHIN_S = 120.0


def refused_promotion(on: Stage) -> None:
    """A rival has used a higher epoch, so that the target refuses this run's order."""

    def rival(effect: str) -> None:
        if effect == "promote":
            on.world.machines["node-2"].epoch = 9_999

    on.world.before_effect = rival


Passed = tuple[list[Point], RunResult]


@pytest.fixture(scope="module")
def kind() -> RunKind:
    return RunKind.PRIMARY_FAILURE


@pytest.fixture(scope="module")
def scene() -> Scene:
    return FAILOVER


@pytest.fixture(scope="module")
def refusing(scene: Scene) -> Scene:
    """The same, and the target refuses its promotion."""
    return replace(scene, prepare=refused_promotion)


@pytest.fixture(scope="module")
async def passed(client: Client, tmp_path_factory: pytest.TempPathFactory, scene: Scene) -> Passed:
    """By a run that nothing disturbs."""
    return await points(client, tmp_path_factory.mktemp("passed"), scene)


@pytest.fixture(scope="module")
def disturbed(passed: Passed) -> list[Point]:
    """Where runs are disturbed."""
    return passed[0]


@pytest.fixture(scope="module")
async def rolled_back(client: Client, tmp_path_factory: pytest.TempPathFactory, refusing: Scene) -> Passed:
    """By a run that undoes what it has begun."""
    return await points(client, tmp_path_factory.mktemp("rolled-back"), refusing)


def test_the_points_are_all_steps_of_the_text_and_all_actions_of_the_plan(
    passed: Passed, kind: RunKind, scene: Scene
) -> None:
    found, result = passed

    assert result.plan is not None
    steps = [step.name for step in load_runbook(kind).steps if step.name not in scene.silent]
    assert list(dict.fromkeys(point.step for point in found)) == steps
    effects = {point.action_id for point in found} - {""}
    last = result.plan.actions[-1]
    assert (effects | {last.action_id}, last.kind) == (
        {action.action_id for action in result.plan.actions},
        "verify_service",
    )


@MINUTES
@pytest.mark.parametrize("disturbance", [*STOPPING, *GOING_ON], ids=lambda d: d.__name__)
async def test_wherever_a_run_is_disturbed_it_ends_in_a_stated_place(
    client: Client,
    tmp_path: Path,
    passed: Passed,
    disturbed: list[Point],
    scene: Scene,
    disturbance: Disturbance,
) -> None:
    wanted = {point: expected(passed[0], point, disturbance) for point in disturbed}
    ends = await hit_all(client, tmp_path, disturbed, disturbance, scene)
    assert {str(p): ends[p] for p in disturbed if ends[p] != wanted[p]} == {}


@MINUTES
@pytest.mark.parametrize("disturbance", [*STOPPING, *GOING_ON], ids=lambda d: d.__name__)
async def test_a_rollback_is_disturbed_and_still_gives_the_primary_back(
    client: Client, tmp_path: Path, rolled_back: Passed, refusing: Scene, disturbance: Disturbance
) -> None:
    found, result = rolled_back
    assert result.outcome is RunOutcome.ROLLED_BACK
    undoing = [point for point in found if point.undoing]
    ends = await hit_all(client, tmp_path, undoing, disturbance, refusing)
    assert undoing
    assert {str(p): ends[p] for p in undoing if ends[p] != "rolled back"} == {}


@MINUTES
async def test_a_killed_server_interrupts_runs_at_every_point_and_ends_none(
    tmp_path: Path, disturbed: list[Point], scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ADDRESS_VARIABLE, raising=False)
    ends = []
    async with dev_server(tmp_path / "temporal") as server:
        client = await connect(server.found.address)
        for begin in range(0, len(disturbed), AT_ONCE):
            home, some = tmp_path / str(begin), disturbed[begin : begin + AT_ONCE]
            ends += await interrupted(server, client, home, some, scene)
    assert ends == ["completed"] * len(disturbed)


async def interrupted(
    server: OwnServer, client: Client, home: Path, some: list[Point], scene: Scene
) -> list[str]:
    """How runs ended that stood at these points, all of them, when the server was killed."""
    async with AsyncExitStack() as running:
        cases = [
            await running.enter_async_context(held(client, home / str(number), point, scene))
            for number, point in enumerate(some)
        ]
        await asyncio.gather(*(case.hold.reached.wait() for case in cases))
        await server.restart()
        for case in cases:
            case.hold.go_on.set()
        return [await end_of(case, await case.result()) for case in cases]


def expected(found: list[Point], point: Point, disturbance: Disturbance) -> str:
    """What begins an effect is the moment that it is asked for; the promotion's is the point of no return."""
    if disturbance in GOING_ON:
        return "completed"
    begins = [number for number, p in enumerate(found) if p.when == "before" and p.action_id]
    promote = next(number for number in begins if "promote" in found[number].action_id)
    if found.index(point) >= promote:
        return "completed"
    return "rolled back" if found.index(point) >= begins[0] else "untouched"


async def hit_all(
    client: Client,
    home: Path,
    all_points: list[Point],
    disturbance: Disturbance,
    scene: Scene,
) -> dict[Point, str]:
    """How the runs ended, each disturbed at its point; or what was wrong then."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def hit(number: int, point: Point) -> str:
        async with turn, held(client, home / str(number), point, scene) as case:
            try:
                async with asyncio.timeout(WITHIN_S):
                    await case.hold.reached.wait()
                    await disturbance(case)
                    case.hold.go_on.set()
                    return await end_of(case, await case.result())
            except Exception as error:
                return await told(case, error)

    ends = await asyncio.gather(*(hit(number, point) for number, point in enumerate(all_points)))
    return dict(zip(all_points, ends, strict=True))


async def told(case: Case, error: Exception) -> str:
    where = "".join(traceback.format_tb(error.__traceback__)[-1:])
    what = f"{type(error).__name__}: {str(error)[:300]}"
    return f"{what}\n{where} journal {case.on.world.journal}, writable {case.on.world.writable()}"
