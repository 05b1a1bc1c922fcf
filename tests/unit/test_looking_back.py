"""Reading what earlier executions under a lock did, of a server that a test plays: much, and far away."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.api.common.v1 import Payloads
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowExecutionStatus, WorkflowHistoryEventFilterType
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment

from activities.executions import LOOKED_BACK
from activities.past_runs import LookBackRequest, PastRuns, RunsReport, WatchRunsRequest
from activities.promotion import Promotion
from qnwis.continuity.guardian_rules import PastRun
from qnwis.continuity.run import FailoverRequest, RunKind, RunOutcome
from qnwis.continuity.takeover import Remains
from tests.looking import WITHIN_S

LOCK, BEGAN = "failover-c", datetime(2026, 1, 1, tzinfo=UTC)
ASKED = LookBackRequest(workflow_id=LOCK, run_id="own", reset=False, continues=None)
LONG_AGO = "left-unfinished"


async def event(name: str, at: datetime = BEGAN, **attributes: object) -> HistoryEvent:
    made = HistoryEvent(**{f"{name}_event_attributes": attributes})
    made.event_time.FromDatetime(at)
    return made


async def payloads(value: object) -> Payloads:
    return Payloads(payloads=await pydantic_data_converter.encode([value]))


@dataclass
class Server:
    """Of one lock: a run that was terminated in the middle of its plan, and then many that began nothing."""

    data_converter = pydantic_data_converter
    since: int
    """How many began nothing since."""
    read: list[str] = field(default_factory=list)
    """Executions of which it gave the whole history."""
    status = WorkflowExecutionStatus.FAILED

    @property
    def executions(self) -> list[SimpleNamespace]:
        """Newest first."""
        names = [LONG_AGO, *(f"nothing-{number}" for number in range(self.since))]
        return [
            SimpleNamespace(
                id=LOCK, run_id=name, start_time=BEGAN + timedelta(minutes=number), status=self.status
            )
            for number, name in reversed([*enumerate(names)])
        ]

    async def list_workflows(self, query: str, limit: int | None = None) -> AsyncIterator[SimpleNamespace]:
        before = re.search(r"StartTime < '(.+)'", query)
        for one in self.executions[:limit]:
            if before is None or one.start_time < datetime.fromisoformat(before[1]):
                yield one

    def get_workflow_handle(self, workflow_id: str, *, run_id: str) -> SimpleNamespace:
        return SimpleNamespace(fetch_history_events=partial(self.events, run_id))

    def events(self, run_id: str, **only: WorkflowHistoryEventFilterType) -> AsyncIterator[HistoryEvent]:
        return self.history(run_id)

    async def history(self, run_id: str) -> AsyncIterator[HistoryEvent]:
        self.read.append(run_id)
        await self.answers(run_id)
        request = FailoverRequest(cluster_id="c", initiated_by="ann", reason="test")
        yield await event(
            "workflow_execution_started",
            input=await payloads(request),
            original_execution_run_id=run_id,
        )
        if run_id == LONG_AGO:
            yield await event(
                "activity_task_scheduled",
                activity_type={"name": Promotion.promote.__name__},
                input=await payloads({"action": {"action_id": "2-promote"}}),
            )
            yield await event("workflow_execution_terminated", identity="ann")
        else:
            yield await event("workflow_execution_failed", failure={"message": "cluster.yaml"})

    async def answers(self, run_id: str) -> None:
        """Return when the server answers for this execution, or raise what it fails with."""


async def looked_back(server: Server, environment: ActivityEnvironment | None = None) -> Remains | None:
    past_runs = PastRuns(cast(Any, server), "failover-", "QnwisOutcome")
    async with asyncio.timeout(WITHIN_S):
        found: Remains | None = await (environment or ActivityEnvironment()).run(past_runs.look_back, ASKED)
    return found


async def test_what_began_nothing_is_read_past_however_much_it_is() -> None:
    """Of an earlier version, which did not say of a run whether it had acted."""
    found = await looked_back(Server(since=500))
    assert found is not None and found.run_id == LONG_AGO


@pytest.mark.parametrize("result", [{"stayed": True}, "done", 7, None])
async def test_what_was_started_under_a_runs_id_and_is_no_run_hides_nothing(result: object) -> None:
    """As a person may in the Temporal UI, with the type of another workflow and a request that fits it."""

    class Mistyped(Server):
        async def history(self, run_id: str) -> AsyncIterator[HistoryEvent]:
            async for one in super().history(run_id):
                failed = one.HasField("workflow_execution_failed_event_attributes")
                yield (
                    one
                    if not failed
                    else await event("workflow_execution_completed", result=await payloads(result))
                )

    found = await looked_back(Mistyped(since=20))
    assert found is not None and found.run_id == LONG_AGO


@dataclass
class Settled(Server):
    """Where each execution brought its run to an end, or was refused, as `outcome` says."""

    status = WorkflowExecutionStatus.COMPLETED
    outcome: RunOutcome = RunOutcome.COMPLETED
    ends: list[str] = field(default_factory=list)
    """Executions of which it gave the last event alone."""

    def events(self, run_id: str, **only: WorkflowHistoryEventFilterType) -> AsyncIterator[HistoryEvent]:
        return self.end(run_id) if only else super().events(run_id)

    async def end(self, run_id: str) -> AsyncIterator[HistoryEvent]:
        self.ends.append(run_id)
        result = PastRun(
            run_id=run_id,
            kind=RunKind.PRIMARY_FAILURE,
            outcome=self.outcome,
            reason="as it says",
            ended_at=BEGAN,
        )
        yield await event("workflow_execution_completed", result=await payloads(result))


async def test_of_a_newest_run_that_has_an_end_no_more_than_its_end_is_read_and_once() -> None:
    server = Settled(since=3)
    past_runs = PastRuns(cast(Any, server), "failover-", "QnwisOutcome")
    for _ in range(2):
        assert await ActivityEnvironment().run(past_runs.look_back, ASKED) is None
    assert (server.ends, server.read) == (["nothing-2"], [])


async def test_a_refused_run_is_no_end_of_what_it_was_refused_for() -> None:
    found = await looked_back(Settled(since=3, outcome=RunOutcome.REFUSED))
    assert found is not None and found.run_id == LONG_AGO


async def test_a_run_that_is_reset_finds_its_own_also_behind_one_that_has_an_end() -> None:
    past_runs = PastRuns(cast(Any, Settled(since=3)), "failover-", "QnwisOutcome")
    asked = ASKED.model_copy(update={"run_id": LONG_AGO, "reset": True})
    found = await ActivityEnvironment().run(past_runs.look_back, asked)
    assert found is not None and found.run_id == LONG_AGO


@pytest.mark.parametrize(
    ("status", "others"), [("running", RunOutcome.REFUSED), ("completed", RunOutcome.COMPLETED)]
)
async def test_a_report_reads_no_history_behind_a_run_that_goes_on_or_has_an_end(
    monkeypatch: pytest.MonkeyPatch, status: str, others: RunOutcome
) -> None:
    async def newest(*_: object) -> str:
        return f"nothing-2 {status}"

    monkeypatch.setattr("activities.past_runs.newest", newest)
    server = Settled(since=3, outcome=others)
    past_runs = PastRuns(cast(Any, server), "failover-", "QnwisOutcome")
    async with asyncio.timeout(WITHIN_S):
        report: RunsReport = await ActivityEnvironment().run(
            past_runs.watch_runs, WatchRunsRequest(workflow_id=LOCK)
        )
    ended = ["nothing-1", "nothing-0", LONG_AGO]
    assert [run.run_id for run in report.recent] == (["nothing-2"] if status == "completed" else []) + ended
    assert report.unfinished is None and server.read == []


async def test_what_is_far_away_is_read_at_once_and_not_one_after_the_other() -> None:
    together = asyncio.Barrier(LOOKED_BACK - 1)

    class Far(Server):
        async def answers(self, run_id: str) -> None:
            if len(self.read) > 1:
                await together.wait()

    found = await looked_back(Far(since=LOOKED_BACK - 1))
    assert found is not None and found.run_id == LONG_AGO


async def test_a_later_attempt_goes_on_where_the_one_before_it_was() -> None:
    told: list[tuple[Any, ...]] = []
    heard = asyncio.Event()

    def beats(*details: Any) -> None:
        told.append(details)
        if details[1]:
            heard.set()

    class BreaksOff(Server):
        async def answers(self, run_id: str) -> None:
            if len(self.read) > 5 * LOOKED_BACK:
                await heard.wait()
                raise RPCError("gone", RPCStatusCode.UNAVAILABLE, b"")

    first = ActivityEnvironment()
    first.on_heartbeat = beats
    with pytest.raises(RPCError):
        await looked_back(broken := BreaksOff(since=200), first)

    second = ActivityEnvironment()
    second.info = dataclasses.replace(second.info, attempt=2, heartbeat_details=list(told[-1]))
    again = Server(since=200)
    found = await looked_back(again, second)
    assert found is not None and found.run_id == LONG_AGO
    newest = {one.run_id for one in again.executions[:LOOKED_BACK]}
    answered = set(broken.read[: 5 * LOOKED_BACK])
    assert set(again.read) & answered == newest and set(again.read) - newest
