"""`conflicts`: which writes of an active/active cluster overwrote which unseen, and taking that back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue
from rich.table import Table

from qnwis.config.load import load_cluster
from qnwis.continuity.clocks import compare
from qnwis.continuity.conflicts import Conflict, report
from qnwis.continuity.refusal import Refusal
from qnwis.providers.conflicts import RegionDatabase
from qnwis.providers.errors import Unreachable

from .output import AsJson, Exit, clear_errors, err, fail, out, print_json, refuse

app = typer.Typer(
    help="Conflicting writes of an active/active cluster. The account and its password come from where every"
    " PostgreSQL client has them (PGUSER, PGPASSFILE, …).",
    no_args_is_help=True,
)

ClusterFile = Annotated[Path, typer.Option("--cluster", help="Topology, cluster.yaml.")]
Dbname = Annotated[str, typer.Option(help="The database that is written in all regions.")]
ConflictId = Annotated[str, typer.Argument(help="As `conflicts list` shows it.")]


@app.command(name="list")
def list_conflicts(cluster: ClusterFile, dbname: Dbname, as_json: AsJson = False) -> None:
    """Every conflict that any region found, the oldest first. Ends with 4 where a region did not answer."""
    with clear_errors(as_json=as_json):
        found, silent = asyncio.run(_report(_databases(cluster, dbname)))
    if as_json:
        shown = [{"conflict_id": one.conflict_id, **one.model_dump(mode="json")} for one in found]
        print_json({"conflicts": shown, "silent": silent})
    else:
        for one in found:
            out.print(one.told(), markup=False)
    _end_if_silent(silent)


@app.command()
def show(conflict_id: ConflictId, cluster: ClusterFile, dbname: Dbname, as_json: AsJson = False) -> None:
    """Both versions, column by column."""
    with clear_errors(as_json=as_json):
        one = _named(conflict_id, *asyncio.run(_report(_databases(cluster, dbname))))
    if as_json:
        print_json({"conflict_id": one.conflict_id, **one.model_dump(mode="json")})
        return
    order = compare(one.winner.clock, one.loser.clock).value
    out.print(f"{one.table} {dict(one.key)}, found in {', '.join(one.seen_in)}", markup=False)
    out.print(f"clocks: {dict(one.winner.clock)} {order} {dict(one.loser.clock)}", markup=False)
    table = Table("column", one.winner.told(), f"overwritten: {one.loser.told()}", box=None, pad_edge=False)
    rows = [{} if version.row is None else version.row for version in (one.winner, one.loser)]
    for column in dict.fromkeys(name for row in rows for name in row):
        values = [_value(row, column) for row in rows]
        table.add_row(column, *values, style="" if values[0] == values[1] else "bold")
    out.print(table)


@app.command()
def undo(conflict_id: ConflictId, cluster: ClusterFile, dbname: Dbname, as_json: AsJson = False) -> None:
    """Write the overwritten version back, if nobody has written the row since; all regions get it."""
    with clear_errors(as_json=as_json):
        databases = _databases(cluster, dbname)
        one = _named(conflict_id, *asyncio.run(_report(databases)))
        # Where both versions met: that region has it on record, and notes that it was undone.
        where = next(database for database in databases if database.region in one.seen_in)
        decided = asyncio.run(where.undo(one))
    if isinstance(decided, Refusal):
        refuse(decided, as_json=as_json)
    if as_json:
        print_json(decided)
    else:
        out.print(f"{one.table} {dict(one.key)}: {one.loser.told()} is back, in {where.region}", markup=False)


def _databases(cluster: Path, dbname: str) -> list[RegionDatabase]:
    topology = load_cluster(cluster)
    if not topology.is_active_active:
        fail(Exit.USAGE, f"{cluster}: expected deployment: active_active, whose regions all write")
    return [RegionDatabase.of(topology, node.region, dbname) for node in topology.primaries]


async def _report(databases: list[RegionDatabase]) -> tuple[tuple[Conflict, ...], dict[str, str]]:
    """What all that answer have on record; and by region, why one does not."""
    answers = await asyncio.gather(*(_ask(database) for database in databases))
    silent = {
        database.region: answer
        for database, answer in zip(databases, answers, strict=True)
        if isinstance(answer, str)
    }
    return report(one for answer in answers if not isinstance(answer, str) for one in answer), silent


async def _ask(database: RegionDatabase) -> tuple[Conflict, ...] | str:
    try:
        return await database.conflicts()
    except Unreachable as error:
        return str(error)


def _named(conflict_id: str, found: tuple[Conflict, ...], silent: Mapping[str, str]) -> Conflict:
    named = next((one for one in found if one.conflict_id == conflict_id), None)
    if named is None:
        _end_if_silent(silent)
        fail(Exit.USAGE, f"no conflict {conflict_id}; `conflicts list` shows all")
    return named


def _end_if_silent(silent: Mapping[str, str]) -> None:
    for why in silent.values():
        err.print(f"⚠ not known: {why}", markup=False)
    if silent:
        raise typer.Exit(Exit.UNREACHABLE)


def _value(row: Mapping[str, JsonValue], column: str) -> str:
    return "–" if column not in row else str(row[column])
