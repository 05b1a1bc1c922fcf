"""A region is left by all its clusters: in waves, under one approval, and each ends in a stated place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.exceptions import ApplicationError

from activities.regions import RegionAssessment, RegionName, Regions, Where, WhereRequest
from qnwis.continuity.access import Deed
from qnwis.continuity.approvals import PendingApproval
from qnwis.continuity.region_plan import Direction
from qnwis.continuity.region_run import OPERATIONS
from qnwis.continuity.run import (
    AbortRequest,
    FailoverRequest,
    ResumeRunRequest,
    RunOutcome,
    RunResult,
    StepStatus,
)
from tests.looking import Looks
from workflows import options
from workflows.names import failover_id
from workflows.primary_failure import PrimaryFailure
from workflows.region_failure import RegionFailure

from .land import (
    MANY_WITHIN_S,
    WITHIN_S,
    Build,
    Land,
    RegionRun,
    approve,
    hold_the_order,
    hold_the_promise,
    lands,
    pending,
    result_of,
    say,
)
from .people import Crowd, rule_of
from .unrecordable import TOLD, away, takes_none_of

OwnRun = WorkflowHandle[PrimaryFailure, RunResult]


@pytest.fixture
async def land(client: Client, tmp_path: Path) -> AsyncIterator[Build]:
    async with lands(client, tmp_path) as build:
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
        assert world.address == world.cluster.node(f"{name}-3").hostname and world.writable_at_most == 1
        own = await on.run_of(name).result()
        assert own.verified and own.approval is None
        (record,) = await on.providers.audit.by_run(own.run_id)
        assert (record.initiated_by, record.role) == ("bob", "continuity_operator"), "proved once, for all"
    assert len(result.way_back) == 4 and result.approval is not None
    records = await on.providers.audit.by_run(result.run_id)
    assert [(r.operation, r.approval.approved_by) for r in records] == [(OPERATIONS[Direction.OUT], "ann")]


async def test_an_evacuation_that_nobody_can_look_at_in_the_end_still_leaves_its_record(
    land: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    @activity.defn(name="unmoved")
    async def nobody_looks(self: Regions, asked: WhereRequest) -> Where:
        raise ApplicationError("no worker", non_retryable=True)

    monkeypatch.setattr(Regions, "unmoved", nobody_looks)
    on, crowd = await land("a", "b")
    on.lose(on.region)
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    result = await result_of(run)

    assert result.outcome is RunOutcome.INCOMPLETE and not result.verified
    assert result.failures == dict.fromkeys(on.serving(), "not known where it serves now: no worker")
    assert all(moved.good for moved in result.moved) and len(result.way_back) >= 2
    assert len(await on.providers.audit.by_run(result.run_id)) == 1


async def test_an_evacuation_that_cannot_look_at_its_region_leaves_its_record_and_says_so(
    land: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    @activity.defn(name="assess_region")
    async def nobody_looks(self: Regions, asked: RegionName) -> RegionAssessment:
        raise ApplicationError("regions.yaml: line 1", non_retryable=True)

    monkeypatch.setattr(Regions, "assess_region", nobody_looks)
    on, crowd = await land("a")
    on.lose(on.region)
    result = await result_of(await on.evacuate(crowd))
    assert result.outcome is RunOutcome.UNTOUCHED
    assert result.reason == f"{on.region} could not be looked at: regions.yaml: line 1"
    assert len(await on.providers.audit.by_run(result.run_id)) == 1


async def test_an_evacuation_whose_record_can_never_be_written_ends_and_says_so(
    land: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    on, crowd = await land("a")
    on.lose(on.region)
    asked = takes_none_of(on.providers.audit, OPERATIONS[Direction.OUT], monkeypatch)
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    result = await result_of(run)
    assert result.verified and result.audit_id is None and asked == [result.run_id]
    assert result.notes == (TOLD,) and result.steps[-1].status is StepStatus.FAILED


async def test_no_wave_waits_for_an_audit_store_that_is_away(land: Build) -> None:
    """It may be in the region that is lost. That all have left is told when all of it is on record."""
    on, crowd = await land("a", "b", "c", rules={"wave_size": 1})
    on.lose(on.region)
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    with away(on.providers.audit):
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while on.serving() != {name: [f"{name}-3"] for name in on.worlds.by_cluster}:
                await looks.again()
        assert (await run.describe()).status is WorkflowExecutionStatus.RUNNING
    result = await result_of(run)
    assert result.verified and [moved.good for moved in result.moved] == [True] * 3
    for moved in result.moved:
        assert len(await on.providers.audit.by_run(moved.run_id or "")) == 1
    assert len(await on.providers.audit.by_run(result.run_id)) == 1


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
        looks = Looks()
        while (held := (await run.query(RegionFailure.progress_view)).paused) is None:
            await looks.again()
    assert "too_many_failed" in held and on.worlds.by_cluster[b].journal == []

    await say(crowd, run, "resume", Deed.RESUME, ResumeRunRequest(by="bob", reason="a is known"))
    result = await result_of(run)
    assert (result.outcome, result.verified) == (RunOutcome.INCOMPLETE, False)
    assert {one.cluster_id: one.outcome for one in result.moved} == {
        a: RunOutcome.ROLLED_BACK,
        b: RunOutcome.COMPLETED,
    }
    assert on.serving() == {a: [], b: [f"{b}-3"]}


async def test_a_cluster_that_moved_and_is_not_verified_has_left_the_region(land: Build) -> None:
    on, crowd = await land("a")
    (a,) = on.worlds.by_cluster
    on.lose(on.region)
    on.worlds.by_cluster[a].address = "192.0.2.7"  # somebody else moved the record
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    result = await result_of(run)

    assert (result.outcome, result.verified) == (RunOutcome.INCOMPLETE, False)
    assert result.reason.startswith("1 of 1 clusters left") and f"{a} incomplete" in result.reason
    assert result.way_back[-1] == f"qnwis-continuity region failback {on.region} --reason …"
    assert len(result.way_back) == 2 and on.serving() == {a: [f"{a}-3"]}
    where = [
        event.activity_task_scheduled_event_attributes.activity_type.name
        async for event in run.fetch_history_events()
    ]
    assert where.count("unmoved") == 1, "the agents were asked"


async def test_a_cluster_whose_run_was_ended_from_outside_is_looked_for(land: Build) -> None:
    """Its promotion went on, and whoever finishes that run goes forward: its service has left."""
    on, crowd = await land("a")
    (a,) = on.worlds.by_cluster
    on.lose(on.region)
    reached, go_on = hold_the_order(on, a, "promote")
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    await reached.wait()
    await on.run_of(a).terminate("by mistake")
    go_on.set()
    result = await result_of(run)

    (moved,) = result.moved
    assert (moved.outcome, moved.moved) == (RunOutcome.INCOMPLETE, True), moved
    assert "from outside" in moved.reason and "it is where it was to go all the same" in moved.reason
    assert result.outcome is RunOutcome.INCOMPLETE and result.reason.startswith("1 of 1 clusters left")
    assert len(result.way_back) == 2 and on.serving() == {a: [f"{a}-3"]}


async def test_where_nobody_serves_after_a_run_was_ended_from_outside_nobody_knows(land: Build) -> None:
    on, crowd = await land("a")
    (a,) = on.worlds.by_cluster
    on.lose(on.region)
    reached, go_on = hold_the_promise(on, a)
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    await reached.wait()
    await on.run_of(a).terminate("by mistake")
    result = await result_of(run)
    go_on.set()

    (moved,) = result.moved
    assert (moved.outcome, moved.became) == (None, "not known"), moved
    assert result.outcome is RunOutcome.INCOMPLETE and f"{a} not known: " in result.reason
    assert len(result.way_back) == 2


async def test_a_cluster_that_stayed_though_its_run_was_ended_from_outside_has_not_left(land: Build) -> None:
    on, crowd = await land("a")
    (a,) = on.worlds.by_cluster
    reached, go_on = hold_the_order(on, a, "prepare")
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    await reached.wait()
    await on.run_of(a).terminate("by mistake")
    result = await result_of(run)
    go_on.set()

    (moved,) = result.moved
    assert moved.outcome is RunOutcome.ROLLED_BACK and "it is where it was" in moved.reason, moved
    assert result.outcome is RunOutcome.ROLLED_BACK and result.way_back == ()


async def test_a_run_that_is_refused_has_undone_nothing(land: Build) -> None:
    on, crowd = await land("a")
    (a,) = on.worlds.by_cluster
    on.lose(on.region)
    run = await on.evacuate(crowd)
    await pending(run)
    for number in (3, 4):
        on.worlds.by_cluster[a].kill(f"{a}-{number}")
    await approve(crowd, run)
    result = await result_of(run)
    assert result.outcome is RunOutcome.REFUSED and on.worlds.by_cluster[a].journal == [], result


async def test_an_abort_in_the_middle_of_a_wave_leaves_every_cluster_in_a_stated_place(land: Build) -> None:
    on, crowd = await land("a", "b", "c", rules={"wave_size": 2})
    a, b, c = on.worlds.by_cluster
    on.lose(on.region)
    reached, go_on = hold_the_promise(on, a)
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


async def test_a_run_that_has_begun_is_waited_for_and_not_doubled(land: Build) -> None:
    on, crowd = await land("a", "b")
    a, _ = on.worlds.by_cluster
    on.lose(on.region)
    reached, go_on = hold_the_promise(on, a)
    own = await own_run(on, crowd, a)
    await own.execute_update("approve", crowd.vote("ann", await asked_for(own), cluster_id=a))
    await reached.wait()
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    go_on.set()
    result = await result_of(run)

    assert result.verified, result.reason
    (adopted,) = [one.cluster_id for one in result.moved if one.adopted]
    assert adopted == a and len(on.worlds.by_cluster[a].changes("promote")) == 1


async def acting_for_ever(on: Land, crowd: Crowd, cluster_id: str) -> Callable[[], None]:
    """A run of the cluster's own that acts and does not end before what is returned is called."""
    reached, go_on = hold_the_promise(on, cluster_id)
    own = await own_run(on, crowd, cluster_id)
    await own.execute_update("approve", crowd.vote("ann", await asked_for(own), cluster_id=cluster_id))
    await reached.wait()
    return go_on.set


async def test_a_run_without_an_end_is_waited_for_in_vain_and_no_other_cluster_waits_with_it(
    land: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "RUN_ENDS_WITHIN_S", 1.0)
    on, crowd = await land("a", "b", rules={"wave_size": 1, "stop_after": 2})
    a, b = on.worlds.by_cluster
    on.lose(on.region)
    let_go = await acting_for_ever(on, crowd, a)
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    result = await result_of(run)
    let_go()

    (left,) = [one for one in result.moved if one.cluster_id == a]
    assert left.outcome is None and "another run holds the cluster's lock" in left.reason
    assert result.outcome is RunOutcome.INCOMPLETE and on.serving()[b] == [f"{b}-3"]


async def test_an_abort_ends_the_wait_for_a_run_that_has_no_end(land: Build) -> None:
    on, crowd = await land("a", "b", "c", rules={"wave_size": 2})
    a, b, c = on.worlds.by_cluster
    on.lose(on.region)
    let_go = await acting_for_ever(on, crowd, a)
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    await waits_for_another(run)
    await on.run_of(b).result()
    await say(crowd, run, "abort", Deed.ABORT, AbortRequest(by="bob", reason="the region is back"))
    result = await result_of(run)
    let_go()

    (left,) = [one for one in result.moved if one.cluster_id == a]
    assert left.outcome is None and "stopped while it was waited for" in left.reason
    assert result.not_begun == (c,) and "aborted by bob" in result.reason


async def waits_for_another(run: RegionRun) -> None:
    """Until the evacuation waits for the end of a run that it has not started."""
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while "await_run" not in {
            event.activity_task_scheduled_event_attributes.activity_type.name
            async for event in run.fetch_history_events()
        }:
            await looks.again()


async def test_a_run_that_only_waits_for_people_gives_way(land: Build) -> None:
    on, crowd = await land("a", "b")
    a, b = on.worlds.by_cluster
    on.lose(on.region)
    waiting = await own_run(on, crowd, a)
    await asked_for(waiting)
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    result = await result_of(run)

    assert result.verified, result.reason
    gave_way = await waiting.result()
    assert gave_way.outcome is RunOutcome.UNTOUCHED and "gave way" in gave_way.reason
    assert on.serving() == {a: [f"{a}-3"], b: [f"{b}-3"]}


async def own_run(on: Land, crowd: Crowd, cluster_id: str) -> OwnRun:
    """A failover of one cluster that bob has started, before anybody left the region."""
    request = FailoverRequest(cluster_id=cluster_id, initiated_by="bob", reason="by hand")
    token = crowd.token("bob", Deed.START, cluster_id=cluster_id, digest=request.digest)
    return await on.client.start_workflow(
        PrimaryFailure.run,
        request.model_copy(update={"token": token}),
        id=failover_id(cluster_id),
        task_queue=on.settings.task_queue,
    )


async def asked_for(own: OwnRun) -> PendingApproval:
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while (waiting := (await own.query(PrimaryFailure.progress_view)).approval) is None:
            await looks.again()
    return waiting


async def test_a_part_of_an_evacuation_gives_no_way_to_a_clusters_guardian(land: Build) -> None:
    on, crowd = await land("a")
    (a,) = on.worlds.by_cluster
    on.lose(on.region)
    run = await on.evacuate(crowd)
    await pending(run)
    reached, go_on = asyncio.Event(), asyncio.Event()
    state = on.worlds.by_cluster[a].state

    async def held(*arguments: Any, **more: Any) -> Any:
        reached.set()
        await go_on.wait()
        return await state(*arguments, **more)

    on.worlds.by_cluster[a].state = held  # type: ignore[method-assign]
    await approve(crowd, run)
    await reached.wait()
    await on.run_of(a).signal("give_way", "its primary failed")
    go_on.set()
    assert (await result_of(run)).verified and on.serving() == {a: [f"{a}-3"]}


async def test_nobody_says_by_hand_that_an_evacuation_is_automatic(land: Build) -> None:
    on, crowd = await land("a", policy={"region_strategy": "automatic"})
    on.lose(on.region)
    result = await result_of(await on.evacuate(crowd, automatic=True))
    assert result.outcome is RunOutcome.REFUSED and "only the region's guardian" in result.reason
    assert all(world.journal == [] for world in on.worlds.by_cluster.values())


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
    claimed = FailoverRequest(cluster_id=a, initiated_by="eve", reason="-", initiator_roles=("service",))
    child = await on.client.start_workflow(
        PrimaryFailure.run, claimed, id=failover_id(a), task_queue=on.settings.task_queue
    )
    refused = await child.result()
    assert refused.outcome is RunOutcome.REFUSED and "may say who began it" in refused.reason
    (record,) = await on.providers.audit.by_run(refused.run_id)
    assert record.role == "unauthenticated" and on.worlds.by_cluster[a].journal == []


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
        assert world.address == world.cluster.node(f"{name}-1").hostname and world.changes("hand_over") != []
    (record,) = await on.providers.audit.by_run(result.run_id)
    assert record.operation == "region_failback"


@pytest.mark.matrix
@pytest.mark.timeout(900)
async def test_twenty_clusters_leave_in_waves_and_go_on_when_the_worker_vanishes_in_the_middle(
    land: Build,
) -> None:
    names = [f"n{number:02}x" for number in range(20)]
    on, crowd = await land(*names, serve=False, rules={"wave_size": 5})
    on.lose(on.region)
    reached = asyncio.Event()
    seventh = list(on.worlds.by_cluster.values())[7]
    seventh.before_effect = lambda effect: reached.set()
    lost = on.workers()[0]
    serving = asyncio.create_task(lost.run())
    run = await on.evacuate(crowd)
    await approve(crowd, run)
    await reached.wait()

    await asyncio.gather(serving, lost.shutdown())
    async with on.workers()[0]:
        result = await result_of(run, within_s=MANY_WITHIN_S)

    assert result.verified, result.reason
    assert [len(wave) for wave in result.plan.waves] == [5, 5, 5, 5]  # type: ignore[union-attr]
    for world in on.worlds.by_cluster.values():
        assert len(world.changes("promote")) == 1 and world.writable_at_most == 1
