"""Planned maintenance: move a service away from a primary that is well, and back."""

from __future__ import annotations

from time import monotonic

from fastapi import APIRouter, Response

from qnwis.continuity.identity import Permission
from qnwis.continuity.run import FailoverRequest, Maintenance, RunResult
from qnwis.signing import signed_start
from qnwis.starting import start_maintenance, start_round_trip

from .asking import Asking, acts, answer
from .bodies import Accepted, ExecuteResponse, ReasonBody, example, executed
from .paths import ClusterId, Prefer
from .texts import WholeCharacters
from .waiting import ended_or_accepted, wait_s

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
    return await asking.once(lambda: _maintain(cluster_id, body, prefer, asking))


async def _maintain(cluster_id: str, body: MaintenanceBody, prefer: str | None, asking: Asking) -> Response:
    started, parts = monotonic(), asking.parts
    parts.registered(cluster_id)
    request = FailoverRequest(
        cluster_id=cluster_id,
        initiated_by=asking.who.name,
        reason=body.reason,
        dry_run=body.dry_run,
        maintenance=body.maintenance,
    )
    signed = signed_start(asking.signer, request)
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

    longest_s = wait_s(prefer, dry_run=body.dry_run)
    return await ended_or_accepted(asking, handle, cluster_id, None, longest_s, ended)
