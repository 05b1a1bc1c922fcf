"""`review`: what an emergency override leaves to people."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import typer
from temporalio.service import RPCError

from qnwis.continuity.access import Deed
from qnwis.continuity.review import CloseRequest, Review
from qnwis.reviews import close_review, open_reviews, the_open_review
from qnwis.temporal import connect

from .output import AsJson, Exit, clear_errors, fail, out, print_json
from .settings import Address
from .speaking import Speaker, spoken

app = typer.Typer(help="Look at the reviews of emergency overrides, and close them.", no_args_is_help=True)

ClusterId = Annotated[str, typer.Argument(help="cluster_id of a registered cluster.")]
RunId = Annotated[str | None, typer.Option("--run", help="Which override, where several reviews are open.")]
T = TypeVar("T")


@app.command(name="list")
def list_reviews(address: Address = None, as_json: AsJson = False) -> None:
    """Every review that is open."""

    async def look() -> list[Review]:
        return await open_reviews(await connect(address))

    found = _done(look(), as_json=as_json)
    if as_json:
        print_json({"reviews": [review.model_dump(mode="json") for review in found]})
        return
    for review in found:
        out.print(f"{review.opened.cluster_id}  {review.opened.run_id}  {review.waits_for}", markup=False)
    if not found:
        out.print("no review is open")


@app.command()
def show(
    cluster_id: ClusterId, run_id: RunId = None, address: Address = None, as_json: AsJson = False
) -> None:
    """What the override passed, since when the guarantee is suspended, and what is still open."""

    async def look() -> Review:
        return await the_open_review(await connect(address), cluster_id, run_id)

    review = _done(look(), as_json=as_json)
    if as_json:
        print_json(review)
    else:
        _show(review)


@app.command()
@spoken
def close(
    cluster_id: ClusterId,
    reason: Annotated[str, typer.Option(help="What was found; kept in the audit record.")],
    speaker: Speaker,
    off: Annotated[
        list[str] | None,
        typer.Option(help="A lost node that you state to be off for good, once for each; recorded by name."),
    ] = None,
    run_id: RunId = None,
) -> None:
    """Close a review. Refused to who started the override, and while nothing is known of a lost node."""

    async def ask() -> Review | CloseRequest:
        client = await connect(speaker.address)
        opened = (await the_open_review(client, cluster_id, run_id)).opened
        request = CloseRequest(by=speaker.name, reason=reason, off=tuple(off or ()))
        request = speaker.me.signed(Deed.CLOSE_REVIEW, request, cluster_id=cluster_id, run_id=opened.run_id)
        if speaker.only_print:
            return request
        return await close_review(client, cluster_id, opened.run_id, request)

    answer = _done(ask(), as_json=speaker.as_json)
    if isinstance(answer, CloseRequest) or speaker.as_json:
        print_json(answer)
    else:
        _show(answer)


def _done(work: Coroutine[Any, Any, T], *, as_json: bool) -> T:
    with clear_errors(as_json=as_json):
        try:
            return asyncio.run(work)
        except RPCError as error:
            fail(Exit.UNREACHABLE, f"the review does not answer: {error.message}")


def _show(review: Review) -> None:
    opened, suspension = review.opened, review.suspension
    out.print(f"{opened.cluster_id}: {review.waits_for}", style="bold", markup=False)
    out.print(f"override by {opened.initiated_by}: {opened.reason}", markup=False)
    out.print(f"run {opened.run_id}, {opened.outcome}; audit {opened.audit_id}", markup=False)
    for note in opened.notes:
        out.print(f"  {note}", markup=False)
    if suspension is None:
        return
    until = "now: it is open" if suspension.until is None else f"{suspension.until:%F %T} UTC"
    out.print(f"guarantee suspended since {suspension.since:%F %T} UTC, until {until}", markup=False)
    for node_id, how in suspension.settled:
        out.print(f"  {node_id}: {how}", markup=False)
