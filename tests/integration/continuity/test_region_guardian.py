"""Regions' and clusters' guardians on a real Temporal server: who waits for whom, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from temporalio import workflow
from temporalio.client import Client
from temporalio.client import Interceptor as ClientInterceptor
from temporalio.worker import (
    Interceptor,
    StartChildWorkflowInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ChildWorkflowHandle

from qnwis.continuity.access import Deed
from qnwis.continuity.approvals import Vote
from qnwis.continuity.guardian_rules import Pause
from qnwis.continuity.notifications import Notification, RunEvent, Told
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.region_plan import Direction
from qnwis.continuity.region_wait import RegionFinding
from qnwis.continuity.run import RunOutcome
from qnwis.continuity.topology import NodeStatus
from qnwis.providers.errors import Refused
from qnwis.starting import start_region_guardian
from workflows.guardian_state import GuardianView
from workflows.names import region_guardian_id, region_id
from workflows.primary_failure import PrimaryFailure
from workflows.region_failure import RegionFailure
from workflows.region_guardian import RegionGuardian, RegionView

from .land import WITHIN_S, Build, Land, hold_the_promise, lands, pending, until_view

NEVER_S = 600
"""Of a rule whose end no test waits for."""
NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.fixture
async def land(client: Client, tmp_path: Path) -> AsyncIterator[Build]:
    async with lands(client, tmp_path) as build:
        yield build


class Heard:
    """What people are told of regions."""

    def __init__(self) -> None:
        self.told = asyncio.Queue[Notification]()

    async def send(self, notification: Notification) -> Told:
        if notification.event is RunEvent.REGION_LOST:
            self.told.put_nowait(notification)
        return Told()

    async def next(self) -> Notification:
        async with asyncio.timeout(WITHIN_S):
            return await self.told.get()


async def becomes(on: Land, finding: RegionFinding, *, held: bool = False) -> RegionView:
    """`held`: once it says, too, why nothing begins by itself."""
    guardian = on.client.get_workflow_handle_for(RegionGuardian.run, region_guardian_id(on.region))

    def so(view: RegionView) -> bool:
        known = bool(view.primaries_inside) and not view.silent and view.verdict is not None
        return known and view.verdict.finding is finding and held is (view.holding is not None)

    return await until_view(lambda: guardian.query(RegionGuardian.view), so)


def unmoved(on: Land) -> bool:
    return all(world.journal == [] for world in on.worlds.by_cluster.values())


def heal(on: Land) -> None:
    for world in on.worlds.by_cluster.values():
        for node in world.cluster.nodes:
            world.revive(node.node_id)


def waits(view: GuardianView) -> bool:
    return "[region_loss_suspected]" in (view.holding or "")


async def test_a_lost_region_is_told_of_when_it_lasts_and_so_is_its_end(land: Build) -> None:
    heard = Heard()
    on, _ = await land("a", "b", watched=True, rules={"dwell_s": 1, "settle_s": 1}, notifier=heard)
    await on.guard(pause=Pause(by="ann", reason="test", since=NOON))
    await on.watch_region()
    view = await becomes(on, RegionFinding.WELL)
    assert set(view.primaries_inside) == set(on.worlds.by_cluster) and view.holding is None
    on.lose(on.region)
    await becomes(on, RegionFinding.SUSPECTED)
    assert heard.told.empty()
    view = await becomes(on, RegionFinding.LOST, held=True)
    assert "[region_strategy_manual]" in (view.holding or "") and view.begun is None
    told = await heard.next()
    assert told.title == f"{on.region} is lost"
    assert f"qnwis-continuity region evacuate {on.region} --reason …" in told.text
    heal(on)
    await becomes(on, RegionFinding.WELL)
    assert (await heard.next()).title == f"{on.region} is well again" and heard.told.empty()
    assert unmoved(on), "it moves nothing by itself"


async def test_a_partition_that_heals_moves_no_cluster_though_each_would_fail_over_alone(land: Build) -> None:
    policy = {"strategy": "automatic", "region_wait_s": NEVER_S, "region_listen_s": 60}
    rules = {"dwell_s": NEVER_S, "settle_s": 1}
    on, _ = await land("a", "b", watched=True, rules=rules, policy=policy)
    await on.guard()
    await on.watch_region()
    on.lose(on.region)
    for name in on.worlds.by_cluster:
        view = await on.until(name, waits)
        assert view.failed is not None and view.failed.node_id == f"{name}-1"
        assert f"{on.region} is suspected" in (view.holding or "")
    assert unmoved(on)
    heal(on)
    await becomes(on, RegionFinding.WELL)
    for name in on.worlds.by_cluster:
        view = await on.until(name, lambda seen: on.told(seen) is RegionFinding.WELL)
        assert view.holding is None and view.failed is None
    assert unmoved(on) and on.serving() == {name: [f"{name}-1"] for name in on.worlds.by_cluster}


async def test_a_region_that_only_the_watchers_do_not_reach_is_not_lost(land: Build) -> None:
    """Its primaries are still heard by their standbys elsewhere: nothing waits, and nothing moves."""
    policy = {"strategy": "automatic", "region_strategy": "automatic", "region_wait_s": NEVER_S}
    on, _ = await land("a", "b", watched=True, rules={"dwell_s": 0, "settle_s": 0}, policy=policy)
    await on.guard()
    await on.watch_region()
    for name, world in on.worlds.by_cluster.items():
        world.cut_off(f"{name}-1")
        world.cut_off(f"{name}-2")
    for name in on.worlds.by_cluster:
        view = await on.until(name, lambda seen: "[partition_suspected]" in (seen.holding or ""))
        view = await on.until(name, lambda seen: seen.statuses[f"{seen.cluster_id}-2"] is NodeStatus.FAILED)
        assert on.told(view) is RegionFinding.WELL
    told = on.client.get_workflow_handle_for(RegionGuardian.run, region_guardian_id(on.region))
    view = await until_view(
        lambda: told.query(RegionGuardian.view),
        lambda seen: seen.verdict is not None and "2 failed nodes of 2 clusters" in seen.verdict.why,
    )
    assert view.verdict is not None and view.verdict.finding is RegionFinding.WELL and view.begun is None
    assert unmoved(on) and on.serving() == {name: [f"{name}-1"] for name in on.worlds.by_cluster}


async def test_one_cluster_whose_other_node_there_answers_waits_for_nobody(land: Build) -> None:
    policy = {"strategy": "automatic", "region_wait_s": NEVER_S, "region_listen_s": NEVER_S}
    on, _ = await land("a", "b", watched=True, policy=policy)
    a, b = on.worlds.by_cluster
    await on.guard()
    await on.watch_region()
    on.worlds.by_cluster[a].kill(f"{a}-1")
    view = await on.until(a, lambda seen: seen.last_result is not None)
    assert view.last_result is not None and view.last_result.verified
    assert on.serving()[a] == [f"{a}-2"] and on.worlds.by_cluster[b].journal == []


async def test_the_guardian_of_a_region_dies_and_the_wait_ends_at_its_bound(land: Build) -> None:
    policy = {"strategy": "automatic", "region_wait_s": 6, "region_listen_s": 6}
    on, _ = await land("a", "b", watched=True, rules={"dwell_s": NEVER_S}, policy=policy)
    await on.guard()
    guardian = await on.watch_region()
    on.lose(on.region)
    for name in on.worlds.by_cluster:
        await on.until(name, waits)
    await guardian.terminate("its host is gone")
    assert unmoved(on)
    for name in on.worlds.by_cluster:
        view = await on.until(name, lambda seen: seen.last_result is not None)
        assert view.last_result is not None and view.last_result.verified, view.last_result
        assert on.told(view) is RegionFinding.SUSPECTED and on.serving()[name] == [f"{name}-3"]


async def test_a_lost_region_is_left_once_and_only_by_clusters_whose_policy_says_so(land: Build) -> None:
    heard = Heard()
    policy = {"region_strategy": "automatic", "region_wait_s": NEVER_S}
    rules = {"dwell_s": 2, "settle_s": NEVER_S}
    on, _ = await land("a", "b", "c", watched=True, rules=rules, policy=policy, notifier=heard)
    a, b, c = on.worlds.by_cluster
    by_people = on.settings.config_dir / "clusters" / c / "policy.yaml"
    by_people.write_text(
        by_people.read_text().replace("region_strategy: automatic", "region_strategy: manual")
    )
    await on.guard()
    guardian = await on.watch_region()
    on.lose(on.region)
    view = await until_view(
        lambda: guardian.query(RegionGuardian.view),
        lambda seen: seen.begun is not None and seen.begun.outcome is not None,
    )
    assert view.begun is not None and view.begun.clusters == (a, b)
    assert view.begun.outcome is RunOutcome.COMPLETED
    assert "[evacuation_begun]" in (view.holding or "") and str(view.begun.run_id) in (view.holding or "")
    run = on.client.get_workflow_handle_for(RegionFailure.run, region_id(on.region))
    result = await run.result()
    assert result.verified and result.run_id == view.begun.run_id and result.approval is None
    assert on.serving() == {a: [f"{a}-3"], b: [f"{b}-3"], c: []}
    assert on.worlds.by_cluster[c].journal == []
    assert f"{c} stays: region_strategy manual" in (await heard.next()).text

    (record,) = await on.providers.audit.by_run(result.run_id)
    assert (record.initiated_by, record.role) == (region_guardian_id(on.region), "service")
    assert "is lost" in record.reason and not record.approval.required
    for moved in result.moved:
        (own,) = await on.providers.audit.by_run(moved.run_id or "")
        assert (own.initiated_by, own.role) == (region_guardian_id(on.region), "service")
    assert waits(await on.until(c, waits)), "its own guardian waits for people, who may leave it"
    found = [one async for one in on.client.list_workflows(f"WorkflowId = '{region_id(on.region)}'")]
    assert len(found) == 1


async def test_a_guardian_of_a_region_that_is_started_anew_goes_on_with_what_was_begun(land: Build) -> None:
    """Terminated while the evacuation goes on, and again when that has ended: one loss, one evacuation."""
    heard = Heard()
    policy = {"region_strategy": "automatic", "region_wait_s": NEVER_S}
    rules = {"dwell_s": 1, "settle_s": NEVER_S}
    on, _ = await land("a", "b", watched=True, rules=rules, policy=policy, notifier=heard)
    a, b = on.worlds.by_cluster
    await on.guard()
    guardian = await on.watch_region()
    refused = Refusal(rule="not_today", message="-", remedy="-")
    on.worlds.by_cluster[b].fail_next("promote", Refused(refused))  # so that a primary is left in the region
    reached, go_on = hold_the_promise(on, a)
    on.lose(on.region)
    view = await until_view(lambda: guardian.query(RegionGuardian.view), lambda seen: seen.begun is not None)
    assert view.begun is not None and view.verdict is not None
    first, since = view.begun, view.verdict.since
    assert (await heard.next()).title == f"{on.region} is lost"
    await reached.wait()
    await guardian.terminate("its host is gone")

    guardian = await start_region_guardian(on.client, on.region, on.settings.task_queue)
    view = await becomes(on, RegionFinding.LOST, held=True)
    assert view.begun == first and view.verdict is not None and view.verdict.since == since
    go_on.set()
    view = await until_view(
        lambda: guardian.query(RegionGuardian.view),
        lambda seen: seen.begun is not None and seen.begun.outcome is not None,
    )
    assert view.begun is not None and view.begun.outcome in (RunOutcome.INCOMPLETE, RunOutcome.ROLLED_BACK)
    ended = view.begun
    await guardian.terminate("its host is gone again")

    await start_region_guardian(on.client, on.region, on.settings.task_queue)
    view = await becomes(on, RegionFinding.LOST, held=True)
    assert view.begun == ended and b in view.primaries_inside
    assert "[evacuation_begun]" in (view.holding or "") and str(first.run_id) in (view.holding or "")
    assert heard.told.empty(), "people were told of this loss before"
    found = [one async for one in on.client.list_workflows(f"WorkflowId = '{region_id(on.region)}'")]
    assert len(found) == 1


class ManyEvents(workflow.Info):
    """Of an execution whose history has become long."""

    def is_continue_as_new_suggested(self) -> bool:
        return True


class LongAtAnEvacuation(WorkflowOutboundInterceptor):
    """The history of whoever begins an evacuation is long once it has tried `AT_TRY` times; not so that of
    what it continues as."""

    AT_TRY = 1
    tries = 0

    async def start_child_workflow(self, input: StartChildWorkflowInput) -> ChildWorkflowHandle[Any, Any]:
        self.tries += workflow.info().workflow_type == RegionGuardian.__name__
        return await self.next.start_child_workflow(input)

    def info(self) -> workflow.Info:
        info = self.next.info()
        is_long = self.tries >= self.AT_TRY and info.continued_run_id is None
        return ManyEvents(**vars(info)) if is_long else info


class LongAtItsSecondTry(LongAtAnEvacuation):
    """By then the region's report says nothing new."""

    AT_TRY = 2


class Inbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(LongAtAnEvacuation(outbound))


class InboundOfTwoTries(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(LongAtItsSecondTry(outbound))


class LongHistories(ClientInterceptor, Interceptor):
    def __init__(self, inbound: type[WorkflowInboundInterceptor] = Inbound) -> None:
        self._inbound = inbound

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor]:
        return self._inbound


def with_long_histories(client: Client, inbound: type[WorkflowInboundInterceptor] = Inbound) -> Client:
    known: Any = client.config()
    return Client(**{**known, "interceptors": [*known["interceptors"], LongHistories(inbound)]})


async def test_a_guardian_continues_as_new_while_an_evacuation_goes_on_and_follows_it_to_its_end(
    land: Build,
) -> None:
    """Each report names every cluster of the region, twice, and there are many while these are moved."""
    policy = {"region_strategy": "automatic", "region_wait_s": NEVER_S}
    rules = {"dwell_s": 1, "settle_s": NEVER_S}
    on, _ = await land("a", "b", serve=False, watched=True, rules=rules, policy=policy)
    on.client = with_long_histories(on.client)
    a, b = on.worlds.by_cluster
    async with AsyncExitStack() as running:
        for worker in on.workers():
            await running.enter_async_context(worker)
        await on.guard()
        guardian = await on.watch_region()
        first = (await guardian.describe()).run_id
        reached, go_on = hold_the_promise(on, a)
        on.lose(on.region)
        await asyncio.wait_for(reached.wait(), WITHIN_S)
        current = on.client.get_workflow_handle_for(RegionGuardian.run, guardian.id)
        async with asyncio.timeout(WITHIN_S):
            while (await current.describe()).run_id == first:
                await asyncio.sleep(0.1)
        view = await current.query(RegionGuardian.view)
        assert view.begun is not None and view.begun.goes_on
        go_on.set()
        ended = await until_view(
            lambda: current.query(RegionGuardian.view),
            lambda seen: seen.begun is not None and seen.begun.outcome is not None,
        )
        assert ended.begun is not None and ended.begun.outcome is RunOutcome.COMPLETED
        assert ended.begun.run_id == view.begun.run_id
        assert on.serving() == {a: [f"{a}-3"], b: [f"{b}-3"]}
        await on.end_guardians()


async def test_a_region_that_is_lost_while_a_failback_waits_for_people_is_left_once_that_has_ended(
    land: Build,
) -> None:
    policy = {"region_strategy": "automatic", "region_wait_s": NEVER_S, "approvals": True}
    rules = {"dwell_s": 1, "settle_s": NEVER_S}
    on, crowd = await land("a", "b", watched=True, rules=rules, policy=policy)
    a, b = on.worlds.by_cluster
    serve_from(on, b, f"{b}-3")
    await on.guard()
    guardian = await on.watch_region()
    failback = await on.evacuate(crowd, direction=Direction.BACK)
    waiting = await pending(failback)

    on.lose(on.region)
    view = await becomes(on, RegionFinding.LOST, held=True)
    assert "[region_lock_taken]" in (view.holding or "") and view.begun is None and unmoved(on)
    vote = crowd.vote("ann", waiting, Deed.REJECT, reason="lost again", cluster_id=on.region)
    await failback.execute_update("reject", vote, result_type=Vote)
    view = await until_view(
        lambda: guardian.query(RegionGuardian.view),
        lambda seen: seen.begun is not None and seen.begun.outcome is not None,
    )
    assert view.begun is not None and view.begun.outcome is RunOutcome.COMPLETED
    assert on.serving() == {a: [f"{a}-3"], b: [f"{b}-3"]}


async def test_what_a_guardian_was_to_try_again_it_tries_again_when_it_has_continued_as_new(
    land: Build,
) -> None:
    """A region that stays lost has no other report, and its loss would never be answered."""
    policy = {"region_strategy": "automatic", "region_wait_s": NEVER_S, "approvals": True}
    rules = {"dwell_s": 1, "settle_s": NEVER_S}
    on, crowd = await land("a", "b", serve=False, watched=True, rules=rules, policy=policy)
    on.client = with_long_histories(on.client, InboundOfTwoTries)
    a, b = on.worlds.by_cluster
    serve_from(on, b, f"{b}-3")
    async with AsyncExitStack() as running:
        for worker in on.workers():
            await running.enter_async_context(worker)
        await on.guard()
        first = (await (await on.watch_region()).describe()).run_id
        failback = await on.evacuate(crowd, direction=Direction.BACK)
        waiting = await pending(failback)
        on.lose(on.region)
        guardian = on.client.get_workflow_handle_for(RegionGuardian.run, region_guardian_id(on.region))
        async with asyncio.timeout(WITHIN_S):
            while (await guardian.describe()).run_id == first:
                await asyncio.sleep(0.1)
        await until_view(
            lambda: guardian.query(RegionGuardian.view),
            lambda seen: "[region_lock_taken]" in (seen.holding or "") and seen.begun is None,
        )
        vote = crowd.vote("ann", waiting, Deed.REJECT, reason="lost again", cluster_id=on.region)
        await failback.execute_update("reject", vote, result_type=Vote)
        view = await until_view(
            lambda: guardian.query(RegionGuardian.view),
            lambda seen: seen.begun is not None and seen.begun.outcome is not None,
        )
        assert view.begun is not None and view.begun.outcome is RunOutcome.COMPLETED
        assert on.serving() == {a: [f"{a}-3"], b: [f"{b}-3"]}
        await on.end_guardians()


def serve_from(on: Land, name: str, node_id: str) -> None:
    """As after an earlier evacuation of that cluster."""
    world = on.worlds.by_cluster[name]
    for node in world.cluster.nodes:
        if node.holds_data:
            machine = world.machines[node.node_id]
            machine.primary = node.node_id == node_id
            machine.upstream = None if machine.primary else node_id
    world.address = world.cluster.node(node_id).hostname


async def test_a_region_that_only_unplaced_vantages_call_lost_is_left_to_people(land: Build) -> None:
    policy = {"region_strategy": "automatic", "region_wait_s": NEVER_S}
    on, _ = await land("a", "b", watched=True, rules={"dwell_s": 1}, policy=policy)
    for path in on.settings.config_dir.glob("clusters/*/cluster.yaml"):
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "vantage_regions": {}}))
    await on.guard()
    await on.watch_region()
    on.lose(on.region)
    view = await becomes(on, RegionFinding.LOST, held=True)
    assert "[not_seen_from_outside]" in (view.holding or "") and view.begun is None and unmoved(on)


async def test_while_a_run_waits_for_people_its_guardian_and_the_regions_see_what_happens(
    land: Build,
) -> None:
    """The run was begun before the region was lost; until people answer, the picture must not stand still."""
    on, crowd = await land("a", "b", watched=True, rules={"dwell_s": NEVER_S, "settle_s": 1})
    a, _ = on.worlds.by_cluster
    await on.guard()
    on.worlds.by_cluster[a].kill(f"{a}-1")
    view = await on.until(a, lambda seen: seen.own_run is not None)
    own = view.own_run
    await start_region_guardian(on.client, on.region, on.settings.task_queue)
    await becomes(on, RegionFinding.WELL)

    on.lose(on.region)
    await becomes(on, RegionFinding.SUSPECTED)
    view = await on.until(a, lambda seen: seen.statuses[f"{a}-2"] is NodeStatus.FAILED)
    assert view.own_run == own and "waits for people" in (view.holding or "")
    on.worlds.by_cluster[a].revive(f"{a}-2")
    await becomes(on, RegionFinding.WELL)

    run = on.client.get_workflow_handle_for(PrimaryFailure.run, on.run_of(a).id, run_id=own)
    waiting = (await run.query(PrimaryFailure.progress_view)).approval
    assert waiting is not None
    vote = crowd.vote("ann", waiting, Deed.REJECT, reason="the region", cluster_id=a)
    await run.execute_update("reject", vote, result_type=Vote)
    view = await on.until(a, lambda seen: seen.own_run is None)
    assert [past.outcome for past in view.history] == [RunOutcome.REJECTED] and unmoved(on)
