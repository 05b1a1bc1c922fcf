"""Every point at which a run can be disturbed, found by watching one that is not, and what is done to it.

A point is before or after an activity of a run: what an effect of the plan is asked for by, and what each
step reads, decides or writes by. The points are read off a run that goes undisturbed, so a step or an action
that is new is among them by being there.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.client import Interceptor as ClientInterceptor
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from activities.fencing import Fencing
from activities.notification import Notifications
from qnwis.continuity.run import AbortRequest, RunOutcome, RunResult, StepStatus
from qnwis.providers.errors import Unreachable
from qnwis.temporal import connect
from workflows.names import failover_id
from workflows.primary_failure import PrimaryFailure

from .conftest import Run, Stage

When = Literal["before", "after"]


@dataclass(frozen=True)
class Point:
    when: When
    activity: str
    action_id: str
    """Of the plan's action; empty for an activity that is no effect."""
    step: str = ""
    """The runbook's."""

    def __str__(self) -> str:
        return f"{self.step}: {self.when} {self.action_id or self.activity}{'/undo' * self.undoing}"

    @property
    def undoing(self) -> bool:
        return self.activity == Fencing.unfence.__name__

    def is_at(self, other: Point) -> bool:
        """Whether it is the same place, in a run of whichever node: an action has one place in its plan."""
        return (self.when, self.activity) == (other.when, other.activity)


@dataclass
class Hold(ClientInterceptor, Interceptor):
    """Stops the run at one point, once; and notes every point that it passes."""

    at: Point | None = None
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False
    """The worker that was held died: what it had to answer is lost."""
    passed: list[Point] = field(default_factory=list)
    client: Client | None = None

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Held(next, self)

    async def pass_by(self, when: When, asked: ExecuteActivityInput) -> None:
        if (point := self.point_of(when, asked)) is None:
            return
        if self.at is None:
            self.passed.append(replace(point, step=await self.step()))
        elif not self.reached.is_set() and point.is_at(self.at):
            self.reached.set()
            await self.go_on.wait()
            if self.lost:
                raise Unreachable("the worker died here")

    def point_of(self, when: When, asked: ExecuteActivityInput) -> Point | None:
        """Where the run stands, its step left out. What is told to people beside it is no point."""
        name = activity.info().activity_type
        if name == Notifications.notify.__name__:
            return None
        action = getattr(asked.args[0], "action", None)
        return Point(when, name, "" if action is None else action.action_id)

    async def step(self) -> str:
        assert self.client is not None
        run = self.client.get_workflow_handle_for(PrimaryFailure.run, activity.info().workflow_id or "")
        progress = await run.query(PrimaryFailure.progress_view)
        return next(step.name for step in progress.steps if step.status is StepStatus.RUNNING)


class _Held(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, hold: Hold) -> None:
        super().__init__(next)
        self._hold = hold

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        await self._hold.pass_by("before", input)
        answer = await super().execute_activity(input)
        await self._hold.pass_by("after", input)
        return answer


@dataclass
class Case:
    """A run that is held at a point, or watched where there is none."""

    on: Stage
    hold: Hold
    run: Run

    def __post_init__(self) -> None:
        self.serve()

    @property
    def client(self) -> Client:
        return self.on.client

    async def result(self) -> RunResult:
        """Of the newest execution under the lock, resets included."""
        handle = self.client.get_workflow_handle_for(PrimaryFailure.run, failover_id(self.on.cluster_id))
        return await handle.result()

    async def kill_worker(self) -> None:
        """The worker is gone with all that it had in memory and had not answered; another one comes."""
        stopping = asyncio.create_task(self.worker.shutdown())
        await asyncio.sleep(0)
        self.hold.lost = True
        self.hold.go_on.set()
        await stopping
        # As another process, it has a connection of its own.
        self.on.client = await connect(self.client.service_client.config.target_host)
        self.serve()

    def serve(self) -> None:
        self.worker = self.on.workers()[0]
        self.serving = asyncio.create_task(self.worker.run())


@asynccontextmanager
async def held(
    client: Client, home: Path, at: Point | None, prepare: Callable[[Stage], None]
) -> AsyncIterator[Case]:
    """A run on its way to this point, on a stage of its own. The primary lives, and is to be left."""
    hold = Hold(at)
    watched = Client(**{**client.config(), "interceptors": [hold]})  # type: ignore[arg-type]
    hold.client = watched
    on = Stage.set(watched, home)
    prepare(on)
    case = Case(on, hold, await on.start(even_if_healthy=True))
    try:
        yield case
    finally:
        hold.go_on.set()
        await case.worker.shutdown()
        await case.serving


async def points(
    client: Client, home: Path, prepare: Callable[[Stage], None]
) -> tuple[list[Point], RunResult]:
    """All points of a run that goes undisturbed, in their order."""
    async with held(client, home, None, prepare) as case:
        result = await case.result()
        return list(dict.fromkeys(case.hold.passed)), result


# What is done to a run that is held


async def cancelled(case: Case) -> None:
    await case.run.cancel()
    await _until_in_history(case.run, EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED)


async def aborted(case: Case) -> None:
    try:
        await case.run.execute_update(PrimaryFailure.abort, AbortRequest(by="ann", reason="enough"))
    except WorkflowUpdateFailedError as refused:
        assert refused.cause.type in {"past_return", "run_is_over"}, refused.cause  # type: ignore[union-attr]


async def terminated(case: Case) -> None:
    """And finished by somebody, who need not know more than that it is unfinished."""
    await case.run.terminate("enough")
    case.hold.go_on.set()
    await case.on.start(continues="unfinished", reason="finish it")


async def reset_to_the_start(case: Case) -> None:
    await reset(case.run, case.client, (await tasks(case.run))[0])


async def reset_to_here(case: Case) -> None:
    await reset(case.run, case.client, (await tasks(case.run))[-1])


async def worker_killed(case: Case) -> None:
    await case.kill_worker()


Disturbance = Callable[[Case], Awaitable[None]]
STOPPING: tuple[Disturbance, ...] = (cancelled, aborted, terminated)
"""A person wants the run to stop."""
GOING_ON: tuple[Disturbance, ...] = (reset_to_the_start, reset_to_here, worker_killed)
"""The run is to go on."""


async def reset(run: Run, client: Client, task: int) -> None:
    """Set the workflow back to what it knew when this task was done (the id of its event)."""
    described = await run.describe()
    await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=described.id, run_id=described.run_id),
            reason="once more",
            workflow_task_finish_event_id=task,
            request_id=uuid.uuid4().hex,
        )
    )


async def tasks(run: Run) -> list[int]:
    """The events of the workflow's tasks, from the first to the last."""
    completed = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    return [e.event_id async for e in run.fetch_history_events() if e.event_type == completed]


async def task_that_asks(run: Run, effect: str) -> int:
    """The event of the task in which the workflow asked for this activity first."""
    async for event in run.fetch_history_events():
        scheduled = event.activity_task_scheduled_event_attributes
        if scheduled.activity_type.name == effect:
            return scheduled.workflow_task_completed_event_id
    raise AssertionError(f"never asked for {effect}")


async def _until_in_history(run: Run, kind: int) -> None:
    while True:
        async for event in run.fetch_history_events():
            if event.event_type == kind:
                return


# How it ended


async def end_of(case: Case, result: RunResult) -> str:
    """Untouched, rolled back or completed, by what the world says. Fails when it is none of them."""
    world, outcome = case.on.world, result.outcome
    assert world.writable_at_most <= 1, "two primaries"
    assert len(world.journal) == len(set(world.journal)), f"done twice: {world.journal}"
    assert await case.on.providers.audit.verify() == ()
    records = await case.on.providers.audit.by_run(result.run_id)
    assert [record.audit_id for record in records] == [result.audit_id], "not one record"
    old, new = world.cluster.node("node-1"), world.cluster.node("node-2")
    if outcome is RunOutcome.COMPLETED:
        assert result.verified
        assert (world.writable(), world.address) == ([new.node_id], new.hostname)
        assert world.machines["node-3"].upstream == new.node_id
        return "completed"
    assert (world.writable(), world.address) == ([old.node_id], old.hostname), outcome
    assert world.changes("promote") == []
    if outcome is RunOutcome.ROLLED_BACK:
        return "rolled back"
    assert outcome is RunOutcome.UNTOUCHED or (
        result.refusal is not None and result.refusal.rule == "nothing_to_finish"
    ), result.reason
    assert world.journal == []
    return "untouched"
