"""Evaluating a cluster's readiness through Temporal: now, and again and again by a schedule."""

from __future__ import annotations

from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    WorkflowHandle,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from qnwis.continuity.readiness_facts import Readiness
from qnwis.continuity.refusal import Refusal
from qnwis.providers.errors import Refused
from qnwis.temporal import not_there
from workflows.names import RUNBOOKS_QUEUE, readiness_id
from workflows.readiness import ReadinessCheck, ReadinessRequest

PATIENCE = timedelta(minutes=3)
"""Where no worker evaluates, nobody waits for longer."""
CATCH_UP = timedelta(minutes=1)
"""An evaluation that a server missed longer ago is of no interest; the next one comes."""


async def start_readiness(
    client: Client, cluster_id: str, *, by: str, task_queue: str = RUNBOOKS_QUEUE
) -> WorkflowHandle[ReadinessCheck, Readiness]:
    """The evaluation that goes on, started if there was none."""
    return await client.start_workflow(
        ReadinessCheck.run,
        ReadinessRequest(cluster_id=cluster_id, initiated_by=by),
        id=readiness_id(cluster_id),
        task_queue=task_queue,
        run_timeout=PATIENCE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        static_summary=f"Readiness of {cluster_id}",
    )


async def schedule_readiness(
    client: Client, cluster_id: str, *, every: timedelta, task_queue: str = RUNBOOKS_QUEUE
) -> None:
    """Evaluate every so often from now on; a schedule that is there gets the new interval."""
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(
            ReadinessCheck.run,
            ReadinessRequest(cluster_id=cluster_id, initiated_by="schedule"),
            id=readiness_id(cluster_id),
            task_queue=task_queue,
            run_timeout=PATIENCE,
            static_summary=f"Readiness of {cluster_id}",
        ),
        # Many clusters with the same interval are not to be asked at the same second.
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)], jitter=every / 20),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=CATCH_UP),
    )
    try:
        await client.create_schedule(readiness_id(cluster_id), schedule)
    except ScheduleAlreadyRunningError:
        handle = client.get_schedule_handle(readiness_id(cluster_id))
        await handle.update(lambda _: ScheduleUpdate(schedule=schedule))


async def unschedule_readiness(client: Client, cluster_id: str) -> None:
    """Evaluate by schedule no more. Raises Refused when there is no schedule."""
    try:
        await client.get_schedule_handle(readiness_id(cluster_id)).delete()
    except RPCError as error:
        if not not_there(error):
            raise
        raise Refused(
            Refusal(
                rule="no_schedule",
                message=f"Readiness of {cluster_id} is not evaluated by a schedule",
                values={"schedule_id": readiness_id(cluster_id)},
                remedy="Nothing to do.",
            )
        ) from error
