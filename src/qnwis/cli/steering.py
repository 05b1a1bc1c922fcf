"""`abort` a run that goes on, and `run`: hold it, let it go on, give it more time, confirm a manual step.

All of them speak to the cluster's run. `guardian pause` is something else (no automatic failover from now
on), and so is `maintenance pause` (a schedule starts nothing).
"""

from __future__ import annotations

import asyncio
from typing import Annotated

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
)
from qnwis.continuity.tokens import PersonRequest
from qnwis.starting import running, say_to_run
from qnwis.temporal import connect
from workflows.names import failover_id

from .durations import seconds
from .output import AsJson, Exit, clear_errors, fail, out, print_json
from .settings import Address
from .signing import By, KeyFile, Me, Print, me

app = typer.Typer(
    help="A run that goes on: hold it, let it go on, give it more time, confirm what was done by hand.",
    no_args_is_help=True,
)

ClusterId = Annotated[str, typer.Argument(help="cluster_id whose run is meant.")]
Reason = Annotated[str, typer.Option(help="Why; people see it.")]


def abort(
    cluster_id: ClusterId,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit record.")],
    by: By = "",
    key: KeyFile = None,
    only_print: Print = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Stop the cluster's run and undo what it has begun; refused once the promotion has begun."""
    who = me(key, by)
    request = AbortRequest(by=who.name, reason=reason)
    say(Deed.ABORT, cluster_id, failover_id(cluster_id), request, who, only_print, address, as_json)


@app.command()
def pause(
    cluster_id: ClusterId,
    reason: Reason,
    by: By = "",
    key: KeyFile = None,
    only_print: Print = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Hold the cluster's run before its next action; refused once the promotion has begun."""
    who = me(key, by)
    request = PauseRunRequest(by=who.name, reason=reason)
    say(Deed.PAUSE, cluster_id, failover_id(cluster_id), request, who, only_print, address, as_json)


@app.command()
def resume(
    cluster_id: ClusterId,
    reason: Reason,
    by: By = "",
    key: KeyFile = None,
    only_print: Print = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Let the cluster's run go on that is held."""
    who = me(key, by)
    request = ResumeRunRequest(by=who.name, reason=reason)
    say(Deed.RESUME, cluster_id, failover_id(cluster_id), request, who, only_print, address, as_json)


@app.command()
def extend(
    cluster_id: ClusterId,
    longer: Annotated[str, typer.Option("--for", help="How much longer, for example 10m; at most 24h.")],
    reason: Reason,
    by: By = "",
    key: KeyFile = None,
    only_print: Print = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Give the window that is open more time: the one for votes, else the one for maintenance."""
    who, by_s = me(key, by), seconds(longer) or 0.0
    if not 0 < by_s <= LONGEST_EXTENSION_S:
        fail(Exit.USAGE, f"--for {longer}: expected more than 0 s and at most {LONGEST_EXTENSION_S:.0f} s")
    request = ExtendRequest(by=who.name, reason=reason, by_s=by_s)
    say(Deed.EXTEND, cluster_id, failover_id(cluster_id), request, who, only_print, address, as_json)


@app.command()
def confirm(
    cluster_id: ClusterId,
    manual_step: Annotated[str, typer.Argument(help="Its name, as the runbook and the checklist have it.")],
    reason: Reason,
    by: By = "",
    key: KeyFile = None,
    only_print: Print = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Say that what a person had to do by hand is done; the cluster's run waits for it."""
    who = me(key, by)
    request = ConfirmRequest(by=who.name, reason=reason, manual_step=manual_step)
    say(Deed.CONFIRM, cluster_id, failover_id(cluster_id), request, who, only_print, address, as_json)


def say(
    deed: Deed,
    name: str,
    workflow_id: str,
    request: PersonRequest,
    who: Me,
    only_print: bool,
    address: str | None,
    as_json: bool,
) -> None:
    """Sign the request for the run that goes on under this id, then send it or print it. The run's update and
    its signal are named as the deed is. `name`: of the cluster or the region."""

    async def sign_and_send() -> str | None:
        client = await connect(address)
        run_id = await running(client, workflow_id)
        signed = who.signed(deed, request, cluster_id=name, run_id=run_id)
        if only_print:
            print_json(signed)
            return None
        return await say_to_run(client, workflow_id, deed.value, signed, run_id=run_id)

    with clear_errors(as_json=as_json):
        try:
            answer = asyncio.run(sign_and_send())
        except RPCError as error:
            fail(Exit.UNREACHABLE, f"the run of {name} does not answer: {error.message}")
    if answer is None:
        return
    if as_json:
        print_json({"name": name, "answer": answer})
    else:
        out.print(f"{name}: {answer}", markup=False)
