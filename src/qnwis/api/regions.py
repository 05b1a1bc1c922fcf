"""A region: whether it counts as lost, and the evacuation by which its clusters leave it and come back."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from pydantic import Field
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from qnwis.continuity.access import Deed
from qnwis.continuity.identity import Permission
from qnwis.continuity.model import Identifier, Model
from qnwis.continuity.region_plan import Direction
from qnwis.continuity.region_run import EvacuateRequest, RegionResult
from qnwis.continuity.run import AbortRequest, PauseRunRequest, ResumeRunRequest, RunProgress
from qnwis.guardians import region_view
from qnwis.providers.errors import Refused
from qnwis.providers.request_store import Begun
from qnwis.signing import signed_start
from qnwis.starting import start_evacuation
from workflows.names import region_id
from workflows.region_failure import RegionFailure
from workflows.region_guardian import RegionView

from .asking import Asking, acts, answer, reads
from .bodies import ReasonBody, Said, example
from .paths import Prefer, Region, RunId
from .runs import RunSummary, progress_of, summary_of
from .steering import Counted, VoteBody, say, vote
from .texts import WholeCharacters
from .waiting import begun_before, ended_or_accepted, wait_s

router = APIRouter(route_class=WholeCharacters, prefix="/regions/{region}")


class RegionStatus(Model):
    request_id: str
    region: str
    guardian: RegionView | None
    """None where no guardian watches the region."""
    evacuation: RunSummary | None
    """The one that goes on, else the last one."""
    progress: RunProgress | None
    result: RegionResult | None


class EvacuateBody(ReasonBody):
    model_config = example(reason="the data centre loses its power at six", clusters=["prod-cluster"])

    clusters: tuple[Identifier, ...] = Field(default=(), max_length=1000)
    """Only these; empty for every registered cluster that it concerns."""
    dry_run: bool = False


class EvacuationStarted(Model):
    """It goes on; where to look."""

    request_id: str
    execution_id: str
    region: str
    region_url: str


class EvacuationEnded(Model):
    request_id: str
    execution_id: str
    result: RegionResult


ACCEPTED: dict[int | str, dict[str, Any]] = {202: {"model": EvacuationStarted}}


@router.get("", response_model=RegionStatus)
async def show_region(region: Region, asking: Asking = reads(Permission.READ_STATUS)) -> Response:
    """What the region's guardian holds, and how its evacuation stands."""
    handle = asking.parts.client.get_workflow_handle_for(RegionFailure.run, region_id(region))
    try:
        found = await handle.describe()
    except RPCError as error:
        _not_there(error)
        found = None
    going_on = found is not None and found.status is WorkflowExecutionStatus.RUNNING
    ended = found is not None and found.status is WorkflowExecutionStatus.COMPLETED
    return answer(
        RegionStatus(
            request_id=asking.request_id,
            region=region,
            guardian=await _guardian(region, asking),
            evacuation=None if found is None else summary_of(found),
            progress=await progress_of(handle) if going_on else None,
            result=await handle.result() if ended else None,
        )
    )


async def _guardian(region: str, asking: Asking) -> RegionView | None:
    try:
        return await region_view(asking.parts.client, region)
    except Refused:
        return None


def _not_there(error: RPCError) -> None:
    if error.status is not RPCStatusCode.NOT_FOUND:
        raise error


@router.post("/evacuate", response_model=EvacuationEnded, responses=ACCEPTED)
async def evacuate(
    region: Region, body: EvacuateBody, prefer: Prefer = None, asking: Asking = acts(Permission.TRIGGER)
) -> Response:
    """Move every cluster whose primary is in the region to another one, in waves. Waits for people."""
    return await asking.once(
        lambda begun: _move(Direction.OUT, region, body, wait_s(prefer, dry_run=body.dry_run), asking, begun)
    )


@router.post("/failback", response_model=EvacuationEnded, responses=ACCEPTED)
async def failback(
    region: Region, body: EvacuateBody, prefer: Prefer = None, asking: Asking = acts(Permission.TRIGGER)
) -> Response:
    """The way back: every cluster that is at home in the region returns to it by a switchover, in waves."""
    return await asking.once(
        lambda begun: _move(Direction.BACK, region, body, wait_s(prefer, dry_run=body.dry_run), asking, begun)
    )


async def _move(
    direction: Direction,
    region: str,
    body: EvacuateBody,
    longest_s: float,
    asking: Asking,
    begun: Begun,
) -> Response:
    request = EvacuateRequest(
        region=region,
        direction=direction,
        initiated_by=asking.who.name,
        reason=body.reason,
        clusters=body.clusters,
        dry_run=body.dry_run,
    )
    parts = asking.parts
    workflow_id = region_id(region, dry_run=body.dry_run)
    handle = await begun_before(asking, begun, workflow_id, RegionResult) or await start_evacuation(
        parts.client, signed_start(asking.signer, request), parts.task_queue, deed_id=begun.deed_id
    )
    run_id = handle.result_run_id or ""
    url = f"/api/v1/continuity/regions/{region}"
    started = EvacuationStarted(
        request_id=asking.request_id, execution_id=run_id, region=region, region_url=url
    )
    accepted = answer(started, 202, {"Location": url, "Preference-Applied": f"wait={longest_s:.0f}"})

    def ended(result: RegionResult) -> Response:
        return answer(EvacuationEnded(request_id=asking.request_id, execution_id=run_id, result=result))

    return await ended_or_accepted(asking, handle, longest_s, accepted=accepted, ended=ended)


@router.post("/runs/{run_id}/approve", response_model=Counted)
async def approve_evacuation(
    region: Region, run_id: RunId, body: VoteBody, asking: Asking = acts()
) -> Response:
    """Agree to the plan of all clusters, once for all of them."""
    return await vote(Deed.APPROVE, region, region_id(region), run_id, body, asking)


@router.post("/runs/{run_id}/reject", response_model=Counted)
async def reject_evacuation(
    region: Region, run_id: RunId, body: VoteBody, asking: Asking = acts()
) -> Response:
    """Say no: the evacuation ends, and nothing is changed."""
    return await vote(Deed.REJECT, region, region_id(region), run_id, body, asking)


@router.post("/runs/{run_id}/pause", response_model=Said)
async def pause_evacuation(
    region: Region, run_id: RunId, body: ReasonBody, asking: Asking = acts(Permission.TRIGGER)
) -> Response:
    """Hold the evacuation before its next wave."""
    request = PauseRunRequest(by=asking.who.name, reason=body.reason)
    return await say(Deed.PAUSE, region, region_id(region), run_id, request, asking)


@router.post("/runs/{run_id}/resume", response_model=Said)
async def resume_evacuation(
    region: Region, run_id: RunId, body: ReasonBody, asking: Asking = acts(Permission.TRIGGER)
) -> Response:
    """Let it go on, also where too many clusters did not move."""
    request = ResumeRunRequest(by=asking.who.name, reason=body.reason)
    return await say(Deed.RESUME, region, region_id(region), run_id, request, asking)


@router.post("/runs/{run_id}/abort", response_model=Said)
async def abort_evacuation(
    region: Region, run_id: RunId, body: ReasonBody, asking: Asking = acts(Permission.TRIGGER)
) -> Response:
    """Begin no further cluster; those that move stop at their next safe place, or are completed."""
    request = AbortRequest(by=asking.who.name, reason=body.reason)
    return await say(Deed.ABORT, region, region_id(region), run_id, request, asking)
