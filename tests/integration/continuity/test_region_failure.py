"""A region is left by all its clusters: in waves, under one approval, and each ends in a stated place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowUpdateFailedError

from qnwis.continuity.access import Deed
from qnwis.continuity.guardian_rules import Pause
from qnwis.continuity.notifications import Notification, RunEvent, Told
from qnwis.continuity.region_plan import Direction
from qnwis.continuity.region_run import OPERATIONS
from qnwis.continuity.regions import RegionFinding
from qnwis.continuity.run import AbortRequest, FailoverRequest, ResumeRunRequest, RunOutcome
from qnwis.starting import start_region_guardian
from workflows.guardian import Guardian
from workflows.guardian_state import GuardianState
from workflows.names import failover_id, guardian_id
from workflows.primary_failure import PrimaryFailure
from workflows.region_failure import RegionFailure
from workflows.region_guardian import RegionGuardian, RegionView

from .land import WITHIN_S, ActiveActive, Land, approve, pending, result_of, say
from .people import Crowd, rule_of

Build = Callable[..., Awaitable[tuple[Land, Crowd]]]


@pytest.fixture
async def land(client: Client, tmp_path: Path) -> AsyncIterator[Build]:
    async with AsyncExitStack() as running:

        async def build(*names: str, serve: bool = True, **how: Any) -> tuple[Land, Crowd]:
            made = Land.made(client, tmp_path, *names, **how)
            for worker in made.workers() if serve else ():
                await running.enter_async_context(worker)
            return made, Crowd(made)  # type: ignore[arg-type]

        yield build


async def test_all_clusters_of_a_lost_region_leave_it_under_one_approval(land: Build) -> None:
    on, crowd = await land("a", "b", "c", elsewhere=["d"], rules={"wave_size": 2})
    (d,) = [name for name in on.worlds.by_cluster if name.startswith("d")]
    on.lose(on.region)
    run = await on.evacuate(crowd)
    plan = (await pending(run)).plan
    assert [len(wave) for wave in plan.waves] == [2, 1]  # type: ignore[union-attr]
    assert all(world.journal == [] for world in on.worlds.by_cluster.values())
    await approve(crowd, run)
    result = await result_of(run)

    assert result.verified, result.reason
    serving = on.serving()
    assert serving.pop(d) == [f"{d}-1"] and on.worlds.by_cluster[d].journal == []
    assert serving == {name: [f"{name}-3"] for name in serving}
    for name in serving:
        world = on.worlds.by_cluster[name]
        assert world.address == f"{name}-3.test" and world.writable_at_most == 1
        own = await on.run_of(name).result()
        assert own.verified and own.approval is None
    assert len(result.way_back) == 4 and result.approval is not None
    records = await on.providers.audit.by_run(result.run_id)
    assert [(r.operation, r.approval.approved_by) for r in records] == [(OPERATIONS[Direction.OUT], "ann")]


async def test_a_primary_that_still_serves_leaves_by_a_switchover(land: Build) -> None:
    on, crowd = await land("a", "b")
    (a, b) = on.worlds.by_cluster
    for number in (1, 2):
        on.worlds.by_cluster[a].kill(f"{a}-{number}")
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    result = await result_of(run)
    assert result.verified, result.reason
    hows = {move.cluster_id: move.how.value for move in result.plan.moves}  # type: ignore[union-attr]
    assert hows == {a: "failover", b: "switchover"}
    assert on.worlds.by_cluster[b].changes("hand_over") != []


async def test_too_many_that_do_not_move_hold_the_next_wave_until_a_person_lets_it_go_on(land: Build) -> None:
    on, crowd = await land("a", "b", rules={"wave_size": 1})
    a, b = on.worlds.by_cluster
    on.lose(on.region)

    def rival(effect: str) -> None:
        if effect == "promote":
            on.worlds.by_cluster[a].machines[f"{a}-3"].epoch = 9_999

    on.worlds.by_cluster[a].before_effect = rival
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    async with asyncio.timeout(WITHIN_S):
        while (held := (await run.query(RegionFailure.progress_view)).paused) is None:
            await asyncio.sleep(0.05)
    assert "too_many_failed" in held and on.worlds.by_cluster[b].journal == []

    await say(crowd, run, "resume", Deed.RESUME, ResumeRunRequest(by="bob", reason="a is known"))
    result = await result_of(run)
    assert (result.outcome, result.verified) == (RunOutcome.INCOMPLETE, False)
    assert {one.cluster_id: one.outcome for one in result.moved} == {
        a: RunOutcome.ROLLED_BACK,
        b: RunOutcome.COMPLETED,
    }
    assert on.serving() == {a: [], b: [f"{b}-3"]}


async def test_an_abort_in_the_middle_of_a_wave_leaves_every_cluster_in_a_stated_place(land: Build) -> None:
    on, crowd = await land("a", "b", "c", rules={"wave_size": 2})
    a, b, c = on.worlds.by_cluster
    on.lose(on.region)
    reached, go_on = asyncio.Event(), asyncio.Event()
    promise = on.worlds.by_cluster[a].promise

    async def held(*arguments: Any, **more: Any) -> Any:
        reached.set()
        await go_on.wait()
        return await promise(*arguments, **more)

    on.worlds.by_cluster[a].promise = held  # type: ignore[method-assign]
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    await reached.wait()
    await on.run_of(b).result()
    await say(crowd, run, "abort", Deed.ABORT, AbortRequest(by="bob", reason="the region is back"))
    go_on.set()
    result = await result_of(run)

    assert {one.cluster_id: one.outcome for one in result.moved} == {
        a: RunOutcome.ROLLED_BACK,
        b: RunOutcome.COMPLETED,
    }
    assert result.not_begun == (c,) and on.worlds.by_cluster[c].journal == []
    assert result.outcome is RunOutcome.INCOMPLETE and "aborted by bob" in result.reason


async def test_a_run_that_goes_on_already_is_waited_for_and_not_doubled(land: Build) -> None:
    on, crowd = await land("a", "b")
    a, _ = on.worlds.by_cluster
    on.lose(on.region)
    token_for = FailoverRequest(cluster_id=a, initiated_by="bob", reason="by hand")
    token = crowd.token("bob", Deed.START, cluster_id=a, digest=token_for.digest)
    own = await on.client.start_workflow(
        PrimaryFailure.run,
        token_for.model_copy(update={"token": token}),
        id=failover_id(a),
        task_queue=on.settings.task_queue,
    )
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    async with asyncio.timeout(WITHIN_S):
        while (waiting := (await own.query(PrimaryFailure.progress_view)).approval) is None:
            await asyncio.sleep(0.05)
    await own.execute_update("approve", crowd.vote("ann", waiting, cluster_id=a))
    result = await result_of(run)

    assert result.verified, result.reason
    (adopted,) = [one.cluster_id for one in result.moved if one.adopted]
    assert adopted == a and len(on.worlds.by_cluster[a].changes("promote")) == 1


async def test_who_may_not_and_who_only_claims_move_nothing(land: Build) -> None:
    on, crowd = await land("a")
    on.lose(on.region)
    viewer = await result_of(await on.evacuate(crowd, "eve"))
    assert viewer.refusal is not None and viewer.refusal.rule == "permission_missing"
    run = await on.evacuate(crowd)
    for person, rule in (("bob", "initiator_excluded"), ("eve", "role_not_allowed")):
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await approve(crowd, run, person)
        assert rule_of(caught.value) == rule
    await run.execute_update("reject", crowd.vote("ann", await pending(run), Deed.REJECT, reason="wait"))
    assert (await result_of(run)).outcome is RunOutcome.REJECTED

    (a,) = on.worlds.by_cluster
    claimed = FailoverRequest(cluster_id=a, initiated_by="eve", reason="-", agreed_with="some run")
    child = await on.client.start_workflow(
        PrimaryFailure.run, claimed, id=failover_id(a), task_queue=on.settings.task_queue
    )
    assert (await child.result()).outcome is RunOutcome.REFUSED
    assert on.worlds.by_cluster[a].journal == []


async def test_a_dry_run_plans_and_changes_nothing_and_where_none_can_leave_it_says_why(land: Build) -> None:
    on, crowd = await land("a", "b")
    a, b = on.worlds.by_cluster
    on.lose(on.region)
    for number in (3, 4):
        on.worlds.by_cluster[b].kill(f"{b}-{number}")
    planned = await result_of(await on.evacuate(crowd, dry_run=True))
    assert planned.outcome is RunOutcome.PREVIEWED and planned.plan is not None
    assert [move.cluster_id for move in planned.plan.moves] == [a]
    assert [(one.cluster_id, one.refusal.rule) for one in planned.plan.unmovable] == [(b, "no_quorum")]
    none = await result_of(await on.evacuate(crowd, clusters=(b,)))
    assert none.refusal is not None and none.refusal.rule == "nothing_to_move"
    assert all(world.journal == [] for world in on.worlds.by_cluster.values())


async def test_all_go_back_to_where_they_are_at_home_once_that_is_well(land: Build) -> None:
    on, crowd = await land("a", "b", elsewhere=["d"])
    a, b, d = on.worlds.by_cluster
    on.lose(on.region)
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    assert (await result_of(run)).verified

    too_early = await result_of(await on.evacuate(crowd, direction=Direction.BACK))
    assert too_early.refusal is not None and too_early.refusal.rule == "nothing_to_move"
    for name in (a, b):
        for number in (1, 2):
            on.worlds.by_cluster[name].come_back(f"{name}-{number}")
    run = await on.evacuate(crowd, direction=Direction.BACK)
    await approve(crowd, run)
    result = await result_of(run)

    assert result.verified, result.reason
    assert on.serving() == {a: [f"{a}-1"], b: [f"{b}-1"], d: [f"{d}-1"]}
    assert on.worlds.by_cluster[d].journal == [] and result.way_back == ()
    for name in (a, b):
        world = on.worlds.by_cluster[name]
        assert world.address == f"{name}-1.test" and world.changes("hand_over") != []
    (record,) = await on.providers.audit.by_run(result.run_id)
    assert record.operation == "region_failback"


async def test_an_active_active_cluster_leaves_by_its_weights_and_comes_back_in_checked_steps(
    land: Build,
) -> None:
    shop = ActiveActive()
    on, crowd = await land("a", active=shop)
    (a,) = on.worlds.by_cluster
    assert shop.cluster is not None
    here, there, third = shop.cluster.regions
    on.lose(on.region)
    run = await on.evacuate(crowd)
    plan = (await pending(run)).plan
    assert plan.weights[0].told() == f"{here} 50 → 0, {there} 30 → 60, r3 20 → 40"  # type: ignore[union-attr]
    assert shop.shifts == []
    await approve(crowd, run)
    result = await result_of(run)
    assert result.verified, result.reason
    out = {here: 0, there: 60, third: 40}
    assert shop.shifts == [out] and {one.cluster_id for one in result.moved} == {a, shop.cluster.cluster_id}
    assert result.way_back[-1] == f"qnwis-continuity region failback {here} --reason …"

    # The way back: what does not pass the check is held, and checked again when a person lets it go on.
    for number in (1, 2):
        on.worlds.by_cluster[a].come_back(f"{a}-{number}")
    well = await shop.check(shop.cluster, here, ())
    lags = well.model_copy(update={"unreceived_bytes": None})
    shop.answers = [well, lags, lags]
    run = await on.evacuate(crowd, direction=Direction.BACK)
    await approve(crowd, run)
    for _ in range(2):
        async with asyncio.timeout(WITHIN_S):
            while (held := (await run.query(RegionFailure.progress_view)).paused) is None:
                await asyncio.sleep(0.05)
        assert "region_lags" in held and shop.weights[here] == 5
        assert on.serving() == {a: [f"{a}-3"]}
        await say(crowd, run, "resume", Deed.RESUME, ResumeRunRequest(by="bob", reason="look again"))
    result = await result_of(run)
    assert result.verified, result.reason
    assert [step[here] for step in shop.shifts] == [0, 5, 25, 50]
    assert shop.weights == {here: 50, there: 30, third: 20} and on.serving() == {a: [f"{a}-1"]}


async def test_weights_stay_where_the_others_have_no_room_and_where_somebody_changed_them(
    land: Build,
) -> None:
    shop = ActiveActive()
    on, crowd = await land("a", active=shop)
    assert shop.cluster is not None
    (a,), (here, there, third) = on.worlds.by_cluster, shop.cluster.regions
    shop.weights = {here: 0, there: 60, third: 40}
    name = shop.cluster.cluster_id
    nothing = await result_of(await on.evacuate(crowd, clusters=(name,)))
    assert nothing.refusal is not None and nothing.refusal.rule == "nothing_to_move"
    shop.weights = {here: 90, there: 5, third: 5}
    shop.cluster = None

    def edited() -> None:
        shop.weights = {here: 89, there: 6, third: 5}

    shop.before_shift = edited
    on.lose(on.region)
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    result = await result_of(run)
    assert {one.cluster_id: one.outcome for one in result.moved} == {
        name: RunOutcome.REFUSED,
        a: RunOutcome.COMPLETED,
    }
    assert shop.shifts == [] and result.outcome is RunOutcome.INCOMPLETE

    shop.weights = {here: 70, there: 30, third: 0}
    lost = await result_of(await on.evacuate(crowd, clusters=(name,), dry_run=True))
    assert lost.outcome is RunOutcome.PREVIEWED and lost.plan is not None
    assert lost.plan.weights[0].after == {here: 0, there: 80, third: 20}


async def test_a_stop_between_two_steps_leaves_weights_that_are_of_all_traffic(land: Build) -> None:
    shop = ActiveActive()
    on, crowd = await land("a", active=shop)
    assert shop.cluster is not None
    here, there, third = shop.cluster.regions
    shop.weights = {here: 0, there: 60, third: 40}
    well = await shop.check(shop.cluster, here, ())
    shop.answers = [well, well.model_copy(update={"differing_rows": 3})]
    run = await on.evacuate(crowd, direction=Direction.BACK)
    await approve(crowd, run)
    async with asyncio.timeout(WITHIN_S):
        while (held := (await run.query(RegionFailure.progress_view)).paused) is None:
            await asyncio.sleep(0.05)
    assert "regions_differ" in held
    await say(crowd, run, "abort", Deed.ABORT, AbortRequest(by="bob", reason="not today"))
    result = await result_of(run)
    (moved,) = result.moved
    assert moved.outcome is RunOutcome.INCOMPLETE and f"'{here}': 5" in moved.reason
    assert shop.weights[here] == 5 and sum(shop.weights.values()) == 100


NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


class Heard:
    """What people are told of regions."""

    def __init__(self) -> None:
        self.titles = asyncio.Queue[str]()

    async def send(self, notification: Notification) -> Told:
        if notification.event is RunEvent.REGION_LOST:
            self.titles.put_nowait(notification.title)
        return Told()

    async def next(self) -> str:
        async with asyncio.timeout(WITHIN_S):
            return await self.titles.get()


async def test_a_lost_region_is_told_of_when_it_lasts_and_so_is_its_end(land: Build) -> None:
    heard = Heard()
    on, _ = await land("a", "b", watched=True, rules={"dwell_s": 1, "settle_s": 1}, notifier=heard)
    for cluster_id in on.worlds.by_cluster:
        await on.client.start_workflow(
            Guardian.run,
            GuardianState(cluster_id=cluster_id, pause=Pause(by="ann", reason="test", since=NOON)),
            id=guardian_id(cluster_id),
            task_queue=on.settings.task_queue,
        )
    guardian = await start_region_guardian(on.client, on.region, on.settings.task_queue)

    async def becomes(finding: RegionFinding) -> RegionView:
        async with asyncio.timeout(WITHIN_S):
            while True:
                view = await guardian.query(RegionGuardian.view)
                known = view.primaries_inside and not view.silent
                if known and view.verdict is not None and view.verdict.finding is finding:
                    return view
                await asyncio.sleep(0.1)

    view = await becomes(RegionFinding.WELL)
    assert set(view.primaries_inside) == set(on.worlds.by_cluster)
    on.lose(on.region)
    await becomes(RegionFinding.SUSPECTED)
    assert heard.titles.empty()
    await becomes(RegionFinding.LOST)
    assert await heard.next() == f"{on.region} is lost"
    for world in on.worlds.by_cluster.values():
        for node in world.cluster.nodes:
            world.revive(node.node_id)
    await becomes(RegionFinding.WELL)
    assert await heard.next() == f"{on.region} is well again" and heard.titles.empty()
    assert all(world.journal == [] for world in on.worlds.by_cluster.values()), "it moves nothing by itself"
    for handle in (guardian, *(on.client.get_workflow_handle(guardian_id(c)) for c in on.worlds.by_cluster)):
        await handle.terminate("the test is over")
