"""Every point at which a run can be disturbed, found by watching one that is not, and what is done to it.

A point is before an activity of a run (what an effect of the plan is asked for by, and what each step reads,
decides or writes by), or after one that changed something; after one that only read, nothing is other than
before the next. The points are read off a run that goes undisturbed, so a step or an action that is new is
among them by being there.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.client import Interceptor as ClientInterceptor
from temporalio.exceptions import TemporalError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

from activities.audit import Audit
from activities.notification import Notifications
from activities.people import People
from activities.run_history import UNDOING
from qnwis.continuity.access import Deed
from qnwis.continuity.override import GiveUp
from qnwis.continuity.plan import RejoinOldPrimary
from qnwis.continuity.run import AbortRequest, RunOutcome, RunProgress, RunResult, StepStatus
from qnwis.continuity.topology import Node
from qnwis.providers.errors import Unreachable
from qnwis.temporal import connect
from workflows.names import failover_id
from workflows.planned_maintenance import PlannedMaintenance

from .conftest import Run, Stage
from .people import Crowd
from .world import World

When = Literal["before", "after"]
SOON = timedelta(seconds=2)
KEEPING = frozenset({Audit.record.__name__, People.prove.__name__})
"""No effects of a plan, and yet the world remembers them: a record, a token that has served."""
AGAIN_S, SELDOM_S = 0.25, 2.0
"""Between the first two looks of those who are to vote, and at most: dozens of runs share two cores, and one
whose worker was killed is played again from its start for each look."""
ANSWERED_WITHIN = timedelta(seconds=5)
"""For those who vote: who asks again sooner makes a busy machine busier; a killed worker answers never."""


@dataclass(frozen=True)
class Scene:
    """What is played at every point."""

    start: Callable[[Crowd], Awaitable[Run]]
    silent: frozenset[str]
    """Steps in which nothing is asked of the world."""
    stage: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Stage], None] = lambda on: None
    voters: tuple[str, ...] = ("ann",)
    lost: tuple[str, ...] = ()
    """Nodes that are gone from the beginning, and given up."""


async def _failover(crowd: Crowd) -> Run:
    return await crowd.start("bob", even_if_healthy=True)


async def _maintenance(crowd: Crowd) -> Run:
    on = crowd.stage
    return await on.client.start_workflow(
        PlannedMaintenance.run,
        crowd.request("bob"),
        id=failover_id(on.cluster_id),
        task_queue=on.settings.task_queue,
    )


async def _override(crowd: Crowd) -> Run:
    for node_id in LOST:
        crowd.stage.world.kill(node_id)
    return await crowd.start("ann", override=True, give_up=GiveUp(node_ids=LOST, attested_by="ann"))


FAILOVER = Scene(_failover, silent=frozenset({"approval"}))
MAINTENANCE = Scene(
    _maintenance,
    silent=frozenset({"notification", "window", "rollback"}),
    stage={"approvals": True, "switchover": {"ttl_s": 0}},
)
"""With people who vote, and a TTL to lower."""
LOST = ("node-1", "node-3")
OVERRIDE = Scene(
    _override,
    silent=frozenset(),
    stage={"approvals": True, "cluster": {"fencing": None}},
    voters=("dora", "fay"),
    lost=LOST,
)
"""An emergency override that gives all but node-2 up, agreed to by two admins."""


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
        return self.activity in UNDOING

    def is_at(self, other: Point) -> bool:
        """Whether it is the same place, in a run of whichever node: an action has one place in its plan."""
        return (self.when, self.activity, self._place) == (other.when, other.activity, other._place)

    @property
    def _place(self) -> str:
        return self.action_id.partition("-")[0]


@dataclass
class Hold(ClientInterceptor, Interceptor):
    """Stops the run at one point until it may go on; and notes every point that it passes."""

    at: Point | None = None
    of: frozenset[str] | None = None
    """Workflow ids whose activities are points; None for all."""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False
    """The worker that was held died: what it had to answer is lost."""
    passed: list[Point] = field(default_factory=list)
    client: Client | None = None
    asking: asyncio.Event = field(default_factory=asyncio.Event)
    """A window was opened, or a reset may have forgotten the votes in it."""
    _held: tuple[str | None, str] | None = None
    """The activity that is held: execution and id."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Held(next, self)

    async def pass_by(self, when: When, asked: ExecuteActivityInput) -> None:
        if (point := self.point_of(when, asked)) is None:
            return
        if self.at is None:
            self.passed.append(replace(point, step=await self.step()))
        elif self._stands_at(point):
            self.reached.set()
            await self.go_on.wait()
            if self.lost:
                raise Unreachable("the worker died here")

    def _stands_at(self, point: Point) -> bool:
        """Whether to hold: the first that comes there, and each further attempt of it, should it time out."""
        if self.at is None or self.go_on.is_set() or not point.is_at(self.at):
            return False
        info = activity.info()
        this = (info.workflow_run_id, info.activity_id)
        self._held = self._held or this
        return self._held == this

    def point_of(self, when: When, asked: ExecuteActivityInput) -> Point | None:
        """Where the run stands, its step left out. What is told to people beside it is no point."""
        name = activity.info().activity_type
        if name == Notifications.notify.__name__:
            return None
        if self.of is not None and activity.info().workflow_id not in self.of:
            return None
        action = getattr(asked.args[0], "action", None)
        if when == "after" and action is None and name not in KEEPING:
            return None
        return Point(when, name, "" if action is None else action.action_id)

    async def step(self) -> str:
        assert self.client is not None
        run = self.client.get_workflow_handle(activity.info().workflow_id or "")
        progress = await run.query("progress", result_type=RunProgress)
        return next(step.name for step in progress.steps if step.status is StepStatus.RUNNING)


class _Held(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, hold: Hold) -> None:
        super().__init__(next)
        self._hold = hold

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        await self._hold.pass_by("before", input)
        answer = await super().execute_activity(input)
        if activity.info().activity_type == People.open_window.__name__:
            self._hold.asking.set()
        await self._hold.pass_by("after", input)
        return answer


@dataclass
class Case:
    """A run that is held at a point, or watched where there is none."""

    on: Stage
    hold: Hold
    run: Run
    crowd: Crowd
    scene: Scene

    def __post_init__(self) -> None:
        self.serve()
        self.voting = asyncio.create_task(self._vote())

    async def _vote(self) -> None:
        """When a plan waits for votes, everybody agrees whom the scene names."""
        voted, pause_s = set[tuple[str, str]](), AGAIN_S
        while True:
            if not self.hold.asking.is_set():
                await self.hold.asking.wait()
                pause_s = AGAIN_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, SELDOM_S)
            with contextlib.suppress(TemporalError):
                run = self.client.get_workflow_handle(failover_id(self.on.cluster_id))
                progress = await run.query("progress", result_type=RunProgress, rpc_timeout=ANSWERED_WITHIN)
                pending = progress.approval
                if pending is None or (vote := (pending.run_id, pending.window.digest)) in voted:
                    continue
                for person in self.scene.voters:
                    token = self.crowd.vote(person, pending)
                    await run.execute_update("approve", token, rpc_timeout=ANSWERED_WITHIN)
                voted.add(vote)
                self.hold.asking.clear()

    @property
    def client(self) -> Client:
        return self.on.client

    async def result(self) -> RunResult:
        """Of the newest execution under the lock, resets included."""
        handle = self.client.get_workflow_handle(failover_id(self.on.cluster_id), result_type=RunResult)
        result: RunResult = await handle.result()
        return result

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
async def held(client: Client, home: Path, at: Point | None, scene: Scene) -> AsyncIterator[Case]:
    """A run on its way to this point, on a stage of its own. The primary lives, and is to be left."""
    hold = Hold(at)
    watched = Client(**{**client.config(), "interceptors": [hold]})  # type: ignore[arg-type]
    hold.client = watched
    on = Stage.set(watched, home, **scene.stage)
    for machine in on.world.machines.values():
        machine.epoch = machine.held = 1  # as in a cluster that serves
    scene.prepare(on)
    crowd = Crowd(on)
    case = Case(on, hold, await scene.start(crowd), crowd, scene)
    try:
        yield case
    finally:
        case.voting.cancel()
        hold.go_on.set()
        await case.worker.shutdown()
        await case.serving


async def points(client: Client, home: Path, scene: Scene) -> tuple[list[Point], RunResult]:
    """All points of a run that goes undisturbed, in their order. Where it comes twice it is held at first."""
    async with held(client, home, None, scene) as case:
        result = await case.result()
        found: list[Point] = []
        for point in case.hold.passed:
            if not any(point.is_at(other) for other in found):
                found.append(point)
        return found, result


# What is done to a run that is held


async def cancelled(case: Case) -> None:
    await case.run.cancel()
    await _until_in_history(case.run, EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED)


async def aborted(case: Case) -> None:
    """Before it is known whether people must prove who they are, the abort waits for that."""
    aborting = asyncio.create_task(_abort(case))
    await asyncio.wait({aborting}, timeout=SOON.total_seconds())
    case.hold.go_on.set()
    await aborting


async def _abort(case: Case) -> None:
    request = case.crowd.signed(case.run, Deed.ABORT, AbortRequest(by="ann", reason="enough"))
    try:
        await case.run.execute_update("abort", request)
    except WorkflowUpdateFailedError as refused:
        assert refused.cause.type in {"past_return", "run_is_over"}, refused.cause  # type: ignore[union-attr]


async def terminated(case: Case) -> None:
    """And finished by somebody, who need not know more than that it is unfinished."""
    await case.run.terminate("enough")
    case.hold.go_on.set()
    await case.crowd.start("bob", continues="unfinished", reason="finish it")


async def reset_to_the_start(case: Case) -> None:
    await reset(case.run, case.client, (await tasks(case.run))[0])


async def reset_to_here(case: Case) -> None:
    """The window stays open, but the votes were for the run that was reset."""
    await reset(case.run, case.client, (await tasks(case.run))[-1])
    case.hold.asking.set()


async def worker_killed(case: Case) -> None:
    """Nobody watches what the next worker does."""
    await case.kill_worker()
    case.hold.asking.set()


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


def new_primary(world: World) -> Node:
    return world.cluster.node("node-2")


async def end_of(case: Case, result: RunResult) -> str:
    """Untouched, rolled back or completed, by what the world says. Fails when it is none of them."""
    world, outcome = case.on.world, result.outcome
    assert world.writable_at_most <= 1, "two primaries"
    lost = case.scene.lost
    view = await world.membership(new_primary(world), timeout_s=1)
    assert len(world.journal) == len(set(world.journal)), f"done twice: {world.journal}"
    assert await case.on.providers.audit.verify() == ()
    records = await case.on.providers.audit.by_run(result.run_id)
    assert [record.audit_id for record in records] == [result.audit_id], "not one record"
    old, new = world.cluster.node("node-1"), new_primary(world)
    assert world.ttl_s == 1, "the ordinary TTL is back"
    if outcome is RunOutcome.COMPLETED:
        assert result.verified
        assert (world.writable(), world.address) == ([new.node_id], new.hostname)
        followers = [m.node_id for m in world.machines.values() if m.on and m.upstream == new.node_id]
        planned = result.plan is not None and any(
            isinstance(action, RejoinOldPrimary) for action in result.plan.actions
        )
        assert followers == (["node-1", "node-3"] if planned else [] if lost else ["node-3"])
        assert set(view.membership.members) == set(world.machines) - set(lost)
        return "completed"
    assert (world.writable(), world.address) == ([] if lost else [old.node_id], old.hostname), outcome
    assert set(view.membership.members) == set(world.machines), "all are members again"
    assert world.changes("promote") == []
    if outcome is RunOutcome.ROLLED_BACK:
        return "rolled back"
    assert outcome is RunOutcome.UNTOUCHED or (
        result.refusal is not None and result.refusal.rule == "nothing_to_finish"
    ), result.reason
    assert world.journal == []
    return "untouched"
