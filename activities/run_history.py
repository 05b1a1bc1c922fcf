"""Reading one execution of a run from its history, which outlives it.

A history tells it even where no worker can replay it any more, which is a reason to terminate a workflow.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC
from typing import Any, TypeVar

from pydantic import ValidationError
from temporalio.api.common.v1 import Payloads
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.guardian_rules import PastRun
from qnwis.continuity.run import Assessment, FailoverRequest
from qnwis.continuity.takeover import PastExecution, Remains

from .dns import DnsRecords
from .evidence import Evidence
from .executions import ended_by
from .fencing import Fencing
from .forcing import Forcing
from .http_application import ApplicationMoves
from .patroni import PatroniMoves
from .patroni_fencing import PatroniFencing
from .patroni_regions import PatroniRegions
from .planning import Planning
from .promotion import Promotion
from .switchover import Switchover

EFFECTS = {
    effect.__name__
    for effect in (
        Fencing.fence,
        Forcing.force,
        Promotion.promote,
        Promotion.repoint,
        DnsRecords.flip,
        DnsRecords.retime,
        Switchover.prepare,
        Switchover.release,
        Switchover.rejoin,
        PatroniMoves.hand_over,
        PatroniRegions.demote_cluster,
        PatroniFencing.fence_cluster,
        PatroniRegions.promote_cluster,
        ApplicationMoves.http_demote,
        ApplicationMoves.http_fence,
        ApplicationMoves.http_promote,
    )
}
UNDOING = {
    undoing.__name__
    for undoing in (
        Fencing.unfence,
        Forcing.unforce,
        Switchover.take_back,
        DnsRecords.retime_back,
        PatroniRegions.take_cluster_back,
        PatroniFencing.unfence_cluster,
        ApplicationMoves.http_take_back,
        ApplicationMoves.http_unfence,
    )
}
LOOK_BACK = "look_back"
"""The activity by which an execution takes over what others of its run had done."""

RESULT = ("run_id", "kind", "outcome", "reason", "ended_at")
"""What a guardian's rules need of a result."""

T = TypeVar("T")


async def result_in(client: Client, completed: HistoryEvent) -> PastRun | None:
    """The result that an execution completed with. None for one that no run has: in the Temporal UI another
    kind of workflow may be started under a run's id."""
    payloads = completed.workflow_execution_completed_event_attributes.result.payloads
    results = await client.data_converter.decode(payloads)
    try:
        return PastRun(**{name: results[0][name] for name in RESULT})
    except (IndexError, KeyError, TypeError, ValidationError):
        return None


class HistoryReader:
    """Takes in the events of one execution, one after the other."""

    def __init__(self, client: Client, execution_id: str) -> None:
        self._client, self._converter = client, client.data_converter
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
                if not started.input.payloads:
                    FailoverRequest.model_validate({})  # says what is missing, as the workflow did
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
        if name in EFFECTS or name in UNDOING:
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
        elif name == LOOK_BACK:
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
                self._found["result"] = await result_in(self._client, event)
                if self._found["result"] is None:
                    self._found["ended"] = "completed, and not as a run"
            case _:
                if (how := await ended_by(self._client, event)) is not None:
                    self._found["ended"] = how

    async def _decode(self, payloads: Payloads, kind: type[T]) -> T:
        value: T = (await self._converter.decode(payloads.payloads, [kind]))[0]
        return value

    async def _decode_optional(self, payloads: Payloads, kind: type[T]) -> T | None:
        hints: Sequence[Any] = [kind | None]
        value: T | None = (await self._converter.decode(payloads.payloads, list(hints)))[0]
        return value
