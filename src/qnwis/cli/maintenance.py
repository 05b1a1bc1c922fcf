"""`maintenance`: move a service away from a primary that is well; now, in a window, or by a schedule."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.table import Table
from temporalio.client import ScheduleHandle
from temporalio.service import RPCError

from qnwis.continuity.access import Deed
from qnwis.continuity.run import FailoverRequest, Maintenance, RunKind
from qnwis.schedules import ListedSchedule, Timing, handle_of, listed, note_for, schedule_maintenance
from qnwis.starting import start_maintenance
from qnwis.temporal import connect

from .drilling import drill_request, there_and_back
from .durations import seconds
from .execute import see_through
from .output import AsJson, Exit, clear_errors, fail, out, print_json
from .settings import Address
from .signing import By, KeyFile, me, signed_start
from .speaking import Speaker, spoken
from .watching import exit_code

app = typer.Typer(help="Planned maintenance: run it, or schedule it.", no_args_is_help=True)

ClusterId = Annotated[str, typer.Argument(help="cluster_id of a registered cluster.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit record.")]
Target = Annotated[str, typer.Option(help="node_id that takes over; by default the best standby.")]
Window = Annotated[str, typer.Option(help="How long the window is, for example 30m; by default without end.")]
BackAfter = Annotated[str, typer.Option(help="Go back so long after the switchover, for example 30m.")]
Name = Annotated[str, typer.Option(help="Tells the cluster's schedules apart.")]


class Runbook(StrEnum):
    """By which a drill moves the service."""

    PRIMARY_FAILURE = RunKind.PRIMARY_FAILURE
    PLANNED_MAINTENANCE = RunKind.PLANNED_MAINTENANCE


@app.command()
@spoken
def run(
    cluster_id: ClusterId,
    reason: Reason,
    speaker: Speaker,
    target: Target = "",
    not_before: Annotated[
        str, typer.Option(help="When the window begins, ISO 8601 with a zone; by default at once.")
    ] = "",
    window: Window = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read the world, preview every effect, change nothing.")
    ] = False,
) -> None:
    """Switch over to another node, without the loss of a write. Waits for people, and for the window."""
    maintenance = Maintenance(
        target_node_id=target or None, not_before=_moment(not_before), window_s=seconds(window)
    )
    request = FailoverRequest(
        cluster_id=cluster_id,
        initiated_by=speaker.name,
        reason=reason,
        dry_run=dry_run,
        maintenance=maintenance,
    )
    request = signed_start(request, speaker.me)
    if speaker.only_print:
        print_json(request)
        return

    result = see_through(start_maintenance, request, speaker.address, as_json=speaker.as_json)
    raise typer.Exit(exit_code(result))


@app.command()
@spoken
def drill(
    cluster_id: ClusterId,
    speaker: Speaker,
    reason: Reason = "drill",
    target: Target = "",
    back_after: BackAfter = "30s",
) -> None:
    """Hand the service over on purpose, and back; done only when it stands where it began. For a drill of the
    other runbook: `qnwis-continuity execute CLUSTER --drill`."""
    request = drill_request(
        cluster_id, speaker.name, reason, back_after_s=seconds(back_after) or 0, target=target
    )
    there_and_back(request, speaker)


@app.command()
def schedule(
    cluster_id: ClusterId,
    cron: Annotated[str, typer.Option(help="When, five fields as in crontab: '0 3 * * SUN'.")],
    reason: Reason,
    name: Name = "default",
    target: Target = "",
    window: Annotated[str, typer.Option(help="How long the window of each run is, for example 30m.")] = "1h",
    time_zone: Annotated[str, typer.Option(help="In which the fields are read.")] = "UTC",
    jitter: Annotated[str, typer.Option(help="Put each start off by up to this, for example 5m.")] = "",
    blackout: Annotated[
        list[str] | None, typer.Option(help="A day on which nothing starts, YYYY-MM-DD; may repeat.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Only the next time.")] = False,
    back_after: BackAfter = "",
    is_drill: Annotated[bool, typer.Option("--drill", help="It is a drill; needs --back-after.")] = False,
    there_by: Annotated[
        Runbook,
        typer.Option(
            "--runbook",
            help="Of a drill: primary_failure fails over from the primary although it is well, as soon as"
            " people approve, whatever --window says.",
        ),
    ] = Runbook.PLANNED_MAINTENANCE,
    by: By = "",
    key: KeyFile = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Start planned maintenance by a schedule. Each run awaits people's approval, within its window."""
    who = me(key, by)
    if is_drill and not back_after:
        fail(Exit.USAGE, "--drill: expected --back-after too, because a drill ends where it began")
    by_failover = there_by is Runbook.PRIMARY_FAILURE
    if by_failover and (not is_drill or target):
        fail(Exit.USAGE, f"--runbook {there_by}: expected --drill too, and no --target")
    request = FailoverRequest(
        cluster_id=cluster_id,
        initiated_by=who.name,
        reason=reason,
        even_if_healthy=by_failover,
        maintenance=Maintenance(
            target_node_id=target or None,
            window_s=None if by_failover else seconds(window),
            back_after_s=seconds(back_after),
            drill=is_drill,
            there_by=RunKind.PRIMARY_FAILURE if by_failover else RunKind.PLANNED_MAINTENANCE,
        ),
    )
    try:
        days = tuple(date.fromisoformat(day) for day in blackout or [])
    except ValueError as error:
        fail(Exit.USAGE, f"--blackout: {error}; expected YYYY-MM-DD")
    timing = Timing(cron=cron, time_zone=time_zone, jitter_s=seconds(jitter) or 0, blackout=days, once=once)

    signed = signed_start(request, who, Deed.SCHEDULE)

    async def make() -> str:
        return await schedule_maintenance(await connect(address), name, signed, timing)

    with clear_errors(as_json=as_json):
        made = asyncio.run(make())
    if as_json:
        print_json({"schedule_id": made})
    else:
        out.print(f"{made}: {cron} ({time_zone})", markup=False)


@app.command(name="list")
def list_schedules(cluster_id: ClusterId, address: Address = None, as_json: AsJson = False) -> None:
    """The cluster's schedules and when they start next."""

    async def look() -> list[ListedSchedule]:
        return list(await listed(await connect(address), cluster_id))

    with clear_errors(as_json=as_json):
        found = asyncio.run(look())
    if as_json:
        print_json({"schedules": [schedule.model_dump(mode="json") for schedule in found]})
        return
    table = Table("schedule", "state", "next", "note", box=None, pad_edge=False)
    for one in found:
        state = "paused" if one.paused else "on"
        table.add_row(one.schedule_id, state, ", ".join(one.next_at) or "never", one.note)
    out.print(table)


@app.command()
def pause(cluster_id: ClusterId, reason: Reason, name: Name = "default", address: Address = None) -> None:
    """Let a schedule start nothing until it is resumed."""
    _speak(cluster_id, name, address, lambda handle, note: handle.pause(note=note), reason)
    out.print(f"schedule {name} of {cluster_id} is paused", markup=False)


@app.command()
def resume(cluster_id: ClusterId, reason: Reason, name: Name = "default", address: Address = None) -> None:
    """Let a schedule start maintenance again."""
    _speak(cluster_id, name, address, lambda handle, note: handle.unpause(note=note), reason)
    out.print(f"schedule {name} of {cluster_id} is on", markup=False)


@app.command()
def delete(cluster_id: ClusterId, name: Name = "default", address: Address = None) -> None:
    """Remove a schedule. A run that it started goes on."""
    _speak(cluster_id, name, address, lambda handle, _: handle.delete())
    out.print(f"schedule {name} of {cluster_id} is deleted", markup=False)


@app.command(name="run-now")
def run_now(cluster_id: ClusterId, name: Name = "default", address: Address = None) -> None:
    """Start what the schedule would start, at once."""
    _speak(cluster_id, name, address, lambda handle, _: handle.trigger())
    out.print(f"schedule {name} of {cluster_id} starts its maintenance", markup=False)


def _speak(
    cluster_id: str,
    name: str,
    address: str | None,
    say: Callable[[ScheduleHandle, str], Awaitable[None]],
    reason: str = "",
) -> None:
    async def connect_and_say() -> None:
        client = await connect(address)
        await say(await handle_of(client, cluster_id, name), note_for(client, reason))

    with clear_errors():
        try:
            asyncio.run(connect_and_say())
        except RPCError as error:
            fail(Exit.UNREACHABLE, f"schedule {name} of {cluster_id}: {error.message}")


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except (ValueError, ValidationError):
        fail(Exit.USAGE, f"{text!r}: expected ISO 8601, for example 2026-11-28T03:00:00+01:00")
    if moment.tzinfo is None:
        fail(Exit.USAGE, f"{text!r}: expected a time zone, for example {text}Z")
    return moment.astimezone(UTC)
