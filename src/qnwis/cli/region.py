"""`region`: watch a region, have every cluster leave it, and steer that."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError

from qnwis.continuity.access import Deed
from qnwis.continuity.region_plan import Direction
from qnwis.continuity.region_run import EvacuateRequest, RegionResult
from qnwis.continuity.run import (
    DRY_RUN_MARK,
    AbortRequest,
    PauseRunRequest,
    ResumeRunRequest,
    RunOutcome,
)
from qnwis.guardians import LOOK_WITHIN, begun, region_view
from qnwis.starting import start_evacuation, start_region_guardian
from qnwis.temporal import connect
from workflows.names import region_guardian_id, region_id
from workflows.region_guardian import RegionView

from .approving import Yes, send_vote
from .output import AsJson, Exit, clear_errors, err, fail, out, print_json
from .settings import Address
from .showing import show_region_plan
from .signing import signed_start
from .speaking import Speaker, spoken
from .steering import Reason, Run, say

app = typer.Typer(
    help="Watch a region, and leave it with all clusters when it is lost.", no_args_is_help=True
)

Region = Annotated[str, typer.Argument(help="The region, as the topologies name it.")]
Only = Annotated[
    list[str] | None, typer.Option(help="Only this cluster, once for each; by default all that it concerns.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Plan it, and change nothing.")]


def run_of(region: str) -> Run:
    return Run(region, region_id(region))


@app.command()
@spoken
def evacuate(
    region: Region, reason: Reason, speaker: Speaker, only: Only = None, dry_run: DryRun = False
) -> None:
    """Move every cluster whose primary is in the region to another one, in waves. Waits for people."""
    _move(Direction.OUT, region, reason, only, speaker, dry_run=dry_run)


@app.command()
@spoken
def failback(
    region: Region, reason: Reason, speaker: Speaker, only: Only = None, dry_run: DryRun = False
) -> None:
    """The way back: every cluster that is at home in the region returns to it by a switchover, in waves."""
    _move(Direction.BACK, region, reason, only, speaker, dry_run=dry_run)


def _move(
    direction: Direction, region: str, reason: str, only: list[str] | None, speaker: Speaker, *, dry_run: bool
) -> None:
    """Start it, and wait for its end."""
    request = EvacuateRequest(
        region=region,
        direction=direction,
        initiated_by=speaker.name,
        reason=reason,
        clusters=tuple(only or ()),
        dry_run=dry_run,
    )
    request = signed_start(request, speaker.me)
    if speaker.only_print:
        print_json(request)
        return

    async def carry_out() -> RegionResult:
        handle = await start_evacuation(await connect(speaker.address), request)
        if not speaker.as_json:
            out.print(f"run {handle.result_run_id} of {region}", markup=False)
        return await handle.result()

    with clear_errors(as_json=speaker.as_json):
        try:
            result = asyncio.run(carry_out())
        except WorkflowFailureError as error:
            fail(Exit.NOT_DONE, f"The run failed: {error.cause}")
    if speaker.as_json:
        print_json(result)
    else:
        _show(result, dry_run=dry_run)
    raise typer.Exit(_exit_code(result))


@app.command()
@spoken
def approve(region: Region, speaker: Speaker, reason: Reason = "", yes: Yes = False) -> None:
    """Agree to the plan of all clusters, once for all of them."""
    send_vote(Deed.APPROVE, run_of(region), reason, speaker, yes=yes)


@app.command()
@spoken
def reject(region: Region, reason: Reason, speaker: Speaker, yes: Yes = False) -> None:
    """Say no: the evacuation ends, and nothing is changed."""
    send_vote(Deed.REJECT, run_of(region), reason, speaker, yes=yes)


@app.command()
@spoken
def abort(region: Region, reason: Reason, speaker: Speaker) -> None:
    """Begin no further cluster; those that move stop at their next safe place, or are completed."""
    say(Deed.ABORT, run_of(region), AbortRequest(by=speaker.name, reason=reason), speaker)


@app.command()
@spoken
def pause(region: Region, reason: Reason, speaker: Speaker) -> None:
    """Hold the evacuation before its next wave."""
    say(Deed.PAUSE, run_of(region), PauseRunRequest(by=speaker.name, reason=reason), speaker)


@app.command()
@spoken
def resume(region: Region, reason: Reason, speaker: Speaker) -> None:
    """Let it go on, also where too many clusters did not move."""
    say(Deed.RESUME, run_of(region), ResumeRunRequest(by=speaker.name, reason=reason), speaker)


@app.command()
def watch(region: Region, address: Address = None) -> None:
    """Start the region's guardian, which tells people when the region is lost. One that runs stays."""
    name = region_guardian_id(region)

    async def begin() -> RegionView | None:
        client = await connect(address)
        guardian = await start_region_guardian(client, region)
        return await begun(
            guardian,
            lambda: region_view(client, region, within=LOOK_WITHIN),
            lambda seen: seen.verdict is not None,
        )

    with clear_errors():
        try:
            seen = asyncio.run(begin())
        except WorkflowFailureError as error:
            fail(Exit.USAGE, f"{name} has ended: {error.cause.__cause__ or error.cause}")
    if seen is None:
        out.print(f"{name} is started, and no worker has taken it up yet", markup=False)
    elif seen.verdict is None:
        out.print(f"{name} is started, and has heard of no cluster yet", markup=False)
    else:
        out.print(f"{name} watches {region}", markup=False)
        _show_view(seen)


@app.command()
def view(region: Region, address: Address = None, as_json: AsJson = False) -> None:
    """Whether the region's guardian holds it for lost, and why."""

    async def ask() -> RegionView:
        return await region_view(await connect(address), region)

    with clear_errors(as_json=as_json):
        try:
            seen = asyncio.run(ask())
        except RPCError as error:
            fail(Exit.UNREACHABLE, f"{region_guardian_id(region)} does not answer: {error.message}")
    if as_json:
        print_json(seen)
    else:
        _show_view(seen)


def _show_view(seen: RegionView) -> None:
    verdict = seen.verdict
    stands = f"{verdict.finding.value} ({verdict.why})" if verdict is not None else "not judged yet"
    out.print(f"{seen.region}: {stands}", markup=False)
    out.print(f"primaries in it: {', '.join(seen.primaries_inside) or 'none'}", markup=False)
    for cluster_id, why in seen.silent.items():
        out.print(f"  {cluster_id}: {why}", markup=False)
    if seen.holding is not None:
        out.print(f"not acting: {seen.holding}", markup=False)


def _exit_code(result: RegionResult) -> Exit:
    if result.verified or result.outcome is RunOutcome.PREVIEWED:
        return Exit.OK
    return Exit.REFUSED if result.outcome is RunOutcome.REFUSED else Exit.NOT_DONE


def _show(result: RegionResult, *, dry_run: bool) -> None:
    mark = f"{DRY_RUN_MARK} " if dry_run else ""
    good = result.verified or result.outcome is RunOutcome.PREVIEWED
    style = "bold green" if good else "bold red"
    (out if good else err).print(f"{mark}{result.outcome.value}: {result.reason}", style=style, markup=False)
    if result.plan is not None:
        show_region_plan(result.plan)
    for one in result.moved:
        run = f" (run {one.run_id})" if one.run_id is not None else ""
        out.print(f"  {one.cluster_id}: {one.became}: {one.reason}{run}", markup=False)
    for note in result.notes:
        out.print(f"note: {note}", markup=False)
    if result.way_back:
        out.print("the way back, once the region is well:", markup=False)
    for line in result.way_back:
        out.print(f"  {line}", markup=False)
    out.print(f"audit: {result.audit_id or 'none'}", markup=False)
