"""A region is left by an active/active cluster: its weight goes to others, and returns in checked steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.client import Client

from qnwis.continuity.access import Deed
from qnwis.continuity.region_plan import Direction
from qnwis.continuity.run import AbortRequest, ResumeRunRequest, RunOutcome
from tests.looking import Looks
from workflows.region_failure import RegionFailure
from workflows.shifting import STEP_MARK

from .land import WITHIN_S, ActiveActive, Build, approve, lands, pending, result_of, say


@pytest.fixture
async def land(client: Client, tmp_path: Path) -> AsyncIterator[Build]:
    async with lands(client, tmp_path) as build:
        yield build


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
            looks = Looks()
            while (held := (await run.query(RegionFailure.progress_view)).paused) is None:
                await looks.again()
        assert "region_lags" in held and shop.weights[here] == 5
        assert on.serving() == {a: [f"{a}-3"]}
        await say(crowd, run, "resume", Deed.RESUME, ResumeRunRequest(by="bob", reason="look again"))
    result = await result_of(run)
    assert result.verified, result.reason
    assert [step[here] for step in shop.shifts] == [0, 5, 25, 50]
    assert shop.weights == {here: 50, there: 30, third: 20} and on.serving() == {a: [f"{a}-1"]}
    shown = await run.query(RegionFailure.progress_view)
    told = [line for step in shown.steps for line in step.remarks if STEP_MARK in line]
    steps = zip((1, 2, 3), (5, 25, 50), told, strict=True)
    assert all(f"step {n} of 3: weights {here} {weight}," in line for n, weight, line in steps), told
    assert all("after the check: its primary takes writes" in line for line in told)


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
        looks = Looks()
        while (held := (await run.query(RegionFailure.progress_view)).paused) is None:
            await looks.again()
    assert "regions_differ" in held
    await say(crowd, run, "abort", Deed.ABORT, AbortRequest(by="bob", reason="not today"))
    result = await result_of(run)
    (moved,) = result.moved
    assert moved.outcome is RunOutcome.INCOMPLETE and f"'{here}': 5" in moved.reason
    assert shop.weights[here] == 5 and sum(shop.weights.values()) == 100
