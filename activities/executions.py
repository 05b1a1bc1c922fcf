"""The executions under one workflow id, which is a lock: the newest, those before it, and how each ended."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionStatus,
    WorkflowHistoryEventFilterType,
)
from temporalio.service import RPCError, RPCStatusCode

from qnwis.continuity.run import DECIDING, RunOutcome

LOOKED_BACK = 20
"""The newest executions of a lock that are read; one that is left unfinished is mostly found long before."""
LOOKED_BACK_AT_MOST = 200
"""So many further ones that began something are read where none has an end."""
REFUSED = RunOutcome.REFUSED.value
RUNNING = WorkflowExecutionStatus.RUNNING.name.lower()
NONE = "none"
GONE = (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT)
"""Of an execution that is kept no longer, and of a name that never was one's."""
RESETTER = "history-resetter"
"""Under this name Temporal itself terminates an execution that is reset while it goes on."""


async def newest(client: Client, workflow_id: str) -> str:
    """Its run id and its status, with a space between; `none` where there is none. Never late."""
    try:
        found = await client.get_workflow_handle(workflow_id).describe()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return NONE
    return f"{found.run_id} {(found.status or WorkflowExecutionStatus.RUNNING).name.lower()}"


async def executions(client: Client, workflow_id: str, *, but: str | None = None) -> list[WorkflowExecution]:
    """The newest executions under a lock, newest first. Temporal's list may be a little late."""
    query = f"WorkflowId = '{workflow_id}'"
    listed = [found async for found in client.list_workflows(query, limit=LOOKED_BACK)]
    listed.sort(key=lambda found: found.start_time, reverse=True)
    return [found for found in listed if found.run_id != but]


async def executions_before(
    client: Client, workflow_id: str, outcome: str, *, but: Collection[str], before: str
) -> AsyncIterator[list[WorkflowExecution]]:
    """Executions under a lock besides these, newest first, in groups of at most `LOOKED_BACK`; `before`: only
    those that started before that moment, if not empty. Without those that began nothing, as the search
    attribute `outcome` has it: they were refused, or ended while they were deciding, and a cluster that
    cannot fail over may have thousands of them."""
    began = f"{outcome} IS NULL OR ({outcome} != '{REFUSED}' AND {outcome} != '{DECIDING}')"
    query = f"WorkflowId = '{workflow_id}' AND ({began})" + (f" AND StartTime < '{before}'" if before else "")
    group: list[WorkflowExecution] = []
    async for found in client.list_workflows(query):
        if found.run_id not in but:
            group.append(found)
        if len(group) == LOOKED_BACK:
            yield group
            group = []
    if group:
        yield group


async def last_event(client: Client, workflow_id: str, execution_id: str) -> HistoryEvent | None:
    """Of one that is closed; None where it is kept no longer. Of one that goes on it waits for the end."""
    handle = client.get_workflow_handle(workflow_id, run_id=execution_id)
    last = handle.fetch_history_events(event_filter_type=WorkflowHistoryEventFilterType.CLOSE_EVENT)
    try:
        async for event in last:
            return event
    except RPCError as error:
        if error.status not in GONE:
            raise
    return None


async def ended_by(client: Client, event: HistoryEvent) -> str | None:
    """How an execution ended that did not complete; None where this is no such end."""
    match event.WhichOneof("attributes"):
        case "workflow_execution_terminated_event_attributes":
            terminated = event.workflow_execution_terminated_event_attributes
            why = terminated.reason
            if terminated.HasField("details"):
                with contextlib.suppress(TypeError, ValueError):
                    (why,) = await client.data_converter.decode(terminated.details.payloads, [str])
            how = "reset" if terminated.identity == RESETTER else f"terminated by {terminated.identity}"
            return f"{how}: {why or 'no reason given'}"
        case "workflow_execution_failed_event_attributes":
            failed = event.workflow_execution_failed_event_attributes
            return f"ended by a failure: {failed.failure.message}"
        case "workflow_execution_timed_out_event_attributes":
            return "ended by a timeout"
        case "workflow_execution_canceled_event_attributes":
            return "ended by a cancel"
    return None
