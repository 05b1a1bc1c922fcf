"""What was done under a region's lock: what a guardian that is started anew takes up, and how it ends."""

from __future__ import annotations

import contextlib
from datetime import UTC

from temporalio import activity
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowFailureError
from temporalio.service import RPCError

from qnwis.continuity.model import Model
from qnwis.continuity.region_adoption import PastEvacuation, TakenUp, decisive, taken_up
from qnwis.continuity.region_run import EvacuateRequest
from qnwis.continuity.run import RunOutcome

from .effect import heartbeating
from .executions import GONE, NONE, RUNNING, ended_by, executions, last_event, newest


class RegionLock(Model):
    workflow_id: str
    """Of the evacuations of one region."""


class AwaitEvacuation(Model):
    workflow_id: str
    run_id: str


class EvacuationEnded(Model):
    outcome: RunOutcome | None
    """None where it ended without a result."""
    reason: str


class PastEvacuations:
    def __init__(self, client: Client) -> None:
        self._client = client

    @activity.defn
    async def take_up_evacuation(self, asked: RegionLock) -> TakenUp | None:
        """The evacuation that goes on, or the last one that a guardian began and that may matter still."""
        seen = await newest(self._client, asked.workflow_id)
        if seen == NONE:
            return None
        first, _, status = seen.partition(" ")
        past: list[PastEvacuation] = []
        listed = [one.run_id for one in await executions(self._client, asked.workflow_id)]
        for run_id in dict.fromkeys([first, *listed]):
            one = await self._read(asked.workflow_id, run_id, goes_on=run_id == first and status == RUNNING)
            if one is not None:
                past.append(one)
                if decisive(one):
                    break
        return taken_up(past)

    @activity.defn
    async def await_evacuation(self, asked: AwaitEvacuation) -> EvacuationEnded:
        """Return when that run has ended, however."""
        async with heartbeating():
            handle = self._client.get_workflow_handle(asked.workflow_id, run_id=asked.run_id)
            with contextlib.suppress(WorkflowFailureError):
                await handle.result(follow_runs=False)
            return await self._end(asked.workflow_id, asked.run_id)

    async def _read(self, workflow_id: str, run_id: str, *, goes_on: bool) -> PastEvacuation | None:
        """None where it is kept no longer, or was started with something that is no request."""
        handle = self._client.get_workflow_handle(workflow_id, run_id=run_id)
        try:
            async for event in handle.fetch_history_events(page_size=1):
                begun = await self._begun(event)
                break
            else:
                return None
        except ValueError:  # no request, or one that does not validate
            return None
        except RPCError as error:
            if error.status in GONE:
                return None
            raise
        started_at = event.event_time.ToDatetime(tzinfo=UTC)
        if goes_on:
            return PastEvacuation(run_id=run_id, request=begun, started_at=started_at, goes_on=True)
        end = await self._end(workflow_id, run_id)
        return PastEvacuation(
            run_id=run_id,
            request=begun,
            started_at=started_at,
            goes_on=False,
            outcome=end.outcome,
            reason=end.reason,
        )

    async def _begun(self, event: HistoryEvent) -> EvacuateRequest:
        payloads = event.workflow_execution_started_event_attributes.input.payloads
        request: EvacuateRequest
        (request,) = await self._client.data_converter.decode(payloads[:1], [EvacuateRequest])
        return request

    async def _end(self, workflow_id: str, run_id: str) -> EvacuationEnded:
        event = await last_event(self._client, workflow_id, run_id)
        if event is not None and event.HasField("workflow_execution_completed_event_attributes"):
            payloads = event.workflow_execution_completed_event_attributes.result.payloads
            (result,) = await self._client.data_converter.decode(payloads, [dict])
            return EvacuationEnded(outcome=RunOutcome(result["outcome"]), reason=result["reason"])
        how = None if event is None else await ended_by(self._client, event)
        return EvacuationEnded(outcome=None, reason=f"ended without a result: {how or 'kept no longer'}")
