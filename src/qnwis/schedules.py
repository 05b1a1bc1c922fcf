"""Maintenance schedules: Temporal Schedules that start planned maintenance of one cluster."""

from __future__ import annotations

import zoneinfo
from collections.abc import Sequence
from datetime import date, timedelta

from pydantic import BaseModel, ValidationError
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleCalendarSpec,
    ScheduleHandle,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleRange,
    ScheduleSpec,
    ScheduleState,
)
from temporalio.service import RPCError, RPCStatusCode

from qnwis.continuity.model import Model
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import FailoverRequest
from qnwis.providers.errors import Refused
from qnwis.temporal import not_there
from workflows.names import RUNBOOKS_QUEUE
from workflows.round_trip import RoundTrip

CATCH_UP = timedelta(minutes=1)
"""Maintenance that the server slept through by more than this is not made up for."""


class Timing(Model):
    """When a schedule starts maintenance."""

    cron: str
    """Five fields, as crontab has them."""
    time_zone: str = "UTC"
    jitter_s: float = 0.0
    """Each start is put off by a random time up to this."""
    blackout: tuple[date, ...] = ()
    """Days on which nothing starts, in that time zone."""
    once: bool = False
    """Only the next time."""


class ListedSchedule(Model):
    schedule_id: str
    paused: bool
    note: str
    next_at: tuple[str, ...]


class Whose(BaseModel):
    """Of what a schedule starts, the cluster alone: it may have been made by another version."""

    cluster_id: str


def schedule_id(cluster_id: str, name: str) -> str:
    """Not of this cluster alone: `shop` may have a schedule `eu-x`, and `shop-eu` a schedule `x`."""
    return f"maintenance-{cluster_id}-{name}"


async def schedule_maintenance(
    client: Client, name: str, request: FailoverRequest, timing: Timing, task_queue: str = RUNBOOKS_QUEUE
) -> str:
    """Make a schedule. Raises Refused for one that is there, and for a time zone or cron nobody knows."""
    if timing.time_zone not in zoneinfo.available_timezones():
        raise Refused(
            _unusable("time_zone_unknown", f"time zone {timing.time_zone!r}", "Name one of tzdata.")
        )
    made_id = schedule_id(request.cluster_id, name)
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(
            RoundTrip.run,
            request,
            id=made_id,
            task_queue=task_queue,
            static_summary=f"Maintenance of {request.cluster_id}: {request.reason}",
        ),
        spec=ScheduleSpec(
            cron_expressions=[timing.cron],
            skip=[_whole(day) for day in timing.blackout],
            time_zone_name=timing.time_zone,
            jitter=timedelta(seconds=timing.jitter_s) if timing.jitter_s else None,
        ),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=CATCH_UP),
        state=ScheduleState(
            limited_actions=timing.once,
            remaining_actions=1 if timing.once else 0,
            note=note_for(client, f"by {request.initiated_by}: {request.reason}"),
        ),
    )
    try:
        await client.create_schedule(made_id, schedule)
    except ScheduleAlreadyRunningError as error:
        raise Refused(
            _unusable("schedule_exists", f"schedule {made_id}", "Delete it first, or give another --name.")
        ) from error
    except RPCError as error:
        if error.status is not RPCStatusCode.INVALID_ARGUMENT:
            raise
        raise Refused(_unusable("schedule_invalid", error.message, "Correct --cron.")) from error
    return made_id


def note_for(client: Client, note: str) -> str:
    """A schedule's note is never encrypted; the schedule's own summary, which says the same, is."""
    return note if client.data_converter.payload_codec is None else "who and why are encrypted"


async def listed(client: Client, cluster_id: str) -> Sequence[ListedSchedule]:
    """The cluster's schedules. Raises KeyStoreError where they are encrypted, and this process has no key."""
    found = []
    async for schedule in await client.list_schedules():
        if not schedule.id.startswith(schedule_id(cluster_id, "")) or schedule.schedule is None:
            continue
        if await _cluster_of(client, schedule.id) != cluster_id:
            continue
        times = schedule.info.next_action_times if schedule.info is not None else []
        found.append(
            ListedSchedule(
                schedule_id=schedule.id,
                paused=schedule.schedule.state.paused,
                note=schedule.schedule.state.note or "",
                next_at=tuple(time.isoformat() for time in times[:3]),
            )
        )
    return found


async def handle_of(client: Client, cluster_id: str, name: str) -> ScheduleHandle:
    """The cluster's schedule of that name. Raises Refused where there is none, and KeyStoreError as `listed`
    does."""
    found_id = schedule_id(cluster_id, name)
    owner = await _cluster_of(client, found_id)
    if owner == cluster_id:
        return client.get_schedule_handle(found_id)
    raise Refused(
        Refusal(
            rule="no_schedule",
            message=f"{cluster_id} has no schedule {name}" + (f": {found_id} is {owner}'s" if owner else ""),
            values={"schedule_id": found_id, "cluster_id": owner},
            remedy=f"`qnwis-continuity maintenance list {cluster_id}` shows those that it has.",
        )
    )


async def _cluster_of(client: Client, found_id: str) -> str | None:
    """Whose maintenance the schedule of this id starts; None where there is none, or it starts something
    else."""
    try:
        action = (await client.get_schedule_handle(found_id).describe()).schedule.action
    except RPCError as error:
        if not not_there(error):
            raise
        return None
    if not isinstance(action, ScheduleActionStartWorkflow) or len(action.args) != 1:
        return None
    try:
        (whose,) = await client.data_converter.decode(action.args, [Whose])
    except ValidationError:
        return None
    return str(whose.cluster_id)


def _whole(day: date) -> ScheduleCalendarSpec:
    """Every second of the day."""
    return ScheduleCalendarSpec(
        second=[ScheduleRange(0, 59)],
        minute=[ScheduleRange(0, 59)],
        hour=[ScheduleRange(0, 23)],
        year=[ScheduleRange(day.year)],
        month=[ScheduleRange(day.month)],
        day_of_month=[ScheduleRange(day.day)],
    )


def _unusable(rule: str, what: str, remedy: str) -> Refusal:
    return Refusal(rule=rule, message=f"Not scheduled: {what}", values={}, remedy=remedy)
