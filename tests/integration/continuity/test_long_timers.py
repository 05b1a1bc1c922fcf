"""The guardian over hours, on the time-skipping server: rules end by themselves, retries get rarer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from temporalio.client import WorkflowHandle

from qnwis.continuity.detection import Finding
from qnwis.continuity.guardian_rules import RETRY_FIRST, RETRY_LONGEST, PastRun
from qnwis.continuity.run import RunOutcome
from qnwis.providers.errors import Unreachable
from workflows.guardian import Guardian
from workflows.guardian_state import GuardianView

from .test_guardian import all_healthy, until
from .time_skipping import BEAT, Hours, hours

Passing = Callable[..., Awaitable[Hours]]
SOON = BEAT.total_seconds() + 5


@pytest.fixture
async def passing(tmp_path: Path) -> AsyncIterator[Passing]:
    """Builds a stage in skipping time: `await passing()`, with policy fields to differ from the default."""
    async with AsyncExitStack() as running:
        yield lambda **policy: running.enter_async_context(hours(tmp_path, **policy))


async def fail_over(on: Hours, guardian: WorkflowHandle[Guardian, None], victim: str) -> PastRun:
    """Kill the primary, let it be failed over, and bring its node back as a standby."""
    known = len((await guardian.query(Guardian.view)).history)
    on.stage.world.kill(victim)
    await on.pass_by(SOON)
    view = await until(guardian, lambda v: len(v.history) == known + 1)
    assert view.last_result is not None and view.last_result.verified
    on.stage.world.come_back(victim)
    await on.pass_by(SOON)
    await until(guardian, all_healthy)
    return view.history[-1]


async def kill_and_see_it_held(
    on: Hours, guardian: WorkflowHandle[Guardian, None], victim: str
) -> GuardianView:
    on.stage.world.kill(victim)
    await on.pass_by(SOON)
    return await until(guardian, lambda v: v.holding is not None)


async def held_until(on: Hours, guardian: WorkflowHandle[Guardian, None], end: datetime) -> None:
    """It is held to the last minute, and failed over when the rule ends, not before."""
    await on.pass_by((end - await on.now()).total_seconds() - 60)
    view = await guardian.query(Guardian.view)
    assert view.holding is not None and on.stage.world.writable() == []

    before = view.last_result
    await on.pass_by(70)
    view = await until(guardian, lambda v: v.last_result != before)
    assert view.last_result is not None and view.last_result.verified
    assert end - timedelta(seconds=1) < view.last_result.started_at < end + timedelta(seconds=60)
    assert view.holding is None and len(on.stage.world.writable()) == 1


async def test_the_cooldown_holds_a_second_failover_and_ends_by_itself(passing: Passing) -> None:
    on = await passing(cooldown_s=600)
    guardian = await on.stage.start_guardian()
    await until(guardian, all_healthy)
    first = await fail_over(on, guardian, "node-1")

    view = await kill_and_see_it_held(on, guardian, "node-2")
    end = first.ended_at + timedelta(seconds=600)
    assert "cooldown" in (view.holding or "") and f"ends at {end.isoformat()}" in (view.holding or "")

    await held_until(on, guardian, end)


async def test_the_hourly_cap_ends_when_the_oldest_failover_is_an_hour_ago(passing: Passing) -> None:
    on = await passing(cooldown_s=0, max_failovers_per_hour=2)
    guardian = await on.stage.start_guardian()
    await until(guardian, all_healthy)
    oldest = await fail_over(on, guardian, "node-1")
    await on.pass_by(600)
    await fail_over(on, guardian, "node-2")

    view = await kill_and_see_it_held(on, guardian, "node-1")
    end = oldest.ended_at + timedelta(hours=1)
    holding = view.holding or ""
    assert "max_failovers_per_hour" in holding and f"ends at {end.isoformat()}" in holding

    await held_until(on, guardian, end)


async def test_an_overrun_is_told_while_the_run_goes_on_and_fails_its_verification(passing: Passing) -> None:
    on = await passing(max_failover_time_s=30)
    on.stage.world.kill("node-1")
    told: list[str] = []

    def at_the_promotion(effect: str) -> None:
        if effect == "promote":
            told[:] = on.notes.titles

    on.stage.world.before_effect = at_the_promotion
    on.stage.world.fail_next("promote", *[Unreachable("lost")] * 22)
    result = await (await on.stage.start()).result()

    overrun = f"failover of {on.stage.cluster_id} overrun"
    assert overrun in told and on.notes.titles.count(overrun) == 1
    assert result.ended_at - result.started_at > timedelta(seconds=30)
    assert result.outcome is RunOutcome.INCOMPLETE
    assert result.verification is not None
    assert [c.name for c in result.verification.checks if not c.ok] == ["within_time"]


async def test_a_run_in_time_tells_of_no_overrun(passing: Passing) -> None:
    on = await passing(max_failover_time_s=30)
    on.stage.world.kill("node-1")

    assert (await (await on.stage.start()).result()).verified
    await on.pass_by(60)

    names = [title.rsplit(" ", 1)[1] for title in on.notes.titles]
    assert names == ["started", "completed"]


async def test_a_suspected_partition_is_looked_at_ever_less_often_and_starts_nothing(
    passing: Passing,
) -> None:
    """Three hours of a partition: the standbys hear the primary, the control plane does not."""
    on = await passing()
    guardian = await on.stage.start_guardian()
    await until(guardian, all_healthy)
    on.stage.world.cut_off("node-1")
    await on.pass_by(timedelta(hours=3).total_seconds())

    history = await guardian.fetch_history()
    looks = [
        event.event_time.ToDatetime()
        for event in history.events
        if event.activity_task_scheduled_event_attributes.activity_type.name == "collect"
    ][1:]  # the first asked who the primary is
    ever_less_often(looks)
    view = await guardian.query(Guardian.view)
    assert view.verdicts["node-1"].finding is Finding.PARTITION_SUSPECTED
    assert on.stage.world.journal == [] and view.history == ()
    assert len(history.events) < 4096, "the guardian would have to continue as new"


async def test_a_failover_that_is_refused_is_tried_ever_less_often(passing: Passing) -> None:
    """Three hours without a quorum: the primary and a standby are gone."""
    on = await passing()
    guardian = await on.stage.start_guardian()
    await until(guardian, all_healthy)
    on.stage.world.kill("node-3")
    on.stage.world.kill("node-1")
    await on.pass_by(timedelta(hours=3).total_seconds())

    history = await guardian.fetch_history()
    ever_less_often(
        [
            event.event_time.ToDatetime()
            for event in history.events
            if event.HasField("start_child_workflow_execution_initiated_event_attributes")
        ]
    )
    view = await guardian.query(Guardian.view)
    assert "[backing_off]" in (view.holding or "") and "no_quorum" in (view.holding or "")
    assert on.stage.world.journal == []
    assert len(history.events) < 4096, "the guardian would have to continue as new"
    assert len(view.history) <= timedelta(hours=1) / RETRY_LONGEST + 1


def ever_less_often(times: list[datetime]) -> None:
    """Each wait is at least twice the one before, up to the longest."""
    waits = [later - earlier for earlier, later in pairwise(times)]
    expected, wait = [], RETRY_FIRST
    for _ in waits:
        expected.append(wait)
        wait = min(wait * 2, RETRY_LONGEST)
    assert len(waits) > 30 and expected[-1] == RETRY_LONGEST
    assert all(e <= w for e, w in zip(expected, waits, strict=True)), waits
