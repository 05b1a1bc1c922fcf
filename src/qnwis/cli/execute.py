"""`execute`: carry a plan out, preview it, or drill the runbook, as a durable run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer
from temporalio.client import Client

from qnwis.continuity.run import (
    DRY_RUN_MARK,
    FailoverRequest,
    RunKind,
    RunOutcome,
    RunResult,
)
from qnwis.starting import RunHandle, start_failover
from qnwis.temporal import connect

from .drilling import drill_request, there_and_back
from .files import read_plan
from .giving_up import AttestOff, Lost, Override, given_up
from .output import Exit, clear_errors, err, fail, out, print_json
from .past_runs import FAILOVER, MAINTENANCE, earlier_ones_took
from .settings import STATE_DIR_VARIABLE
from .signing import signed_start
from .speaking import Speaker, spoken
from .watching import RunFailed, exit_code, follow, follow_on_terminal

Start = Callable[[Client, FailoverRequest], Awaitable[RunHandle]]


@spoken
def execute(
    speaker: Speaker,
    cluster_id: Annotated[
        str | None,
        typer.Argument(help="With --drill: cluster_id of a registered cluster.", show_default=False),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="A plan that `plan --output` wrote.", show_default=False)
    ] = None,
    drill: Annotated[
        bool,
        typer.Option(
            "--drill",
            help="Fail over from a primary that is well, on purpose, then bring everything back to where it"
            " began. Done only when it is.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read the world, preview every effect, change nothing.")
    ] = False,
    even_if_healthy: Annotated[
        bool,
        typer.Option("--even-if-healthy", help="Fence and fail over although the primary accepts writes."),
    ] = False,
    override: Override = False,
    lost: Lost = None,
    attest_off: AttestOff = False,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit record.")] = "manual",
) -> None:
    """Execute a plan. Evidence is taken again; a plan that no longer fits is refused."""
    if drill:
        if cluster_id is None or plan is not None or dry_run or override:
            fail(Exit.USAGE, "--drill: expected CLUSTER, and no --plan, --dry-run or --override")
        by_failover = drill_request(
            cluster_id, speaker.name, reason, back_after_s=0, there_by=RunKind.PRIMARY_FAILURE
        )
        there_and_back(by_failover, speaker)
        return
    if plan is None or cluster_id is not None:
        fail(Exit.USAGE, "expected --plan, or CLUSTER with --drill")
    with clear_errors(as_json=speaker.as_json):
        made = read_plan(plan)
        request = FailoverRequest(
            cluster_id=made.cluster_id,
            initiated_by=speaker.name,
            reason=reason,
            dry_run=dry_run,
            even_if_healthy=even_if_healthy,
            override=override,
            give_up=given_up(lost, attest_off, speaker.name, override=override),
            plan=made,
        )
        request = signed_start(request, speaker.me)
        if speaker.only_print:
            print_json(request)
            return
    result = see_through(start_failover, request, speaker.address, as_json=speaker.as_json)
    raise typer.Exit(exit_code(result))


def see_through(start: Start, request: FailoverRequest, address: str | None, *, as_json: bool) -> RunResult:
    """Start a run, follow it to its end and show that. Ends the command where there is no such end.

    How long earlier ones took is shown meanwhile, where QNWIS_STATE_DIR or its default has their records.
    """
    state_dir = os.environ.get(STATE_DIR_VARIABLE)
    which = FAILOVER if request.maintenance is None else MAINTENANCE
    where = Path(state_dir) if state_dir else None
    earlier = None if as_json else earlier_ones_took(where, request.cluster_id, which)

    async def to_the_end() -> RunResult:
        handle = await start(await connect(address), request)
        if as_json:
            return await follow(handle)
        out.print(f"run {handle.result_run_id} of {handle.id}", markup=False)
        if earlier is not None:
            out.print(earlier, markup=False)
        return await follow_on_terminal(handle)

    with clear_errors(as_json=as_json):
        try:
            result = asyncio.run(to_the_end())
        except RunFailed as failed:
            fail(Exit.NOT_DONE, f"The run failed: {failed}")
    if as_json:
        print_json(result)
    else:
        show_result(result)
    return result


def show_result(result: RunResult) -> None:
    """The end of a run for people."""
    mark = f"{DRY_RUN_MARK} " if result.dry_run else ""
    good = result.verified or result.outcome is RunOutcome.PREVIEWED
    console = out if good else err
    style = "bold green" if good else "bold red"
    console.print(f"{mark}{result.outcome.value}: {result.reason}", style=style, markup=False)
    for note in result.notes:
        out.print(f"{mark}note: {note}", markup=False)
    if result.fencing is not None:
        out.print(f"fencing: {result.fencing.type.value} ({result.fencing.detail})", markup=False)
    if result.suspension is not None:
        out.print(
            f"GUARANTEE SUSPENDED since {result.suspension.since:%F %T} UTC:"
            f" {', '.join(result.suspension.lost)} were given up. Its review is closed when they are known to"
            f" take no part: qnwis-continuity review show {result.cluster_id}",
            style="bold yellow",
            markup=False,
        )
    if result.verification is not None:
        for check in result.verification.checks:
            out.print(f"  {'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}", markup=False)
        confidence = result.verification.confidence
        out.print(f"confidence: {confidence.score} ({confidence.band})", markup=False)
    out.print(f"audit: {result.audit_id or 'none'}", markup=False)
