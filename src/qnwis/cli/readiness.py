"""`readiness`: would a failover work now?"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import TimeoutError
from temporalio.service import RPCError

from qnwis.continuity.readiness_facts import Grade, Readiness
from qnwis.readiness_runs import PATIENCE, schedule_readiness, start_readiness, unschedule_readiness
from qnwis.temporal import connect

from .durations import seconds
from .output import AsJson, Exit, clear_errors, err, fail, out, print_json, styled
from .people import default_name
from .settings import Address

app = typer.Typer(help="Evaluate whether a failover of a cluster would work.", no_args_is_help=True)

ClusterId = Annotated[str, typer.Argument(help="cluster_id of a registered cluster.")]
T = TypeVar("T")

STYLES = {
    Grade.READY: "green",
    Grade.WARNING: "yellow",
    Grade.NOT_EVALUATED: "magenta",
    Grade.NOT_READY: "bold red",
}
GOOD = (Grade.READY, Grade.WARNING)
SHORTEST = timedelta(seconds=30)


@app.command()
def show(cluster_id: ClusterId, address: Address = None, as_json: AsJson = False) -> None:
    """Evaluate now, on a worker, and print every check. Exit code 0 only for Ready and Warning."""

    async def evaluate() -> Readiness:
        handle = await start_readiness(await connect(address), cluster_id, by=default_name())
        return await handle.result()

    try:
        readiness = _done(evaluate(), as_json=as_json)
    except WorkflowFailureError as error:
        if isinstance(error.cause, TimeoutError):
            fail(Exit.UNREACHABLE, f"no worker evaluated {cluster_id} within {PATIENCE.seconds} s")
        fail(Exit.NOT_DONE, f"the evaluation failed: {error.cause.__cause__ or error.cause}")
    if as_json:
        print_json(readiness)
    else:
        _show(readiness)
    raise typer.Exit(Exit.OK if readiness.grade in GOOD else Exit.NOT_DONE)


@app.command()
def schedule(
    cluster_id: ClusterId,
    every: Annotated[
        str | None, typer.Option(help="How often, for example 30m, 1h or 1d.", show_default=False)
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Evaluate by schedule no more.")] = False,
    address: Address = None,
) -> None:
    """Evaluate again and again on the Temporal server, or stop doing so."""
    if (every is not None) is delete:
        raise typer.BadParameter("give either --every or --delete")
    interval = None if every is None else _interval(every)

    async def change() -> None:
        client = await connect(address)
        if interval is None:
            await unschedule_readiness(client, cluster_id)
        else:
            await schedule_readiness(client, cluster_id, every=interval)

    _done(change())
    told = "evaluated by schedule no more" if delete else f"evaluated every {every}"
    out.print(f"readiness of {cluster_id} is {told}", markup=False)


def _interval(text: str) -> timedelta:
    interval = timedelta(seconds=seconds(text) or 0)
    if interval < SHORTEST:
        least = f"{SHORTEST.total_seconds():.0f}s"
        raise typer.BadParameter(f"--every {text!r}: expected at least {least}")
    return interval


def _done(work: Coroutine[Any, Any, T], *, as_json: bool = False) -> T:
    with clear_errors(as_json=as_json):
        try:
            return asyncio.run(work)
        except RPCError as error:
            fail(Exit.UNREACHABLE, f"the Temporal server does not answer as expected: {error.message}")


def _show(readiness: Readiness) -> None:
    table = Table("check", "", "age", "", box=None, pad_edge=False)
    for check in readiness.checks:
        grade = styled(check.grade.value.replace("_", " "), STYLES[check.grade] if check.counts else "dim")
        age = "" if check.age_s is None else _age(check.age_s)
        table.add_row(check.name, grade, age, check.reason)
    out.print(table)
    headline = f"{readiness.cluster_id}: {readiness.headline}"
    (out if readiness.grade in GOOD else err).print(headline, style=STYLES[readiness.grade], markup=False)


def _age(seconds: float) -> str:
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
