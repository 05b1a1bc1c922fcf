"""Planned maintenance: move a service away from a primary that is well, and back."""

from __future__ import annotations

from time import monotonic

from fastapi import APIRouter, Response

from qnwis.continuity.identity import Permission
from qnwis.continuity.round_trips import RoundTripResult
from qnwis.continuity.run import FailoverRequest, Maintenance, RunResult
from qnwis.providers.request_store import Begun
from qnwis.signing import signed_start
from qnwis.starting import start_maintenance, start_round_trip
from workflows.names import failover_id, round_trip_id

from .asking import Asking, acts, answer
from .bodies import Accepted, ExecuteResponse, ReasonBody, example, executed
from .paths import ClusterId, Prefer
from .texts import WholeCharacters
from .waiting import accepted_run, begun_before, ended_or_accepted, wait_s

router = APIRouter(route_class=WholeCharacters)


class MaintenanceBody(ReasonBody):
    model_config = example(reason="new kernel on node-1", maintenance={"target_node_id": "node-2"})

    maintenance: Maintenance = Maintenance()
    dry_run: bool = False


@router.post(
    "/clusters/{cluster_id}/maintenance", response_model=ExecuteResponse, responses={202: {"model": Accepted}}
)
async def maintain(
    cluster_id: ClusterId,
    body: MaintenanceBody,
    prefer: Prefer = None,
    asking: Asking = acts(Permission.TRIGGER),
) -> Response:
    """Move the service to another node on purpose; with `back_after_s`, and back again."""
    if body.maintenance.back_after_s is not None:
        return await asking.once(lambda begun: _there_and_back(cluster_id, body, asking, begun))
    return await asking.once(
        lambda begun: _there(cluster_id, body, wait_s(prefer, dry_run=body.dry_run), asking, begun)
    )


async def _there(
    cluster_id: str, body: MaintenanceBody, longest_s: float, asking: Asking, begun: Begun
) -> Response:
    started, parts = monotonic(), asking.parts
    signed = _signed(cluster_id, body, asking)
    workflow_id = failover_id(cluster_id, dry_run=body.dry_run)
    handle = await begun_before(asking, begun, workflow_id, RunResult) or await start_maintenance(
        parts.client, signed, parts.task_queue, deed_id=begun.deed_id
    )

    def ended(result: RunResult) -> Response:
        total_ms = (monotonic() - started) * 1000
        plan_id = result.plan.plan_id if result.plan is not None else ""
        return answer(executed(result, plan_id, asking.request_id, total_ms))

    accepted = accepted_run(asking, handle, cluster_id, None, longest_s)
    return await ended_or_accepted(asking, handle, longest_s, accepted=accepted, ended=ended)


async def _there_and_back(cluster_id: str, body: MaintenanceBody, asking: Asking, begun: Begun) -> Response:
    parts = asking.parts
    signed = _signed(cluster_id, body, asking)
    trip = await begun_before(
        asking, begun, round_trip_id(cluster_id), RoundTripResult
    ) or await start_round_trip(parts.client, signed, parts.task_queue, deed_id=begun.deed_id)
    accepted = Accepted(
        request_id=asking.request_id,
        execution_id=trip.result_run_id or "",
        plan_id=None,
        cluster_id=cluster_id,
        run_url=f"/api/v1/continuity/clusters/{cluster_id}/runs",
        events_url="",
    )
    return answer(accepted, 202, {"Location": accepted.run_url})


def _signed(cluster_id: str, body: MaintenanceBody, asking: Asking) -> FailoverRequest:
    asking.parts.registered(cluster_id)
    request = FailoverRequest(
        cluster_id=cluster_id,
        initiated_by=asking.who.name,
        reason=body.reason,
        dry_run=body.dry_run,
        maintenance=body.maintenance,
    )
    return signed_start(asking.signer, request)
