"""Reading what earlier executions under a cluster's lock did: from their histories, which outlive them.

A history tells it even where no worker can replay it any more, which is a reason to terminate a workflow.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC
from typing import Any, TypeVar

from pydantic import ValidationError
from temporalio import activity
from temporalio.api.common.v1 import Payloads
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.guardian_rules import PastRun
from qnwis.continuity.model import Model
from qnwis.continuity.run import Assessment, FailoverRequest
from qnwis.continuity.takeover import PastExecution, Remains, looked_back, unfinished

from .dns import DnsRecords
from .effect import heartbeating
from .evidence import Evidence
from .fencing import Fencing
from .planning import Planning
from .promotion import Promotion

LOOKED_BACK = 20
"""The newest executions of a lock that are read; one that is left unfinished is found long before."""
POLL_S = 1.0
RESULT = ("run_id", "kind", "outcome", "reason", "ended_at")
"""What a guardian's rules need of a result."""
RESETTER = "history-resetter"
"""Under this name Temporal itself terminates an execution that is reset while it goes on."""

EFFECTS = {
    effect.__name__ for effect in (Fencing.fence, Promotion.promote, Promotion.repoint, DnsRecords.flip)
}
UNDOING = Fencing.unfence.__name__

T = TypeVar("T")


class LookBackRequest(Model):
    workflow_id: str
    """The lock."""
    run_id: str
    """Of the run that looks back."""
    reset: bool
    """Whether this execution is a reset of another one of that run."""
    continues: str | None
    """The run that it is to bring to an end."""


class WatchRunsRequest(Model):
    workflow_id: str
    seen: str | None = None
    """`RunsReport.seen` of the report before; None at first."""


class RunsReport(Model):
    """The runs of a cluster, as a guardian needs to know them."""

    seen: str
    """Names the newest execution and its status."""
    running: str | None = None
    """run_id of the run that holds the lock."""
    recent: tuple[PastRun, ...] = ()
    """Those that have an end, newest first."""
    unfinished: Remains | None = None


class PastRuns:
    def __init__(self, client: Client) -> None:
        self._client = client

    @activity.defn
    async def look_back(self, asked: LookBackRequest) -> Remains | None:
        """What the asking run had done before, if it was reset or continues one; else whatever run is
        unfinished under its lock."""
        named = (asked.run_id, asked.continues)
        past = await self._past(asked.workflow_id, *named, but=activity.info().workflow_run_id)
        return looked_back(past, run_id=asked.run_id, reset=asked.reset, continues=asked.continues)

    @activity.defn
    async def watch_runs(self, asked: WatchRunsRequest) -> RunsReport:
        """Return when the newest execution under the lock is another, or has ended; at first at once."""
        async with heartbeating():
            while True:
                seen = await self._newest(asked.workflow_id)
                if seen != asked.seen:
                    break
                await asyncio.sleep(POLL_S)
        past = await self._past(asked.workflow_id)
        running = next((e for e in past if e.result is None and e.ended is None), None)
        return RunsReport(
            seen=seen,
            running=running and running.run_id,
            recent=tuple(e.result for e in past if e.result is not None),
            unfinished=unfinished(past),
        )

    async def _newest(self, workflow_id: str) -> str:
        try:
            found = await self._client.get_workflow_handle(workflow_id).describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return "none"
        return f"{found.run_id} {(found.status or WorkflowExecutionStatus.RUNNING).name.lower()}"

    async def _past(
        self, workflow_id: str, *named: str | None, but: str | None = None
    ) -> list[PastExecution]:
        """The newest executions under a lock and those named, newest first. The list may be a little late."""
        listed = self._client.list_workflows(f"WorkflowId = '{workflow_id}'", limit=LOOKED_BACK)
        found = {execution.run_id async for execution in listed}
        ids = (found | {execution_id for execution_id in named if execution_id}) - {but}
        read = await asyncio.gather(*(self._read(workflow_id, execution_id) for execution_id in ids))
        return sorted((e for e in read if e is not None), key=lambda e: e.started_at, reverse=True)

    async def _read(self, workflow_id: str, execution_id: str) -> PastExecution | None:
        handle = self._client.get_workflow_handle(workflow_id, run_id=execution_id)
        reader = HistoryReader(self._client, execution_id)
        try:
            return await reader.read(handle.fetch_history_events())
        except ValidationError:
            return None  # started with something that is no request: it failed at once
        except RPCError as error:
            if error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
                return None  # kept no longer, or a name that never was one
            raise


class HistoryReader:
    """Takes in the events of one execution, one after the other."""

    def __init__(self, client: Client, execution_id: str) -> None:
        self._converter = client.data_converter
        self._scheduled: dict[int, tuple[str, str]] = {}
        """By event: the activity's name, and the action it carries out or undoes."""
        self._found: dict[str, Any] = {"execution_id": execution_id}
        self._log: list[Outcome] = []

    async def read(self, events: AsyncIterator[HistoryEvent]) -> PastExecution:
        """Raises ValidationError when the execution was not started with a request."""
        async for event in events:
            await self._take_in(event)
        return PastExecution(**self._found, outcomes=tuple(self._log))

    async def _take_in(self, event: HistoryEvent) -> None:
        match event.WhichOneof("attributes"):
            case "workflow_execution_started_event_attributes":
                started = event.workflow_execution_started_event_attributes
                self._found["request"] = await self._decode(started.input, FailoverRequest)
                self._found["run_id"] = started.original_execution_run_id
                self._found["started_at"] = event.event_time.ToDatetime(tzinfo=UTC)
            case "activity_task_scheduled_event_attributes":
                await self._begun(event)
            case "activity_task_completed_event_attributes":
                done = event.activity_task_completed_event_attributes
                await self._done(self._scheduled.get(done.scheduled_event_id), done.result)
            case "activity_task_failed_event_attributes":
                failed = event.activity_task_failed_event_attributes
                self._left_open(self._scheduled.get(failed.scheduled_event_id), failed.failure.message)
            case "activity_task_timed_out_event_attributes":
                timed_out = event.activity_task_timed_out_event_attributes
                self._left_open(self._scheduled.get(timed_out.scheduled_event_id), timed_out.failure.message)
            case _:
                await self._ended(event)

    async def _begun(self, event: HistoryEvent) -> None:
        scheduled = event.activity_task_scheduled_event_attributes
        name, action_id = scheduled.activity_type.name, ""
        if name in EFFECTS or name == UNDOING:
            action_id = str((await self._decode(scheduled.input, dict))["action"]["action_id"])
        if name in EFFECTS:
            self._log.append(Outcome(action_id=action_id, status=OutcomeStatus.STARTED))
        self._scheduled[event.event_id] = (name, action_id)

    async def _done(self, scheduled: tuple[str, str] | None, result: Payloads) -> None:
        name, action_id = scheduled or ("", "")
        if action_id:
            self._log.append(await self._decode(result, Outcome))
        elif name == Evidence.collect.__name__:
            self._found.setdefault("before", await self._decode(result, ClusterEvidence))
        elif name == Planning.assess.__name__:
            self._found["assessment"] = await self._decode(result, Assessment)
        elif name == PastRuns.look_back.__name__:
            remains = await self._decode_optional(result, Remains)
            own = remains is not None and remains.run_id == self._found["run_id"]
            if remains is not None and (own or self._found["request"].continues is not None):
                self._found |= {
                    "run_id": remains.run_id,
                    "before": remains.before,
                    "assessment": remains.assessment,
                }
                self._log = list(remains.outcomes)

    def _left_open(self, scheduled: tuple[str, str] | None, detail: str) -> None:
        if scheduled is not None and scheduled[0] in EFFECTS:
            self._log.append(Outcome(action_id=scheduled[1], status=OutcomeStatus.UNKNOWN, detail=detail))

    async def _ended(self, event: HistoryEvent) -> None:
        match event.WhichOneof("attributes"):
            case "workflow_execution_completed_event_attributes":
                completed = event.workflow_execution_completed_event_attributes
                result = await self._decode(completed.result, dict)
                self._found["result"] = PastRun(**{name: result[name] for name in RESULT})
            case "workflow_execution_terminated_event_attributes":
                terminated = event.workflow_execution_terminated_event_attributes
                why = terminated.reason
                if terminated.HasField("details"):
                    with contextlib.suppress(TypeError, ValueError):
                        why = str(await self._decode(terminated.details, str))
                how = "reset" if terminated.identity == RESETTER else f"terminated by {terminated.identity}"
                self._found["ended"] = f"{how}: {why or 'no reason given'}"
            case "workflow_execution_failed_event_attributes":
                failed = event.workflow_execution_failed_event_attributes
                self._found["ended"] = f"ended by a failure: {failed.failure.message}"
            case "workflow_execution_timed_out_event_attributes":
                self._found["ended"] = "ended by a timeout"
            case "workflow_execution_canceled_event_attributes":
                self._found["ended"] = "ended by a cancel"

    async def _decode(self, payloads: Payloads, kind: type[T]) -> T:
        value: T = (await self._converter.decode(payloads.payloads, [kind]))[0]
        return value

    async def _decode_optional(self, payloads: Payloads, kind: type[T]) -> T | None:
        hints: Sequence[Any] = [kind | None]
        value: T | None = (await self._converter.decode(payloads.payloads, list(hints)))[0]
        return value
