"""Planned maintenance on a real Temporal server, over a world in memory that journals effects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.service import RPCError

from activities import switchover
from qnwis.continuity.access import Deed
from qnwis.continuity.decisions import PREFIX
from qnwis.continuity.executor import OutcomeStatus
from qnwis.continuity.orders import FencingEvidenceType
from qnwis.continuity.outage import OUTAGE_MS
from qnwis.continuity.readiness_facts import RecordAnswer
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import (
    AbortRequest,
    ExtendRequest,
    Maintenance,
    PauseRunRequest,
    ResumeRunRequest,
    RunKind,
    RunOutcome,
    RunProgress,
    RunResult,
    StepStatus,
)
from qnwis.continuity.topology import DnsService
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.proofs import last_drill_at
from qnwis.runbook import load_runbook
from qnwis.schedules import ListedSchedule, Timing, handle_of, listed, schedule_maintenance
from qnwis.starting import start_round_trip
from tests.looking import WITHIN_S, Looks
from workflows import options
from workflows.guardian import Guardian
from workflows.names import failover_id
from workflows.planned_maintenance import PlannedMaintenance

from .conftest import Run, Setting, Stage
from .people import Crowd, asked, rule_of
from .test_guardian import all_healthy, until
from .test_interrupted_runs import halted
from .time_skipping import Hours, hours

NO_TARGET = "no_suitable_target"
SOON_S = 5.0
"""Until what nobody could do is given up, where a test has to wait for that."""
SLOW_DNS = {"zone": "lab.test", "name": "db", "ttl_s": 600, "servers": ["127.0.0.1:53"]}
"""Clients keep an address for ten minutes."""
SWITCHOVER = ["quiesce", "hand_over", "promote", "follow", "dns", "rejoin"]


async def maintain(on: Stage, crowd: Crowd | None = None, **request: Any) -> Run:
    """Start planned maintenance, as a person would."""
    asked_for = (crowd or serving(on)).request(**{"reason": "new kernel", **request})
    return await on.client.start_workflow(
        PlannedMaintenance.run,
        asked_for,
        id=failover_id(on.cluster_id, dry_run=asked_for.dry_run),
        task_queue=on.settings.task_queue,
    )


def serving(on: Stage) -> Crowd:
    """People of a cluster that serves: its agents have granted an epoch."""
    for machine in on.world.machines.values():
        machine.epoch = machine.held = 1
    return Crowd(on)


async def test_the_service_moves_and_the_old_primary_is_a_standby(stage: Setting) -> None:
    on = await stage()

    result = await (await maintain(on)).result()

    assert result.outcome is RunOutcome.COMPLETED and result.verified, result.reason
    assert (result.kind, result.old_primary, result.new_primary) == (
        RunKind.PLANNED_MAINTENANCE,
        "node-1",
        "node-2",
    )
    assert result.fencing is not None and result.fencing.type is FencingEvidenceType.RELEASED
    assert [effect for effect, _ in on.world.journal] == SWITCHOVER
    assert on.world.writable() == ["node-2"] and on.world.writable_at_most == 1
    assert on.world.machines["node-1"].upstream == "node-2"
    assert on.world.address == "10.0.1.11"


async def test_its_steps_are_the_steps_of_the_text(stage: Setting) -> None:
    on = await stage()
    result = await (await maintain(on)).result()
    text = load_runbook(RunKind.PLANNED_MAINTENANCE)
    assert [step.name for step in result.steps] == [step.name for step in text.steps]
    assert {step.status for step in result.steps} == {StepStatus.DONE}


async def test_the_ttl_is_lowered_ahead_and_restored(stage: Setting) -> None:
    dns = {"zone": "lab.test", "name": "db", "ttl_s": 2, "servers": ["127.0.0.1:53"]}
    on = await stage(cluster={"dns": dns})
    result = await (await maintain(on)).result()
    assert result.verified
    assert [what for effect, what in on.world.journal if effect == "ttl"] == ["1", "2"]
    assert on.world.ttl_s == 2


@pytest.mark.parametrize(
    ("fault", "effect"),
    [
        (Refused(Refusal(rule="standby_lags", message="lags", remedy="wait")), "quiesce"),
        (Refused(Refusal(rule="database_down", message="down", remedy="wait")), "hand_over"),
        (Refused(Refusal(rule="token_not_reached", message="lags", remedy="wait")), "promote"),
    ],
)
async def test_what_fails_before_the_promotion_leaves_the_service_where_it_was(
    stage: Setting, fault: Exception, effect: str
) -> None:
    dns = {"zone": "lab.test", "name": "db", "ttl_s": 2, "servers": ["127.0.0.1:53"]}
    on = await stage(cluster={"dns": dns})
    on.world.fail_next(effect, fault)

    result = await (await maintain(on)).result()

    assert result.outcome is RunOutcome.ROLLED_BACK
    assert on.world.writable() == ["node-1"] and on.world.writable_at_most == 1
    assert on.world.ttl_s == 2 and on.world.address == "10.0.1.10"
    undone = [o.action_id for o in result.outcomes if o.status is OutcomeStatus.UNDONE]
    assert "1-lower-ttl" in undone


async def test_a_world_that_changed_since_the_plan_stops_the_run_before_the_primary_is_touched(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "EFFECT_WITHIN_S", SOON_S)
    dns = {"zone": "lab.test", "name": "db", "ttl_s": 2, "servers": ["127.0.0.1:53"]}
    on = await stage(cluster={"dns": dns})

    def lose_the_target(effect: str) -> None:
        if effect == "ttl":
            on.world.machines["node-2"].on = False

    on.world.before_effect = lose_the_target
    result = await (await maintain(on)).result()

    assert result.outcome is RunOutcome.ROLLED_BACK and "node-2" in result.reason
    assert on.world.changes("quiesce") == [] and on.world.writable() == ["node-1"]
    assert on.world.ttl_s == 2


async def test_a_release_whose_end_is_not_known_is_taken_back(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "FENCED_WITHIN_S", SOON_S)
    on = await stage()
    on.world.fail_next("promise", *[Unreachable("no answer")] * 300)

    result = await (await maintain(on)).result()

    assert result.outcome is RunOutcome.ROLLED_BACK
    assert on.world.writable() == ["node-1"]
    assert on.world.changes("resume"), "it was handed over, and came back"


async def test_a_primary_that_dies_while_its_release_is_taken_back_is_failed_over_from(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never says that it serves again, and the run does not hold the lock for that."""
    monkeypatch.setattr(options, "FENCED_WITHIN_S", SOON_S)
    for name in ("QUIET_S", "RETURN_AFTER_S", "BACK_BY_ITSELF_S"):
        monkeypatch.setattr(switchover, name, 0.1)
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)

    def die(effect: str) -> None:
        if effect == "resume":
            on.world.kill("node-1")

    on.world.fail_next("promise", *[Unreachable("no answer")] * 300)
    on.world.before_effect = die
    async with asyncio.timeout(WITHIN_S):
        result = await (await maintain(on)).result()
    assert result.outcome is RunOutcome.ROLLED_BACK
    (undone,) = (o for o in result.outcomes if "release" in o.action_id and o.status is OutcomeStatus.UNDONE)
    assert "node-1 does not say that it accepts writes again" in undone.detail
    on.world.faults.clear()
    view = await until(
        guardian, lambda v: v.last_result is not None and v.last_result.outcome is RunOutcome.COMPLETED
    )
    assert view.primary_node_id == "node-2" and on.world.writable() == ["node-2"]
    await guardian.terminate()


async def test_a_primary_that_is_ill_is_no_case_for_maintenance(stage: Setting) -> None:
    on = await stage()
    on.world.kill("node-1")
    result = await (await maintain(on)).result()
    assert result.refusal is not None and result.refusal.rule == "primary_not_serving"


@pytest.mark.parametrize(
    ("target", "new", "rule"),
    [
        ("node-3", "node-3", None),
        ("node-1", None, "no_suitable_target"),
        ("node-9", None, "no_suitable_target"),
    ],
)
async def test_a_person_may_choose_the_target(
    stage: Setting, target: str, new: str | None, rule: str | None
) -> None:
    on = await stage()
    result = await (await maintain(on, maintenance=Maintenance(target_node_id=target))).result()
    assert result.new_primary == new
    assert (result.refusal.rule if result.refusal is not None else None) == rule


async def test_a_dry_run_previews_every_action_and_changes_nothing(stage: Setting) -> None:
    on = await stage()
    result = await (await maintain(on, dry_run=True)).result()
    assert result.outcome is RunOutcome.PREVIEWED and on.world.journal == []
    assert all("[DRY-RUN]" in outcome.detail for outcome in result.outcomes)


async def test_it_awaits_people_and_gives_way_to_a_failover(stage: Setting) -> None:
    on = await stage(approvals=True)
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    run = await maintain(on)
    await asked(run)

    on.world.kill("node-1")
    result = await run.result()
    assert result.outcome is RunOutcome.UNTOUCHED and "gave way to a failover" in result.reason
    view = await until(
        guardian, lambda v: v.last_result is not None and v.last_result.outcome is RunOutcome.COMPLETED
    )
    assert view.primary_node_id == "node-2"
    await guardian.terminate()


async def held_after(on: Stage, effect: str) -> Run:
    """Planned maintenance that bob holds before the action after the one with this effect, which is done."""
    run = await maintain(on)
    async with halted(on, effect) as go_on:
        await run.execute_update(PlannedMaintenance.pause, PauseRunRequest(by="bob", reason="lunch"))
        go_on()
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while not [
                outcome
                for outcome in (await run.query(PlannedMaintenance.progress_view)).outcomes[-1:]
                if outcome.status is OutcomeStatus.SUCCEEDED
            ]:
                await looks.again()
    return run


async def failed_over(on: Stage, run: Run, guardian: WorkflowHandle[Guardian, None]) -> RunResult:
    """The end of a run that gives way, once its guardian has moved the service."""
    async with asyncio.timeout(WITHIN_S):
        result = await run.result()
    assert "gave way to a failover" in result.reason
    view = await until(
        guardian, lambda v: v.last_result is not None and v.last_result.outcome is RunOutcome.COMPLETED
    )
    assert view.primary_node_id == "node-2" and on.world.writable() == ["node-2"]
    await guardian.terminate()
    return result


async def test_a_run_that_is_held_after_it_has_begun_gives_way_to_a_failover(stage: Setting) -> None:
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    run = await held_after(on, "prepare")

    on.world.kill("node-1")
    result = await failed_over(on, run, guardian)
    assert result.outcome is RunOutcome.UNTOUCHED and on.world.changes("hand_over") == []


async def test_a_run_that_waits_out_an_old_ttl_gives_way_to_a_failover(stage: Setting) -> None:
    on = await stage(cluster={"dns": SLOW_DNS}, max_failover_time_s=3600)
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    run = await maintain(on)
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while not on.world.changes("ttl"):
            await looks.again()

    on.world.kill("node-1")
    result = await failed_over(on, run, guardian)
    assert result.outcome is RunOutcome.ROLLED_BACK and on.world.changes("ttl")[:2] == ["1", "600"]


async def test_a_ttl_that_cannot_be_restored_holds_up_no_failover(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The site with the primary and the DNS server that takes updates is lost."""
    monkeypatch.setattr("activities.dns.TTL_BACK_WITHIN_S", SOON_S)
    on = await stage(cluster={"dns": SLOW_DNS}, max_failover_time_s=3600)
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    run = await maintain(on)
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while not on.world.changes("ttl"):
            await looks.again()

    async def silent(service: DnsService) -> tuple[RecordAnswer, ...]:
        return (RecordAnswer(server=service.servers[0], addresses=None, reason="no answer"),)

    monkeypatch.setattr(on.world, "record", silent)
    on.world.kill("node-1")
    result = await failed_over(on, run, guardian)
    assert result.outcome is RunOutcome.ROLLED_BACK
    assert "LEFT TO DO: the TTL of db.lab.test. may still be 1 s" in result.reason


async def test_an_old_ttl_is_not_waited_out_where_it_was_not_lowered(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "EFFECT_WITHIN_S", SOON_S)
    on = await stage(cluster={"dns": SLOW_DNS}, max_failover_time_s=3600)
    on.world.fail_next("ttl", *[Unreachable("no answer")] * 300)
    async with asyncio.timeout(WITHIN_S):
        result = await (await maintain(on)).result()
    assert result.outcome is RunOutcome.ROLLED_BACK and on.world.changes("ttl") == []
    assert "LEFT TO DO" not in result.reason, "it has its ordinary TTL, which is looked at"


async def test_a_run_that_is_held_once_its_primary_gave_up_does_not_give_way(stage: Setting) -> None:
    """Undoing that needs the primary's answer, and the target has all: a person lets it go on."""
    on = await stage()
    run = await held_after(on, "hand_over")
    on.world.kill("node-1")

    await run.signal("give_way", "its primary failed")
    await run.execute_update(PlannedMaintenance.resume, ResumeRunRequest(by="bob", reason="back"))
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while not on.world.changes("promote"):
            await looks.again()
        on.world.revive("node-1")  # to be a standby
        result = await run.result()
    assert result.moved and on.world.writable() == ["node-2"]


async def test_a_terminated_one_is_finished_by_the_guardian(stage: Setting) -> None:
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    waiting = asyncio.Event()

    def hold(effect: str) -> None:
        if effect == "hand_over" and not waiting.is_set():
            waiting.set()
            raise Unreachable("the answer was lost")

    on.world.before_effect = hold
    run = await maintain(on)
    await asyncio.wait_for(waiting.wait(), 30)
    await run.terminate("somebody pressed the button")

    view = await until(guardian, lambda v: v.last_result is not None)
    assert view.last_result is not None and view.last_result.outcome is RunOutcome.ROLLED_BACK
    assert on.world.writable() == ["node-1"] and on.world.writable_at_most == 1
    await guardian.terminate()


# Windows, in skipping time


@pytest.fixture
async def skipping(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Hours]]]:
    async with AsyncExitStack() as running:
        yield lambda **policy: running.enter_async_context(hours(tmp_path, **policy))


async def test_it_waits_for_its_window(skipping: Callable[..., Awaitable[Hours]]) -> None:
    on = await skipping()
    begins = await on.now() + timedelta(hours=2)
    run = await maintain(on.stage, maintenance=Maintenance(not_before=begins, window_s=600))
    await on.pass_by(3600)
    assert on.stage.world.journal == []
    await on.pass_by(3660)
    result = await run.result()
    assert result.verified and result.verification is not None, result.reason


async def ttl_lowered(on: Hours) -> Run:
    """A run with the record's ordinary TTL and the policy's limit as they are by default."""
    run = await maintain(on.stage)
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while not on.stage.world.changes("ttl"):
            await looks.again()
    return run


ORDINARY = {"dns": {"zone": "lab.test", "name": "db", "servers": ["127.0.0.1:53"]}}


async def test_what_is_done_ahead_and_a_hold_before_the_release_are_no_failover_time(
    skipping: Callable[..., Awaitable[Hours]],
) -> None:
    on = await skipping(cluster=ORDINARY)
    run = await ttl_lowered(on)
    await run.signal("pause", PauseRunRequest(by="bob", reason="the switch is not ready"))
    await on.pass_by(150)
    assert on.stage.world.changes("hand_over") == []
    await run.signal("resume", ResumeRunRequest(by="bob", reason="it is ready"))

    result = await run.result()
    assert result.verified, result.reason
    assert result.ended_at - result.started_at > timedelta(seconds=150)
    assert [title for title in on.notes.titles if title.endswith("overrun")] == []


async def test_an_outage_that_is_too_long_is_told_of_and_fails_the_verification(
    skipping: Callable[..., Awaitable[Hours]],
) -> None:
    on = await skipping(cluster=ORDINARY, max_failover_time_s=30)
    on.stage.world.fail_next("promote", *[Unreachable("lost")] * 22)
    result = await (await ttl_lowered(on)).result()

    assert result.outcome is RunOutcome.INCOMPLETE and result.verification is not None
    (late,) = [check for check in result.verification.checks if not check.ok]
    assert late.name == "within_time" and late.detail.startswith("the service waited ")
    (measured,) = [ms for o in result.outcomes if (ms := o.facts.get(OUTAGE_MS)) is not None]
    assert late.detail.split()[3] == f"{measured:.0f}", "the report tells the same, retries among it"
    assert [title for title in on.notes.titles if title.endswith("overrun")] != []


async def test_it_does_not_begin_in_a_window_that_is_too_short(stage: Setting) -> None:
    on = await stage()
    late = datetime.now(UTC) - timedelta(seconds=60)
    maintenance = Maintenance(not_before=late, window_s=65)
    result = await (await maintain(on, maintenance=maintenance)).result()
    assert result.refusal is not None and result.refusal.rule == "window_too_short"
    assert on.world.journal == []


# While a run goes on


async def held_at_execution(on: Stage, crowd: Crowd) -> Run:
    """A run that is paused while it waits for votes, and then approved."""
    run = await maintain(on, crowd)
    pending = await asked(run)
    pause = PauseRunRequest(by="bob", reason="the switch is not ready")
    await run.execute_update("pause", crowd.signed(run, Deed.PAUSE, pause))
    await run.execute_update("approve", crowd.vote("ann", pending))
    return run


async def progress_until(run: Run, holds: Callable[[RunProgress], bool]) -> RunProgress:
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while not holds(progress := await run.query("progress", result_type=RunProgress)):
            await looks.again()
    return progress


async def test_a_run_that_is_held_begins_nothing_until_it_is_resumed(stage: Setting) -> None:
    on = await stage(approvals=True)
    crowd = serving(on)
    run = await held_at_execution(on, crowd)
    progress = await progress_until(
        run, lambda p: any(s.name == "execution" and s.status is StepStatus.RUNNING for s in p.steps)
    )
    assert progress.paused == "by bob: the switch is not ready" and on.world.journal == []

    resume = ResumeRunRequest(by="bob", reason="it is ready")
    await run.signal("resume", crowd.signed(run, Deed.RESUME, resume))
    assert (await run.result()).verified


async def test_a_run_that_is_held_can_be_aborted(stage: Setting) -> None:
    on = await stage(approvals=True)
    crowd = serving(on)
    run = await held_at_execution(on, crowd)
    await run.execute_update("abort", crowd.signed(run, Deed.ABORT, AbortRequest(by="bob", reason="late")))
    assert (await run.result()).outcome is RunOutcome.UNTOUCHED
    assert on.world.journal == []


async def test_a_window_for_votes_is_extended_by_another_who_may_start_and_by_nobody_else(
    stage: Setting,
) -> None:
    on = await stage(approvals=True)
    crowd = serving(on)
    run = await maintain(on, crowd)
    before = (await asked(run)).window.closes_at
    for person, rule in (("eve", "permission_missing"), ("bob", "initiator_excluded")):
        extend = ExtendRequest(by=person, reason="more time", by_s=300)
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await run.execute_update("extend", crowd.signed(run, Deed.EXTEND, extend))
        assert rule_of(caught.value) == rule

    extend = extend.model_copy(update={"by": "ann"})
    await run.execute_update("extend", crowd.signed(run, Deed.EXTEND, extend))
    progress = await progress_until(
        run, lambda p: p.approval is not None and p.approval.window.closes_at != before
    )
    assert progress.approval is not None
    assert progress.approval.window.closes_at - before == timedelta(seconds=300)
    await run.terminate()


# There and back, and by schedule


async def test_a_drill_ends_where_it_began_and_is_approved_once(stage: Setting) -> None:
    on = await stage(approvals=True)
    crowd = serving(on)
    trip = await start_round_trip(
        on.client,
        crowd.request(maintenance=Maintenance(back_after_s=0.1, drill=True)),
        on.settings.task_queue,
    )
    run = on.client.get_workflow_handle_for(PlannedMaintenance.run, failover_id(on.cluster_id))
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while not await exists(run):
            await looks.again()
    await crowd.approve(run, "ann")

    result = await trip.result()
    assert result.verified, result.summary
    assert on.world.writable() == ["node-1"] and on.world.writable_at_most == 1
    assert result.back is not None and result.back.approval is None
    decided = await on.providers.audit.latest(10)
    records = [record for record in decided if not record.operation.startswith(PREFIX)]
    assert [record.operation for record in records] == ["drill_execute"] * 2
    assert last_drill_at(records, on.cluster_id) == records[0].timestamp
    assert last_drill_at(records[1:], on.cluster_id) is None, "one way is no drill"


async def test_nobody_says_by_hand_that_a_run_is_a_way_back(stage: Setting) -> None:
    on = await stage(approvals=True)
    serving(on)
    result = await (await maintain(on, maintenance=Maintenance(returns="run-1"))).result()
    assert result.outcome is RunOutcome.REFUSED and on.world.journal == []


async def listed_soon(client: Client, cluster_id: str) -> Sequence[ListedSchedule]:
    """The cluster's schedules, once there are any: Temporal's list may be a little late."""
    looks = Looks()
    while not (found := await listed(client, cluster_id)):
        await looks.again()
    return found


async def test_a_schedule_starts_maintenance_that_awaits_people(stage: Setting) -> None:
    on = await stage(approvals=True)
    crowd = serving(on)
    request = crowd.proved(crowd.request(maintenance=Maintenance(window_s=600)), Deed.SCHEDULE)
    timing = Timing(cron="0 3 1 1 *", time_zone="Asia/Qatar", blackout=(date(2031, 1, 1),))
    queue = on.settings.task_queue
    made = await schedule_maintenance(on.client, "yearly", request, timing, queue)
    with pytest.raises(Refused) as caught:
        await schedule_maintenance(on.client, "yearly", request, timing, queue)
    assert caught.value.refusal.rule == "schedule_exists"
    (listed_one,) = await listed_soon(on.client, on.cluster_id)
    assert (listed_one.schedule_id, listed_one.paused) == (made, False)

    schedule = await handle_of(on.client, on.cluster_id, "yearly")
    await schedule.trigger()
    run = on.client.get_workflow_handle_for(PlannedMaintenance.run, failover_id(on.cluster_id))
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while not await exists(run):
            await looks.again()
    await crowd.approve(run, "ann")
    result = await run.result()
    assert result.verified and result.initiator_roles == ("continuity_operator",)
    await schedule.delete()


async def test_clusters_whose_names_begin_alike_keep_their_schedules_apart(stage: Setting) -> None:
    """`shop` may have a schedule of the very id that one of `shop-eu` has."""
    on = await stage(serve=False)
    shop, timing = on.cluster_id, Timing(cron="0 3 1 1 *")
    request = Crowd(on).request(cluster_id=f"{shop}-eu")
    await schedule_maintenance(on.client, "default", request, timing)
    (own,) = await listed_soon(on.client, f"{shop}-eu")
    assert own.schedule_id == f"maintenance-{shop}-eu-default"
    assert await listed(on.client, shop) == []
    for name in ("eu-default", "default"):
        with pytest.raises(Refused) as caught:
            await handle_of(on.client, shop, name)
        assert caught.value.refusal.rule == "no_schedule"
    await (await handle_of(on.client, f"{shop}-eu", "default")).delete()


async def test_a_schedule_in_a_time_zone_that_nobody_knows_is_refused(stage: Setting) -> None:
    on = await stage()
    timing = Timing(cron="0 3 * * SUN", time_zone="Europe/Atlantis")
    with pytest.raises(Refused) as caught:
        await schedule_maintenance(on.client, "x", Crowd(on).request(), timing)
    assert caught.value.refusal.rule == "time_zone_unknown"


async def exists(run: Run) -> bool:
    try:
        return (await run.describe()).status is not None
    except RPCError:
        return False
