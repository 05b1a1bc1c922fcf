"""Drills of the runbook for a primary that is gone, on one that is well: there, and all the way back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.client import Interceptor as ClientInterceptor
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    Interceptor,
    StartChildWorkflowInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ChildWorkflowHandle

from qnwis.continuity.access import Deed
from qnwis.continuity.decisions import PREFIX
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.round_trips import RoundTripResult
from qnwis.continuity.run import Maintenance, RunKind, RunOutcome
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.proofs import last_drill_at
from qnwis.starting import start_round_trip
from tests.looking import WITHIN_S, Looks
from workflows.names import failover_id
from workflows.primary_failure import PrimaryFailure
from workflows.round_trip import RoundTrip

from .conftest import Run, Setting, Stage
from .people import Crowd
from .test_planned_maintenance import exists, serving
from .time_skipping import Hours, hours

Trip = WorkflowHandle[RoundTrip, RoundTripResult]
FAILOVER = ["power_off", "promote", "follow", "dns", "power_on", "rejoin"]
SWITCHOVER = ["quiesce", "hand_over", "promote", "follow", "dns", "rejoin"]


async def drill(on: Stage, crowd: Crowd) -> Trip:
    """bob starts it, as `execute CLUSTER --drill` does."""
    request = crowd.request(
        even_if_healthy=True,
        maintenance=Maintenance(drill=True, back_after_s=0, there_by=RunKind.PRIMARY_FAILURE),
    )
    return await start_round_trip(on.client, request, on.settings.task_queue)


async def begun(on: Stage) -> Run:
    """The drill's own run, once it is there."""
    run = on.client.get_workflow_handle_for(PrimaryFailure.run, failover_id(on.cluster_id))
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while not await exists(run):
            await looks.again()
    return run


async def test_a_healthy_primary_is_failed_over_on_purpose_and_everything_is_as_it_was(
    stage: Setting,
) -> None:
    on = await stage(approvals=True)
    crowd = serving(on)
    trip = await drill(on, crowd)
    await crowd.approve(await begun(on), "ann")

    result = await trip.result()

    assert result.verified and result.left_to_do == (), result.summary
    assert result.there is not None and result.back is not None
    assert (result.there.kind, result.back.kind) == (RunKind.PRIMARY_FAILURE, RunKind.PLANNED_MAINTENANCE)
    assert result.there.approval is not None and result.back.approval is None
    effects = [effect for effect, _ in on.world.journal]
    assert sorted(effects[:6]) == sorted(FAILOVER) and effects[6:] == SWITCHOVER
    assert on.world.writable() == ["node-1"] and on.world.writable_at_most == 1
    assert {m.upstream for m in on.world.machines.values()} == {None, "node-1"}
    assert on.world.address == "10.0.1.10"
    decided = await on.providers.audit.latest(10)
    records = [record for record in decided if not record.operation.startswith(PREFIX)]
    assert [record.operation for record in records] == ["drill_execute"] * 2
    assert last_drill_at(records, on.cluster_id) == records[0].timestamp


async def test_a_drill_that_is_cancelled_says_what_is_left_to_do(stage: Setting) -> None:
    on = await stage()
    gone = asyncio.Event()

    def does_not_answer(effect: str) -> None:
        if effect == "rejoin":
            gone.set()
            raise Unreachable("node-1: connection refused")

    on.world.before_effect = does_not_answer
    trip = await drill(on, serving(on))
    await asyncio.wait_for(gone.wait(), 30)
    await trip.cancel()

    result = await trip.result()

    assert result.there is not None and result.there.verified
    assert not result.verified and result.back is None
    assert [line.partition(":")[0] for line in result.left_to_do] == [
        "bring node-1 back as a standby",
        "move the service back",
    ]
    assert "NOT where it began" in result.summary and on.world.writable() == ["node-2"]


async def test_a_drill_whose_run_is_cancelled_has_moved_nothing(stage: Setting) -> None:
    on = await stage(approvals=True)
    crowd = serving(on)
    trip = await drill(on, crowd)
    run = await begun(on)
    await run.cancel()

    result = await trip.result()
    assert result.there is not None and result.there.outcome is RunOutcome.UNTOUCHED
    assert not result.verified and result.left_to_do == () and on.world.journal == []


async def test_a_drill_whose_run_is_terminated_does_not_say_that_it_was_skipped(stage: Setting) -> None:
    """The run may have moved the service, or its guardian moves it when it finishes that."""
    on = await stage(approvals=True)
    trip = await drill(on, serving(on))
    await (await begun(on)).terminate("by mistake")

    result = await trip.result()
    assert result.there is None and not result.verified
    assert [line.partition(":")[0] for line in result.left_to_do] == [
        "see where the service is",
        "if it has moved, move it back",
    ]
    assert "skipped" not in result.summary and "ended from outside" in result.summary


class StartsOnlyWhenCancelled(WorkflowOutboundInterceptor):
    """A child is there for its parent no sooner than that is cancelled."""

    async def start_child_workflow(self, input: StartChildWorkflowInput) -> ChildWorkflowHandle[Any, Any]:
        child = await self.next.start_child_workflow(input)
        await workflow.wait_condition(lambda: workflow.cancellation_reason() is not None)
        # And after whoever is told of the cancel at once.
        await workflow.sleep(0.001)
        return child


class Starting(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(StartsOnlyWhenCancelled(outbound))


class LateStarts(ClientInterceptor, Interceptor):
    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[WorkflowInboundInterceptor]:
        return Starting


async def test_a_drill_that_is_cancelled_while_its_run_is_being_started_moves_nothing(stage: Setting) -> None:
    on = await stage(serve=False, approvals=True)
    known: Any = on.client.config()
    on.client = Client(**{**known, "interceptors": [*known["interceptors"], LateStarts()]})
    async with AsyncExitStack() as running:
        for worker in on.workers():
            await running.enter_async_context(worker)
        trip = await drill(on, serving(on))
        await begun(on)
        await trip.cancel()
        async with asyncio.timeout(WITHIN_S):
            result = await trip.result()

    assert result.there is not None and result.there.outcome is RunOutcome.UNTOUCHED, result
    assert "cancelled" in result.there.reason and result.left_to_do == () and on.world.journal == []


async def test_nobody_says_by_hand_that_a_round_trip_is_a_way_back(stage: Setting) -> None:
    on = await stage(approvals=True)
    request = serving(on).request(maintenance=Maintenance(returns="run-1"))
    trip = await start_round_trip(on.client, request, on.settings.task_queue)
    with pytest.raises(WorkflowFailureError) as caught:
        await trip.result()
    assert isinstance(caught.value.cause, ApplicationError) and caught.value.cause.type == "no_way_back"

    failover = await (await on.start(even_if_healthy=True, maintenance={"returns": "run-1"})).result()
    assert failover.outcome is RunOutcome.REFUSED and on.world.journal == []


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"maintenance": {}}, "permission_missing"),
        ({"maintenance": {"drill": True}}, "only a round trip"),
    ],
)
async def test_what_a_request_says_of_maintenance_lets_nobody_fail_over_a_healthy_primary(
    stage: Setting, said: dict[str, object], why: str
) -> None:
    """A failover does not heed it: bob, who may start runs, would have a primary fenced that serves."""
    on = await stage(approvals=True)
    crowd = serving(on)
    result = await (await crowd.start("bob", even_if_healthy=True, **said)).result()
    assert result.outcome is RunOutcome.REFUSED and why in result.reason, result
    assert on.world.journal == []

    run = await crowd.start("ann", even_if_healthy=True, maintenance={})
    await crowd.approve(run, "dora")
    assert (await run.result()).verified, "who may override constraints may do it"


async def test_no_standing_token_starts_an_emergency_override(stage: Setting) -> None:
    """Signed for a schedule it would need the permission to start runs alone, and serve again and again."""
    on = await stage(approvals=True)
    crowd = serving(on)
    request = crowd.request(override=True, even_if_healthy=True, maintenance=Maintenance())
    for person in ("bob", "ann"):
        signed = crowd.proved(request.model_copy(update={"initiated_by": person}), Deed.SCHEDULE)
        trip = await start_round_trip(on.client, signed, on.settings.task_queue)
        result = await trip.result()
        assert result.there is not None and result.there.refusal is not None, result
        assert result.there.refusal.rule == "token_for_another"
    assert on.world.journal == []


@pytest.mark.parametrize(
    "said", [{"agreed_with": "x"}, {"initiator_roles": ["continuity_admin"]}, {"automatic": True}]
)
async def test_nobody_says_by_hand_that_a_round_trip_was_agreed_to(
    stage: Setting, said: dict[str, object]
) -> None:
    """Not under the workflow id of a region's evacuation either, whose runs need not be asked about."""
    on = await stage(approvals=True)
    request = serving(on).request(maintenance=Maintenance(), **said)
    for workflow_id, rule in (("trip", "not_agreed"), ("region", "wrong_workflow_id")):
        trip = await on.client.start_workflow(
            "RoundTrip", request, id=f"{workflow_id}-of-{on.cluster_id}", task_queue=on.settings.task_queue
        )
        with pytest.raises(WorkflowFailureError) as caught:
            await trip.result()
        assert isinstance(caught.value.cause, ApplicationError) and caught.value.cause.type == rule
    assert on.world.journal == []


# The way back, tried again in skipping time


@pytest.fixture
async def skipping(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Hours]]]:
    async with AsyncExitStack() as running:
        yield lambda **policy: running.enter_async_context(hours(tmp_path, **policy))


async def test_the_way_back_is_tried_until_the_old_primary_is_a_standby_again(
    skipping: Callable[..., Awaitable[Hours]],
) -> None:
    on = (await skipping()).stage
    refusal = Refused(Refusal(rule="upstream_unreachable", message="no answer", remedy="start it"))
    on.world.fail_next("rejoin", refusal, refusal)

    result = await (await drill(on, serving(on))).result()

    assert result.verified, result.summary
    assert on.world.writable() == ["node-1"] and on.world.writable_at_most == 1
