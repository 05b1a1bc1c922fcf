"""Reviewing access through Temporal: now, and each quarter by a schedule."""

from __future__ import annotations

from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleCalendarSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleRange,
    ScheduleSpec,
    ScheduleUpdate,
    WorkflowHandle,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from activities.access_review import ReviewedAccess
from qnwis.continuity.access_review import QUARTER_MONTHS, AccessReviewRequest
from qnwis.continuity.refusal import Refusal
from qnwis.providers.errors import Refused
from qnwis.temporal import not_there
from workflows.access_review import AccessReviewRun
from workflows.names import ACCESS_REVIEW_ID, RUNBOOKS_QUEUE

PATIENCE = timedelta(minutes=5)
"""Where no worker reviews, nobody waits for longer."""
CATCH_UP = timedelta(days=31)
"""A review that the server slept through is made up for: the quarter it is about does not change."""
HOUR_UTC = 6
"""Of the first day of a quarter: runs that end around midnight are on record by then."""


async def start_access_review(
    client: Client, request: AccessReviewRequest, *, task_queue: str = RUNBOOKS_QUEUE
) -> WorkflowHandle[AccessReviewRun, ReviewedAccess]:
    """The review that goes on, started if there was none."""
    return await client.start_workflow(
        AccessReviewRun.run,
        request,
        id=ACCESS_REVIEW_ID,
        task_queue=task_queue,
        run_timeout=PATIENCE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        static_summary="Access review",
    )


async def schedule_access_review(client: Client, *, task_queue: str = RUNBOOKS_QUEUE) -> None:
    """Review on the first day of each quarter the one that has ended. A schedule that is there is renewed."""
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(
            AccessReviewRun.run,
            AccessReviewRequest(initiated_by="schedule", by_schedule=True),
            id=ACCESS_REVIEW_ID,
            task_queue=task_queue,
            static_summary="Quarterly access review",
        ),
        spec=ScheduleSpec(
            calendars=[
                ScheduleCalendarSpec(
                    month=[ScheduleRange(1, 12, QUARTER_MONTHS)],
                    day_of_month=[ScheduleRange(1)],
                    hour=[ScheduleRange(HOUR_UTC)],
                )
            ]
        ),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=CATCH_UP),
    )
    try:
        await client.create_schedule(ACCESS_REVIEW_ID, schedule)
    except ScheduleAlreadyRunningError:
        handle = client.get_schedule_handle(ACCESS_REVIEW_ID)
        await handle.update(lambda _: ScheduleUpdate(schedule=schedule))


async def unschedule_access_review(client: Client) -> None:
    """Review by schedule no more. Raises Refused when there is no schedule."""
    try:
        await client.get_schedule_handle(ACCESS_REVIEW_ID).delete()
    except RPCError as error:
        if not not_there(error):
            raise
        raise Refused(
            Refusal(
                rule="no_schedule",
                message="Access is not reviewed by a schedule",
                values={"schedule_id": ACCESS_REVIEW_ID},
                remedy="Nothing to do.",
            )
        ) from error
