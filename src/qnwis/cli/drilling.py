"""Drills: a runbook carried out on purpose, and the service brought back to where it began."""

from __future__ import annotations

import asyncio

import typer
from temporalio.client import WorkflowFailureError

from qnwis.continuity.round_trips import RoundTripResult
from qnwis.continuity.run import FailoverRequest, Maintenance, RunbookOfACluster, RunKind
from qnwis.starting import start_round_trip
from qnwis.temporal import connect

from .output import Exit, clear_errors, fail, out, print_json
from .signing import signed_start
from .speaking import Speaker


def drill_request(
    cluster_id: str,
    by: str,
    reason: str,
    *,
    back_after_s: float,
    there_by: RunbookOfACluster = RunKind.PLANNED_MAINTENANCE,
    target: str = "",
) -> FailoverRequest:
    """A runbook on purpose, and back."""
    return FailoverRequest(
        cluster_id=cluster_id,
        initiated_by=by,
        reason=reason,
        even_if_healthy=there_by is RunKind.PRIMARY_FAILURE,
        maintenance=Maintenance(
            target_node_id=target or None, back_after_s=back_after_s, drill=True, there_by=there_by
        ),
    )


def there_and_back(request: FailoverRequest, speaker: Speaker) -> None:
    """Start it, wait until the service stands where it began, and end the command with what it came to."""
    request = signed_start(request, speaker.me)
    if speaker.only_print:
        print_json(request)
        return

    async def to_the_end() -> RoundTripResult:
        handle = await start_round_trip(await connect(speaker.address), request)
        if not speaker.as_json:
            approve = f"qnwis-continuity approve {request.cluster_id}"
            out.print(f"{handle.id} begins; approve it with: {approve}", markup=False)
        return await handle.result()

    with clear_errors(as_json=speaker.as_json):
        try:
            result = asyncio.run(to_the_end())
        except WorkflowFailureError as failed:
            fail(Exit.NOT_DONE, f"It failed: {failed.cause}")
    if speaker.as_json:
        print_json(result)
    else:
        out.print(result.summary, markup=False, style="bold green" if result.verified else "bold red")
    raise typer.Exit(Exit.OK if result.verified else Exit.NOT_DONE)
