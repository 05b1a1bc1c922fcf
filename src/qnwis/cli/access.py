"""`access`: who can do what, who did what, and which rights nobody needed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import TimeoutError
from temporalio.service import RPCError

from activities.access_review import ReviewedAccess
from qnwis.access_reviews import (
    PATIENCE,
    schedule_access_review,
    start_access_review,
    unschedule_access_review,
)
from qnwis.continuity.access_review import AccessReviewRequest
from qnwis.temporal import connect

from .output import AsJson, Exit, clear_errors, fail, out, print_json
from .people import default_name
from .settings import Address

app = typer.Typer(help="Review who can do what, and who did.", no_args_is_help=True)

T = TypeVar("T")


@app.command()
def review(
    days: Annotated[
        float | None,
        typer.Option(min=1, help="The days up to now; by default the quarter that ended last."),
    ] = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Review access now, on a worker; the result is an audit record, and people are told."""

    async def reviewed() -> ReviewedAccess:
        request = AccessReviewRequest(days=days, initiated_by=default_name())
        return await (await start_access_review(await connect(address), request)).result()

    try:
        found = _done(reviewed(), as_json=as_json)
    except WorkflowFailureError as error:
        if isinstance(error.cause, TimeoutError):
            fail(Exit.UNREACHABLE, f"no worker reviewed access within {PATIENCE.seconds} s")
        fail(Exit.NOT_DONE, f"the review failed: {error.cause.__cause__ or error.cause}")
    if as_json:
        print_json(found)
    else:
        _show(found)


@app.command()
def schedule(
    delete: Annotated[bool, typer.Option("--delete", help="Review by schedule no more.")] = False,
    address: Address = None,
) -> None:
    """Review access on the first day of each quarter, or stop doing so."""

    async def change() -> None:
        client = await connect(address)
        await (unschedule_access_review(client) if delete else schedule_access_review(client))

    _done(change())
    told = "by schedule no more" if delete else "on the first day of each quarter"
    out.print(f"access is reviewed {told}", markup=False)


def _done(work: Coroutine[Any, Any, T], *, as_json: bool = False) -> T:
    with clear_errors(as_json=as_json):
        try:
            return asyncio.run(work)
        except RPCError as error:
            fail(Exit.UNREACHABLE, f"the Temporal server does not answer as expected: {error.message}")


def _show(found: ReviewedAccess) -> None:
    table = Table("who", "roles", "used", "not used", box=None, pad_edge=False)
    for holder in found.review.holders:
        who = holder.person or f"{holder.service} (token {holder.token_id})"
        used = ", ".join(f"{right} ×{use.times}" for right, use in sorted(holder.used.items()))
        table.add_row(who, ", ".join(holder.roles), used, ", ".join(holder.unused))
    out.print(table)
    for one in found.review.findings:
        out.print(f"{one.code.value}: {one.message}", markup=False)
        out.print(f"  → {one.remedy}", markup=False)
    out.print(found.review.headline, markup=False)
    out.print(f"audit: {found.audit_id}", markup=False)
