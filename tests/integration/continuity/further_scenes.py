"""Scenes for `record_histories`, of the workflows beside a cluster's runbooks and its guardian: regions,
drills, what watches and reviews. Each sets a stage, or a land, of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle

from qnwis.access_reviews import start_access_review
from qnwis.continuity.access import Deed
from qnwis.continuity.access_review import AccessReviewRequest
from qnwis.continuity.guardian_rules import Pause
from qnwis.continuity.region_plan import Direction
from qnwis.continuity.region_wait import RegionFinding
from qnwis.continuity.run import ResumeRunRequest
from qnwis.providers.errors import Unreachable
from qnwis.providers.nonces import USED_TOKEN
from qnwis.readiness_runs import start_readiness
from qnwis.starting import start_region_guardian
from tests.looking import Looks
from workflows.names import reprotect_id
from workflows.region_failure import RegionFailure
from workflows.region_guardian import RegionGuardian
from workflows.reprotect import Reprotect

from .conftest import Stage
from .land import ActiveActive, Land, approve, hold_the_promise, lands, result_of, say, until_view
from .people import Crowd
from .test_drills import drill
from .test_guardian import all_healthy, until
from .test_override import LOST, closing, overridden, review_of
from .test_planned_maintenance import serving
from .test_region_guardian import NEVER_S, NOON, Heard, becomes, heal
from .unrecordable import away

Handle = WorkflowHandle[Any, Any]


@dataclass
class Studio:
    """Where scenes are played: what they set is served until `running` ends."""

    client: Client
    home: Path
    running: AsyncExitStack

    async def stage(self, **differing: Any) -> Stage:
        """As `Stage.set`, with its workers."""
        on = Stage.set(self.client, self.home, **differing)
        for worker in on.workers():
            await self.running.enter_async_context(worker)
        return on

    async def land(self, *names: str, **how: Any) -> tuple[Land, Crowd]:
        """As `Land.made`, with its workers and people."""
        build = await self.running.enter_async_context(lands(self.client, self.home))
        return await build(*names, **how)


# Regions


async def region_failure_completed(studio: Studio) -> Handle:
    """In two waves, under one approval."""
    on, crowd = await studio.land("a", "b", elsewhere=["c"], rules={"wave_size": 1})
    on.lose(on.region)
    return await _evacuated(on, crowd)


async def region_failure_heard(studio: Studio) -> Handle:
    """Each of its runs tells how it ended before that is on record."""
    on, crowd = await studio.land("a", "b", rules={"wave_size": 1})
    on.lose(on.region)
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    with away(on.providers.audit):
        looks = Looks()
        while on.serving() != {name: [f"{name}-3"] for name in on.worlds.by_cluster}:
            await looks.again()
    await result_of(run)
    return run


async def region_failure_failed_back(studio: Studio) -> Handle:
    on, crowd = await studio.land("a", "b")
    on.lose(on.region)
    await _evacuated(on, crowd)
    for name, world in on.worlds.by_cluster.items():
        for number in (1, 2):
            world.come_back(f"{name}-{number}")
    return await _evacuated(on, crowd, direction=Direction.BACK)


async def region_failure_shifted(studio: Studio) -> Handle:
    """An active/active cluster gives the region's share of the traffic to the others."""
    on, crowd = await studio.land("a", active=ActiveActive())
    on.lose(on.region)
    return await _evacuated(on, crowd)


async def region_failure_held(studio: Studio) -> Handle:
    """Too many of a wave do not move: the next one waits for a person."""
    on, crowd = await studio.land("a", "b", rules={"wave_size": 1})
    a, _ = on.worlds.by_cluster
    on.lose(on.region)

    def rival(effect: str) -> None:
        if effect == "promote":
            on.worlds.by_cluster[a].machines[f"{a}-3"].epoch = 9_999

    on.worlds.by_cluster[a].before_effect = rival
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    looks = Looks()
    while (await run.query(RegionFailure.progress_view)).paused is None:
        await looks.again()
    await say(crowd, run, "resume", Deed.RESUME, ResumeRunRequest(by="bob", reason="a is known"))
    await result_of(run)
    return run


async def region_failure_refused(studio: Studio) -> Handle:
    on, crowd = await studio.land("a")
    run = await on.evacuate(crowd, "eve")
    await result_of(run)
    return run


async def _evacuated(on: Land, crowd: Crowd, **fields: Any) -> Handle:
    run = await on.evacuate(crowd, **fields)
    await approve(crowd, run)
    await result_of(run)
    return run


async def region_guardian_told(studio: Studio) -> Handle:
    """Of a loss that lasts, and of its end; people decide."""
    heard = Heard()
    on, _ = await studio.land("a", "b", watched=True, rules={"dwell_s": 1, "settle_s": 1}, notifier=heard)
    await on.guard(pause=Pause(by="ann", reason="recorded for replay", since=NOON))
    guardian = await on.watch_region()
    on.lose(on.region)
    await heard.next()
    heal(on)
    await heard.next()
    await becomes(on, RegionFinding.WELL)
    return guardian


async def region_guardian_evacuated(studio: Studio) -> Handle:
    on = await _left_by_itself(studio)
    guardian = await on.watch_region()
    on.lose(on.region)
    await _has_ended(guardian)
    return guardian


async def region_guardian_taken_up(studio: Studio) -> Handle:
    """Started anew while the evacuation goes on that the one before it had begun."""
    on = await _left_by_itself(studio)
    first = await on.watch_region()
    reached, go_on = hold_the_promise(on, next(iter(on.worlds.by_cluster)))
    on.lose(on.region)
    await reached.wait()
    await until_view(lambda: first.query(RegionGuardian.view), lambda view: view.begun is not None)
    await first.terminate("recorded for replay")
    guardian = await start_region_guardian(on.client, on.region, on.settings.task_queue)
    await until_view(lambda: guardian.query(RegionGuardian.view), lambda view: view.begun is not None)
    go_on.set()
    await _has_ended(guardian)
    return guardian


async def _left_by_itself(studio: Studio) -> Land:
    policy = {"region_strategy": "automatic", "region_wait_s": NEVER_S}
    rules = {"dwell_s": 1, "settle_s": NEVER_S}
    on, _ = await studio.land("a", "b", watched=True, rules=rules, policy=policy)
    await on.guard()
    return on


async def _has_ended(guardian: WorkflowHandle[RegionGuardian, None]) -> None:
    await until_view(
        lambda: guardian.query(RegionGuardian.view),
        lambda view: view.begun is not None and view.begun.outcome is not None,
    )


# Of one cluster


async def round_trip_completed(studio: Studio) -> Handle:
    """A drill: there by the runbook of a primary that is gone, and back."""
    on = await studio.stage()
    trip = await drill(on, serving(on))
    await trip.result()
    return trip


async def round_trip_cancelled(studio: Studio) -> Handle:
    """While it waits for the old primary to be a standby again."""
    on = await studio.stage()
    gone = asyncio.Event()

    def does_not_answer(effect: str) -> None:
        if effect == "rejoin":
            gone.set()
            raise Unreachable("node-1: connection refused")

    on.world.before_effect = does_not_answer
    trip = await drill(on, serving(on))
    await gone.wait()
    await trip.cancel()
    await trip.result()
    return trip


async def reprotect_brought_back(studio: Studio) -> Handle:
    on = await studio.stage(reprotect="automatic", reprotect_after_s=0.1)
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    on.world.kill("node-1")
    await until(guardian, lambda view: view.last_result is not None)
    on.world.revive("node-1")
    watching = on.client.get_workflow_handle_for(Reprotect.run, reprotect_id(on.cluster_id))
    looks = Looks()
    while not on.world.changes("rejoin") or not _is_whole(await watching.query(Reprotect.view)):
        await looks.again()
    await guardian.terminate("recorded")
    return watching


def _is_whole(state: Any) -> bool:
    return state.found is not None and state.found.whole


async def readiness_check_evaluated(studio: Studio) -> Handle:
    on = await studio.stage()
    check = await start_readiness(on.client, on.cluster_id, by="ann", task_queue=on.settings.task_queue)
    await check.result()
    return check


async def override_review_closed(studio: Studio) -> Handle:
    """Of an override that gave two nodes up: looked for, told of, and closed by another admin."""
    crowd = Crowd(await studio.stage(cluster={"fencing": None}, approvals=True))
    for node_id in LOST:
        crowd.stage.world.kill(node_id)
    result = await overridden(crowd, attested_by="ann")
    review = review_of(crowd, result)
    await review.execute_update("close", closing(crowd, "dora", result, off=LOST))
    await review.result()
    return review


# Of all


async def used_token_kept(studio: Studio) -> Handle:
    """What a run, though it is refused, leaves of the token that it was started with."""
    crowd = Crowd(await studio.stage(approvals=True))
    on = crowd.stage
    await (await crowd.start("bob")).result()
    query = f"WorkflowType = '{USED_TOKEN}' AND TaskQueue = '{on.settings.task_queue}'"
    looks = Looks()
    while not (found := [one async for one in on.client.list_workflows(query)]):
        await looks.again()
    mark = on.client.get_workflow_handle(found[0].id)
    await mark.result()
    return mark


async def access_review_recorded(studio: Studio) -> Handle:
    on = await studio.stage()
    Crowd(on)
    request = AccessReviewRequest(days=1, initiated_by="ann")
    run = await start_access_review(on.client, request, task_queue=on.settings.task_queue)
    await run.result()
    return run


FURTHER_SCENES: dict[str, Callable[[Studio], Awaitable[Handle]]] = {
    scene.__name__: scene
    for scene in (
        region_failure_completed,
        region_failure_heard,
        region_failure_failed_back,
        region_failure_shifted,
        region_failure_held,
        region_failure_refused,
        region_guardian_told,
        region_guardian_evacuated,
        region_guardian_taken_up,
        round_trip_completed,
        round_trip_cancelled,
        reprotect_brought_back,
        readiness_check_evaluated,
        override_review_closed,
        used_token_kept,
        access_review_recorded,
    )
}
