"""Starting and ending runs, and guardians: the one place that knows under which id and on which queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError

from qnwis.continuity.approvals import PendingApproval, Vote, VoteRequest
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.region_plan import Direction
from qnwis.continuity.region_run import EvacuateRequest, RegionResult
from qnwis.continuity.round_trips import RoundTripResult
from qnwis.continuity.run import (
    DRY_RUN_MARK,
    FailoverRequest,
    RunKind,
    RunProgress,
    RunResult,
)
from qnwis.continuity.takeover import UNFINISHED
from qnwis.continuity.tokens import PersonRequest
from qnwis.providers.errors import Refused
from qnwis.runbook import load_runbook
from qnwis.temporal import not_there
from workflows.guardian import Guardian
from workflows.guardian_state import AlertAnswer, AlertRequest, GuardianState
from workflows.names import (
    RUNBOOKS_QUEUE,
    failover_id,
    guardian_id,
    region_guardian_id,
    region_id,
    round_trip_id,
)
from workflows.planned_maintenance import PlannedMaintenance
from workflows.primary_failure import PrimaryFailure
from workflows.region_failure import RegionFailure
from workflows.region_guardian import RegionGuardian, RegionGuardianState
from workflows.round_trip import RoundTrip

RunHandle = WorkflowHandle[Any, RunResult]
"""Of a run of any runbook."""
R = TypeVar("R")
DEED = "deed"
"""In the memo of what was started by a request that may be sent again: which deed it is."""
LOOKED_BACK_ON = 1000
"""So many of the newest executions under an id; a request is the same deed for a day."""


async def started_before(
    client: Client, workflow_id: str, deed_id: str, result_type: type[R]
) -> WorkflowHandle[Any, R] | None:
    """What this deed has started under this id, also where it has ended and others ran since. The server
    lists it a moment after its start; until then the lock that the id is keeps another from starting."""
    async for found in client.list_workflows(f"WorkflowId = '{workflow_id}'", limit=LOOKED_BACK_ON):
        if await found.memo_value(DEED, "", type_hint=str) == deed_id:
            return client.get_workflow_handle(workflow_id, run_id=found.run_id, result_type=result_type)
    return None


async def start_failover(
    client: Client, request: FailoverRequest, task_queue: str = RUNBOOKS_QUEUE, *, deed_id: str | None = None
) -> RunHandle:
    """Start the run under the cluster's lock. Raises Refused with the id of the run that holds it. `deed_id`:
    by which it is found again (`started_before`)."""
    run, kind = PrimaryFailure.run, RunKind.PRIMARY_FAILURE
    return await _start(client, run, kind, "Failover", request, task_queue, deed_id)


async def start_maintenance(
    client: Client, request: FailoverRequest, task_queue: str = RUNBOOKS_QUEUE, *, deed_id: str | None = None
) -> RunHandle:
    """The same for planned maintenance."""
    run, kind = PlannedMaintenance.run, RunKind.PLANNED_MAINTENANCE
    return await _start(client, run, kind, "Maintenance", request, task_queue, deed_id)


async def start_evacuation(
    client: Client, request: EvacuateRequest, task_queue: str = RUNBOOKS_QUEUE, *, deed_id: str | None = None
) -> WorkflowHandle[RegionFailure, RegionResult]:
    """Start the evacuation of a region, or the way back. Raises Refused while another one of it goes on."""
    workflow_id = region_id(request.region, dry_run=request.dry_run)
    mark = f"{DRY_RUN_MARK} " if request.dry_run else ""
    what = "Evacuation of" if request.direction is Direction.OUT else "Failback to"
    try:
        return await client.start_workflow(
            RegionFailure.run,
            request,
            id=workflow_id,
            task_queue=task_queue,
            memo=_memo(deed_id),
            static_summary=f"{mark}{what} {request.region}: {request.reason}",
            static_details=load_runbook(RunKind.REGION_FAILURE).text,
        )
    except WorkflowAlreadyStartedError as error:
        raise Refused(
            Refusal(
                rule="evacuation_in_progress",
                message=f"The clusters of {request.region} are being moved already",
                values={"workflow_id": workflow_id, "run_id": error.run_id},
                remedy="Follow it in the Temporal UI; it is stopped by"
                f" qnwis-continuity region abort {request.region}.",
            )
        ) from error


async def start_round_trip(
    client: Client, request: FailoverRequest, task_queue: str = RUNBOOKS_QUEUE, *, deed_id: str | None = None
) -> WorkflowHandle[RoundTrip, RoundTripResult]:
    """Move a service there and back; what this starts holds the cluster's lock in turn. Raises Refused while
    another one goes on."""
    workflow_id = round_trip_id(request.cluster_id)
    try:
        return await client.start_workflow(
            RoundTrip.run,
            request,
            id=workflow_id,
            task_queue=task_queue,
            memo=_memo(deed_id),
            static_summary=f"{request.cluster_id} there and back: {request.reason}",
        )
    except WorkflowAlreadyStartedError as error:
        raise Refused(
            Refusal(
                rule="round_trip_in_progress",
                message=f"{request.cluster_id} is being moved there and back already",
                values={"workflow_id": workflow_id, "run_id": error.run_id},
                remedy="Follow it in the Temporal UI; cancelled there it says what is left to do.",
            )
        ) from error


async def _start(
    client: Client,
    run: Callable[[Any, FailoverRequest | None], Awaitable[RunResult]],
    kind: RunKind,
    what: str,
    request: FailoverRequest,
    task_queue: str,
    deed_id: str | None,
) -> RunHandle:
    mark = f"{DRY_RUN_MARK} " if request.dry_run else ""
    workflow_id = failover_id(request.cluster_id, dry_run=request.dry_run)
    try:
        return await client.start_workflow(
            run,
            request,
            id=workflow_id,
            task_queue=task_queue,
            memo=_memo(deed_id),
            static_summary=f"{mark}{what} of {request.cluster_id}: {request.reason}",
            static_details=load_runbook(kind).text,
        )
    except WorkflowAlreadyStartedError as error:
        raise Refused(run_in_progress(request.cluster_id, workflow_id, error.run_id)) from error


def _memo(deed_id: str | None) -> dict[str, str] | None:
    return None if deed_id is None else {DEED: deed_id}


def run_in_progress(cluster_id: str, workflow_id: str, run_id: str | None) -> Refusal:
    return Refusal(
        rule="run_in_progress",
        message=f"A run holds the lock of {cluster_id}",
        values={"workflow_id": workflow_id, "run_id": run_id},
        remedy="Follow it in the Temporal UI; this is possible when it has ended, which"
        f" qnwis-continuity abort {cluster_id} may bring about.",
    )


def finish_request(cluster_id: str, *, by: str, run_id: str = UNFINISHED) -> FailoverRequest:
    """Starts what brings a terminated run to its end: by default the one that is unfinished."""
    return FailoverRequest(
        cluster_id=cluster_id, initiated_by=by, reason=f"finish run {run_id}", continues=run_id
    )


async def say_to_run(
    client: Client,
    workflow_id: str,
    update: str,
    request: PersonRequest,
    *,
    run_id: str | None = None,
    deed_id: str | None = None,
) -> str:
    """What a run answers to an update, for example `abort`; `run_id` as its token names it, else whichever
    goes on. `deed_id`: what the run has taken under it is not done again, and answered as it was. Raises
    Refused with the rule that says no, and when no run goes on."""
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    try:
        return str(await handle.execute_update(update, request, id=deed_id, result_type=str))
    except WorkflowUpdateFailedError as error:
        raise_refusal(error)
    except RPCError as error:
        raise_no_run(error, workflow_id)


async def running(client: Client, workflow_id: str) -> str:
    """Temporal's run id of what goes on under this id; a token about it names that. Raises Refused where
    nothing does."""
    try:
        return (await client.get_workflow_handle(workflow_id).describe()).run_id
    except RPCError as error:
        raise_no_run(error, workflow_id)


async def pending_approval(client: Client, workflow_id: str) -> PendingApproval:
    """What waits for people's votes there. Raises Refused when nothing does."""
    handle = client.get_workflow_handle(workflow_id)
    try:
        progress: RunProgress = await handle.query("progress", result_type=RunProgress)
    except RPCError as error:
        raise_no_run(error, workflow_id)
    if progress.approval is None:
        raise Refused(
            Refusal(
                rule="no_window",
                message=f"{workflow_id} waits for no approval",
                values={step.name: step.status.value for step in progress.steps},
                remedy="Wait until it asks for one, or start a run.",
            )
        )
    return progress.approval


async def vote(
    client: Client, workflow_id: str, request: VoteRequest, *, approve: bool, deed_id: str | None = None
) -> Vote:
    """Cast a vote; `deed_id` as for `say_to_run`. Raises Refused with the rule by which it does not count."""
    handle = client.get_workflow_handle(workflow_id, run_id=request.token.claim.run_id)
    try:
        update = "approve" if approve else "reject"
        counted: Vote = await handle.execute_update(update, request, id=deed_id, result_type=Vote)
        return counted
    except WorkflowUpdateFailedError as error:
        raise_refusal(error)
    except RPCError as error:
        raise_no_run(error, workflow_id)


def raise_refusal(error: WorkflowUpdateFailedError) -> NoReturn:
    """Raises Refused: with the rule that said no, or because the workflow ended or went on as a new execution
    before it had carried out what was said."""
    cause = error.cause
    if isinstance(cause, ApplicationError) and cause.details:
        raise Refused(Refusal.model_validate(cause.details[0])) from error
    raise Refused(
        Refusal(
            rule="not_taken",
            message=f"What was said was not taken: {cause}",
            values={"type": cause.type if isinstance(cause, ApplicationError) else type(cause).__name__},
            remedy="Look again at what goes on there, and say it again if that is still wanted.",
        )
    ) from error


def raise_no_run(error: RPCError, workflow_id: str) -> NoReturn:
    if not not_there(error):
        raise error
    raise Refused(
        Refusal(
            rule="no_run",
            message=f"No run goes on as {workflow_id}",
            values={"workflow_id": workflow_id},
            remedy="Nothing to do.",
        )
    ) from error


async def start_guardian(client: Client, cluster_id: str) -> WorkflowHandle[Guardian, None]:
    """The running guardian of the cluster, started if there was none."""
    return await client.start_workflow(
        Guardian.run,
        GuardianState(cluster_id=cluster_id),
        id=guardian_id(cluster_id),
        task_queue=RUNBOOKS_QUEUE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        static_summary=f"Guardian of {cluster_id}",
    )


async def ask_guardian(client: Client, cluster_id: str, alert: AlertRequest) -> AlertAnswer:
    """Have the cluster's guardian look now, and what it says. Raises Refused where there is none."""
    handle = client.get_workflow_handle(guardian_id(cluster_id))
    try:
        # By its name: the types know no update that a workflow inherits.
        answer: AlertAnswer = await handle.execute_update("alerted", alert, result_type=AlertAnswer)
        return answer
    except WorkflowUpdateFailedError as error:
        raise_refusal(error)
    except RPCError as error:
        raise_no_guardian(error, cluster_id)


async def say_to_guardian(
    client: Client, cluster_id: str, update: str, request: PersonRequest, *, deed_id: str | None = None
) -> None:
    """Have the cluster's guardian do as a person says, for example `pause`; `deed_id` as for `say_to_run`.
    Raises Refused with the rule by which it says no, and where there is none."""
    handle = client.get_workflow_handle(guardian_id(cluster_id))
    try:
        await handle.execute_update(update, request, id=deed_id)
    except WorkflowUpdateFailedError as error:
        raise_refusal(error)
    except RPCError as error:
        raise_no_guardian(error, cluster_id)


def raise_no_guardian(error: RPCError, cluster_id: str) -> NoReturn:
    if not not_there(error):
        raise error
    raise Refused(no_guardian(cluster_id)) from error


def no_guardian(cluster_id: str, *, how: str | None = None) -> Refusal:
    """`how` the one that there was has ended, in Temporal's word."""
    workflow_id = guardian_id(cluster_id)
    return Refusal(
        rule="no_guardian",
        message=f"No guardian watches {cluster_id}, so nothing decides"
        + (f": {workflow_id} has ended ({how})" if how else ""),
        values={"workflow_id": workflow_id},
        remedy=f"Start it: qnwis-continuity guardian start {cluster_id}.",
    )


async def start_region_guardian(
    client: Client, region: str, task_queue: str = RUNBOOKS_QUEUE
) -> WorkflowHandle[RegionGuardian, None]:
    """The running guardian of the region, started if there was none."""
    return await client.start_workflow(
        RegionGuardian.run,
        RegionGuardianState(region=region),
        id=region_guardian_id(region),
        task_queue=task_queue,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        static_summary=f"Guardian of {region}",
    )
