"""Runs: list, look at, follow, vote on, hold, let go on and abort them; start planned maintenance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from time import monotonic
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import Field
from temporalio.client import WorkflowExecution, WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from qnwis.continuity.access import Deed
from qnwis.continuity.approvals import Vote, VoteRequest
from qnwis.continuity.identity import Permission
from qnwis.continuity.model import Model
from qnwis.continuity.run import (
    OF_A_CLUSTER,
    AbortRequest,
    FailoverRequest,
    Maintenance,
    PauseRunRequest,
    ResumeRunRequest,
    RunProgress,
    RunResult,
)
from qnwis.continuity.tokens import PersonRequest
from qnwis.starting import raise_no_run, say_to_run, start_maintenance, start_round_trip, vote
from workflows.names import CLUSTER, INITIATOR, KIND, OUTCOME, failover_id

from .asking import Asking, acts, answer, reads
from .bodies import Accepted, ExecuteResponse, example, executed
from .texts import WholeCharacters
from .waiting import ended_or_accepted, wait_s

router = APIRouter(route_class=WholeCharacters)

LOOK_EVERY_S = 0.5
"""Of the live events."""
ALIVE_EVERY_S = 15.0
"""A stream without news says so, so that nobody on the way closes it."""
CLUSTER_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
RUN_ID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"

ClusterId = Annotated[str, Path(pattern=CLUSTER_ID, description="cluster_id of a registered cluster.")]
RunId = Annotated[str, Path(pattern=RUN_ID, description="Temporal's run id, as `execution_id` has it.")]


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


class VoteBody(Model):
    model_config = example(digest="sha256:" + "0" * 64, reason="agreed")

    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    """Of the plan that is meant, as `progress.approval.window.digest` has it; no other is voted on."""
    reason: str = Field(default="", max_length=1000)


class ReasonBody(Model):
    model_config = example(reason="wait for the backup")

    reason: str = Field(min_length=1, max_length=1000)


class Said(Model):
    request_id: str
    answer: str


class Counted(Model):
    request_id: str
    vote: Vote


class MaintenanceBody(Model):
    model_config = example(reason="new kernel on node-1", maintenance={"target_node_id": "node-2"})

    reason: str = Field(min_length=1, max_length=1000)
    maintenance: Maintenance = Maintenance()
    dry_run: bool = False


@router.get("/runs", response_model=Runs)
async def list_runs(
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    asking: Asking = reads(Permission.READ_STATUS),
) -> Response:
    """The newest runs of all clusters, newest first."""
    kinds = ", ".join(f"'{kind.value}'" for kind in OF_A_CLUSTER)
    return await _listed(f"{KIND.name} IN ({kinds})", limit, asking)


@router.get("/clusters/{cluster_id}/runs", response_model=Runs)
async def list_runs_of(
    cluster_id: ClusterId,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    asking: Asking = reads(Permission.READ_STATUS),
) -> Response:
    """The newest runs of this cluster, newest first."""
    kinds = ", ".join(f"'{kind.value}'" for kind in OF_A_CLUSTER)
    return await _listed(f"{CLUSTER.name} = '{cluster_id}' AND {KIND.name} IN ({kinds})", limit, asking)


async def _listed(query: str, limit: int, asking: Asking) -> Response:
    found = [one async for one in asking.parts.client.list_workflows(query, limit=limit)]
    found.sort(key=lambda one: one.start_time, reverse=True)
    return answer(Runs(request_id=asking.request_id, runs=tuple(map(_summary, found))))


@router.get("/clusters/{cluster_id}/runs/{run_id}", response_model=RunView)
async def show_run(
    cluster_id: ClusterId, run_id: RunId, asking: Asking = reads(Permission.READ_STATUS)
) -> Response:
    """One run: where it stands, what waits for votes, and its end."""
    handle, described = await _found(asking, cluster_id, run_id)
    going_on = described.status is WorkflowExecutionStatus.RUNNING
    view = RunView(
        request_id=asking.request_id,
        run=_summary(described),
        progress=await _progress(handle) if going_on else None,
        result=await _result(handle, described),
    )
    return answer(view)


@router.get("/clusters/{cluster_id}/runs/{run_id}/events", response_class=StreamingResponse)
async def follow_run(
    cluster_id: ClusterId, run_id: RunId, asking: Asking = reads(Permission.READ_STATUS)
) -> Response:
    """The run as server-sent events: `progress` whenever that changes, then `result`, which ends them."""
    handle, _ = await _found(asking, cluster_id, run_id)
    return StreamingResponse(_events(handle), media_type="text/event-stream")


async def _events(handle: WorkflowHandle[Any, RunResult]) -> AsyncIterator[str]:
    told, number, last_s = "", 0, monotonic()
    while True:
        described = await handle.describe()
        if described.status is not WorkflowExecutionStatus.RUNNING:
            result = await _result(handle, described)
            end = "{}" if result is None else result.model_dump_json()
            yield _event(number, "result", end)
            return
        progress = await _progress(handle)
        text = "" if progress is None else progress.model_dump_json()
        if text and text != told:
            yield _event(number, "progress", text)
            told, number, last_s = text, number + 1, monotonic()
        elif monotonic() - last_s > ALIVE_EVERY_S:
            yield ": the run goes on\n\n"
            last_s = monotonic()
        await asyncio.sleep(LOOK_EVERY_S)


def _event(number: int, name: str, data: str) -> str:
    return f"id: {number}\nevent: {name}\ndata: {data}\n\n"


@router.post("/clusters/{cluster_id}/runs/{run_id}/approve", response_model=Counted)
async def approve(cluster_id: ClusterId, run_id: RunId, body: VoteBody, asking: Asking = acts()) -> Response:
    """Agree to the plan that waits. The approval workflow says whose vote counts, never the initiator's."""
    return await asking.once(lambda: _vote(Deed.APPROVE, cluster_id, run_id, body, asking))


@router.post("/clusters/{cluster_id}/runs/{run_id}/reject", response_model=Counted)
async def reject(cluster_id: ClusterId, run_id: RunId, body: VoteBody, asking: Asking = acts()) -> Response:
    """Say no to the plan that waits: the run ends, and nothing is changed."""
    return await asking.once(lambda: _vote(Deed.REJECT, cluster_id, run_id, body, asking))


async def _vote(deed: Deed, cluster_id: str, run_id: str, body: VoteBody, asking: Asking) -> Response:
    token = asking.parts.voucher.token(
        asking.who, deed, cluster_id=cluster_id, run_id=run_id, digest=body.digest, reason=body.reason
    )
    counted = await vote(
        asking.parts.client,
        failover_id(cluster_id),
        VoteRequest(token=token),
        approve=deed is Deed.APPROVE,
    )
    return answer(Counted(request_id=asking.request_id, vote=counted))


@router.post("/clusters/{cluster_id}/runs/{run_id}/pause", response_model=Said)
async def pause(
    cluster_id: ClusterId, run_id: RunId, body: ReasonBody, asking: Asking = acts(Permission.TRIGGER)
) -> Response:
    """Hold the run before its next action; refused once the promotion has begun."""
    request = PauseRunRequest(by=asking.who.name, reason=body.reason)
    return await asking.once(lambda: _say(Deed.PAUSE, cluster_id, run_id, request, asking))


@router.post("/clusters/{cluster_id}/runs/{run_id}/resume", response_model=Said)
async def resume(
    cluster_id: ClusterId, run_id: RunId, body: ReasonBody, asking: Asking = acts(Permission.TRIGGER)
) -> Response:
    """Let the run go on that is held."""
    request = ResumeRunRequest(by=asking.who.name, reason=body.reason)
    return await asking.once(lambda: _say(Deed.RESUME, cluster_id, run_id, request, asking))


@router.post("/clusters/{cluster_id}/runs/{run_id}/abort", response_model=Said)
async def abort(
    cluster_id: ClusterId, run_id: RunId, body: ReasonBody, asking: Asking = acts(Permission.TRIGGER)
) -> Response:
    """Stop the run and undo what it has begun; refused once the promotion has begun."""
    request = AbortRequest(by=asking.who.name, reason=body.reason)
    return await asking.once(lambda: _say(Deed.ABORT, cluster_id, run_id, request, asking))


async def _say(deed: Deed, cluster_id: str, run_id: str, request: PersonRequest, asking: Asking) -> Response:
    signed = asking.parts.voucher.signed(asking.who, deed, request, cluster_id=cluster_id, run_id=run_id)
    told = await say_to_run(asking.parts.client, failover_id(cluster_id), deed.value, signed, run_id=run_id)
    return answer(Said(request_id=asking.request_id, answer=told))


@router.post(
    "/clusters/{cluster_id}/maintenance", response_model=ExecuteResponse, responses={202: {"model": Accepted}}
)
async def maintain(
    cluster_id: ClusterId,
    body: MaintenanceBody,
    prefer: Annotated[str | None, Header(description="`wait=30`: as of /execute.")] = None,
    asking: Asking = acts(Permission.TRIGGER),
) -> Response:
    """Move the service to another node on purpose; with `back_after_s`, and back again."""
    return await asking.once(lambda: _maintain(cluster_id, body, wait_s(prefer), asking))


async def _maintain(cluster_id: str, body: MaintenanceBody, longest_s: float, asking: Asking) -> Response:
    started, parts = monotonic(), asking.parts
    parts.registered(cluster_id)
    request = FailoverRequest(
        cluster_id=cluster_id,
        initiated_by=asking.who.name,
        reason=body.reason,
        dry_run=body.dry_run,
        maintenance=body.maintenance,
    )
    signed = parts.voucher.signed_start(asking.who, request)
    if body.maintenance.back_after_s is not None:
        trip = await start_round_trip(parts.client, signed, parts.task_queue)
        accepted = Accepted(
            request_id=asking.request_id,
            execution_id=trip.result_run_id or "",
            plan_id=None,
            cluster_id=cluster_id,
            run_url=f"/api/v1/continuity/clusters/{cluster_id}/runs",
            events_url="",
        )
        return answer(accepted, 202, {"Location": accepted.run_url})
    handle = await start_maintenance(parts.client, signed, parts.task_queue)

    def ended(result: RunResult) -> Response:
        total_ms = (monotonic() - started) * 1000
        plan_id = result.plan.plan_id if result.plan is not None else ""
        return answer(executed(result, plan_id, asking.request_id, total_ms))

    return await ended_or_accepted(asking, handle, cluster_id, None, longest_s, ended)


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


async def _progress(handle: WorkflowHandle[Any, RunResult]) -> RunProgress | None:
    try:
        progress: RunProgress = await handle.query("progress", result_type=RunProgress)
        return progress
    except RPCError:
        return None


async def _result(handle: WorkflowHandle[Any, RunResult], described: WorkflowExecution) -> RunResult | None:
    """Of one that has completed; what ended otherwise has none."""
    return await handle.result() if described.status is WorkflowExecutionStatus.COMPLETED else None


def _summary(found: WorkflowExecution) -> RunSummary:
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
