"""Runs: list them, look at one, follow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from time import monotonic
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from temporalio.client import (
    WorkflowExecution,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowQueryFailedError,
)
from temporalio.service import RPCError, RPCStatusCode

from qnwis.continuity.identity import Permission
from qnwis.continuity.model import Model
from qnwis.continuity.run import OF_A_CLUSTER, RunProgress, RunResult
from qnwis.starting import raise_no_run
from workflows.names import CLUSTER, INITIATOR, KIND, OUTCOME, failover_id

from .asking import Asking, answer, reads
from .paths import ClusterId, Limit, RunId
from .streams import LONGEST_S, EventStream
from .texts import WholeCharacters

router = APIRouter(route_class=WholeCharacters)

LOOK_EVERY_S = 0.5
"""Of the live events."""
ALIVE_EVERY_S = 15.0
"""A stream without news says so, so that nobody on the way closes it."""


class RunSummary(Model):
    run_id: str
    cluster_id: str
    kind: str
    status: str
    """Temporal's word: running, completed, terminated, …"""
    outcome: str | None
    initiated_by: str | None
    dry_run: bool
    started_at: datetime
    ended_at: datetime | None


class Runs(Model):
    request_id: str
    runs: tuple[RunSummary, ...]


class RunView(Model):
    request_id: str
    run: RunSummary
    progress: RunProgress | None
    """None where no worker answers."""
    result: RunResult | None
    """Once it has ended."""


@router.get("/runs", response_model=Runs)
async def list_runs(
    limit: Limit = 20,
    asking: Asking = reads(Permission.READ_STATUS),
) -> Response:
    """The newest runs of all clusters, newest first."""
    kinds = ", ".join(f"'{kind.value}'" for kind in OF_A_CLUSTER)
    return await _listed(f"{KIND.name} IN ({kinds})", limit, asking)


@router.get("/clusters/{cluster_id}/runs", response_model=Runs)
async def list_runs_of(
    cluster_id: ClusterId,
    limit: Limit = 20,
    asking: Asking = reads(Permission.READ_STATUS),
) -> Response:
    """The newest runs of this cluster, newest first."""
    kinds = ", ".join(f"'{kind.value}'" for kind in OF_A_CLUSTER)
    return await _listed(f"{CLUSTER.name} = '{cluster_id}' AND {KIND.name} IN ({kinds})", limit, asking)


async def _listed(query: str, limit: int, asking: Asking) -> Response:
    found = [one async for one in asking.parts.client.list_workflows(query, limit=limit)]
    found.sort(key=lambda one: one.start_time, reverse=True)
    return answer(Runs(request_id=asking.request_id, runs=tuple(map(summary_of, found))))


@router.get("/clusters/{cluster_id}/runs/{run_id}", response_model=RunView)
async def show_run(
    cluster_id: ClusterId, run_id: RunId, asking: Asking = reads(Permission.READ_STATUS)
) -> Response:
    """One run: where it stands, what waits for votes, and its end."""
    handle, described = await _found(asking, cluster_id, run_id)
    going_on = described.status is WorkflowExecutionStatus.RUNNING
    view = RunView(
        request_id=asking.request_id,
        run=summary_of(described),
        progress=await progress_of(handle) if going_on else None,
        result=await _result(handle, described),
    )
    return answer(view)


@router.get("/clusters/{cluster_id}/runs/{run_id}/events", response_class=StreamingResponse)
async def follow_run(
    cluster_id: ClusterId, run_id: RunId, asking: Asking = reads(Permission.READ_STATUS)
) -> Response:
    """The run as server-sent events: `progress` whenever that changes, then `result`, which ends them. One
    identity may follow 5 at once; after 10 minutes they end without a result, and may be asked for again."""
    handle, _ = await _found(asking, cluster_id, run_id)
    return EventStream(_events(handle), asking.parts.streams, asking.who.name)


async def _events(handle: WorkflowHandle[Any, RunResult]) -> AsyncIterator[str]:
    began_s = last_s = monotonic()
    told, number = "", 0
    while True:
        described = await handle.describe()
        if described.status is not WorkflowExecutionStatus.RUNNING:
            result = await _result(handle, described)
            end = "{}" if result is None else result.model_dump_json()
            yield _event(number, "result", end)
            return
        progress = await progress_of(handle)
        text = "" if progress is None else progress.model_dump_json()
        if text and text != told:
            yield _event(number, "progress", text)
            told, number, last_s = text, number + 1, monotonic()
        elif monotonic() - last_s > ALIVE_EVERY_S:
            yield ": the run goes on\n\n"
            last_s = monotonic()
        if monotonic() - began_s > LONGEST_S:
            return
        await asyncio.sleep(LOOK_EVERY_S)


def _event(number: int, name: str, data: str) -> str:
    return f"id: {number}\nevent: {name}\ndata: {data}\n\n"


async def _found(
    asking: Asking, cluster_id: str, run_id: str
) -> tuple[WorkflowHandle[Any, RunResult], WorkflowExecution]:
    """The run under the cluster's lock, or a dry run of it. Raises Refused where there is none."""
    for dry_run in (False, True):
        handle: WorkflowHandle[Any, RunResult] = asking.parts.client.get_workflow_handle(
            failover_id(cluster_id, dry_run=dry_run), run_id=run_id, result_type=RunResult
        )
        try:
            return handle, await handle.describe()
        except RPCError as error:
            if dry_run:
                raise_no_run(error, failover_id(cluster_id))
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
    raise AssertionError("the last look returns or raises")


async def progress_of(handle: WorkflowHandle[Any, Any]) -> RunProgress | None:
    """What a run that goes on shows; None where no worker answers."""
    try:
        progress: RunProgress = await handle.query("progress", result_type=RunProgress)
        return progress
    except (RPCError, WorkflowQueryFailedError):
        return None


async def _result(handle: WorkflowHandle[Any, RunResult], described: WorkflowExecution) -> RunResult | None:
    """Of one that has completed; what ended otherwise has none."""
    return await handle.result() if described.status is WorkflowExecutionStatus.COMPLETED else None


def summary_of(found: WorkflowExecution) -> RunSummary:
    """A run as lists have it."""
    attributes = found.typed_search_attributes
    return RunSummary(
        run_id=found.run_id,
        cluster_id=attributes.get(CLUSTER) or "",
        kind=attributes.get(KIND) or "",
        status=(found.status or WorkflowExecutionStatus.RUNNING).name.lower(),
        outcome=attributes.get(OUTCOME),
        initiated_by=attributes.get(INITIATOR),
        dry_run=found.id.startswith("dry-run-"),
        started_at=found.start_time,
        ended_at=found.close_time,
    )
