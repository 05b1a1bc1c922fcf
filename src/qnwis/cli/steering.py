"""`abort` a run that goes on, and `run`: hold it, let it go on, give it more time, confirm a manual step.

All of them speak to the cluster's run. `guardian pause` is something else (no automatic failover from now
on), and so is `maintenance pause` (a schedule starts nothing).
"""

from __future__ import annotations

import asyncio
from typing import Annotated, NamedTuple

import typer
from temporalio.service import RPCError

from qnwis.continuity.access import Deed
from qnwis.continuity.run import (
    LONGEST_EXTENSION_S,
    AbortRequest,
    ConfirmRequest,
    ExtendRequest,
    PauseRunRequest,
    ResumeRunRequest,
    SkipRequest,
)
from qnwis.continuity.tokens import PersonRequest
from qnwis.starting import running, say_to_run
from qnwis.temporal import connect
from workflows.names import failover_id

from .durations import seconds
from .output import Exit, clear_errors, fail, out, print_json
from .speaking import Speaker, spoken

app = typer.Typer(
    help="A run that goes on: hold it, let it go on, give it more time, confirm what was done by hand.",
    no_args_is_help=True,
)

ClusterId = Annotated[str, typer.Argument(help="cluster_id whose run is meant.")]
Reason = Annotated[str, typer.Option(help="Why; people see it, and it is kept in the audit record.")]


class Run(NamedTuple):
    """What goes on and is spoken to."""

    name: str
    """Of the cluster or the region; a token names it."""
    workflow_id: str


def run_of(cluster_id: str) -> Run:
    return Run(cluster_id, failover_id(cluster_id))


@spoken
def abort(cluster_id: ClusterId, reason: Reason, speaker: Speaker) -> None:
    """Stop the cluster's run and undo what it has begun; refused once the promotion has begun."""
    say(Deed.ABORT, run_of(cluster_id), AbortRequest(by=speaker.name, reason=reason), speaker)


@spoken
def skip(
    cluster_id: ClusterId,
    step: Annotated[str, typer.Argument(help="The step's name, as the runbook has it.")],
    reason: Reason,
    speaker: Speaker,
) -> None:
    """Have a step of the cluster's run left out that has not begun; only where the runbook allows it."""
    say(Deed.SKIP, run_of(cluster_id), SkipRequest(by=speaker.name, reason=reason, step=step), speaker)


@app.command()
@spoken
def pause(cluster_id: ClusterId, reason: Reason, speaker: Speaker) -> None:
    """Hold the cluster's run before its next action; refused once the promotion has begun."""
    say(Deed.PAUSE, run_of(cluster_id), PauseRunRequest(by=speaker.name, reason=reason), speaker)


@app.command()
@spoken
def resume(cluster_id: ClusterId, reason: Reason, speaker: Speaker) -> None:
    """Let the cluster's run go on that is held."""
    say(Deed.RESUME, run_of(cluster_id), ResumeRunRequest(by=speaker.name, reason=reason), speaker)


@app.command()
@spoken
def extend(
    cluster_id: ClusterId,
    longer: Annotated[str, typer.Option("--for", help="How much longer, for example 10m; at most 24h.")],
    reason: Reason,
    speaker: Speaker,
) -> None:
    """Give the window that is open more time: the one for votes, else the one for maintenance. That for votes
    is extended by others than the run's initiator, and is at most four times as long in all."""
    by_s = seconds(longer) or 0.0
    if not 0 < by_s <= LONGEST_EXTENSION_S:
        fail(Exit.USAGE, f"--for {longer}: expected more than 0 s and at most {LONGEST_EXTENSION_S:.0f} s")
    request = ExtendRequest(by=speaker.name, reason=reason, by_s=by_s)
    say(Deed.EXTEND, run_of(cluster_id), request, speaker)


@app.command()
@spoken
def confirm(
    cluster_id: ClusterId,
    manual_step: Annotated[str, typer.Argument(help="Its name, as the runbook and the checklist have it.")],
    reason: Reason,
    speaker: Speaker,
) -> None:
    """Say that what a person had to do by hand is done; the cluster's run waits for it."""
    request = ConfirmRequest(by=speaker.name, reason=reason, manual_step=manual_step)
    say(Deed.CONFIRM, run_of(cluster_id), request, speaker)


def say(deed: Deed, run: Run, request: PersonRequest, speaker: Speaker) -> None:
    """Sign the request for the run that goes on, then send or print it. The run's update and its signal are
    named as the deed is."""

    async def sign_and_send() -> str | None:
        client = await connect(speaker.address)
        run_id = await running(client, run.workflow_id)
        signed = speaker.me.signed(deed, request, cluster_id=run.name, run_id=run_id)
        if speaker.only_print:
            print_json(signed)
            return None
        return await say_to_run(client, run.workflow_id, deed.value, signed, run_id=run_id)

    with clear_errors(as_json=speaker.as_json):
        try:
            answer = asyncio.run(sign_and_send())
        except RPCError as error:
            fail(Exit.UNREACHABLE, f"the run of {run.name} does not answer: {error.message}")
    if answer is None:
        return
    if speaker.as_json:
        print_json({"name": run.name, "answer": answer})
    else:
        out.print(f"{run.name}: {answer}", markup=False)
