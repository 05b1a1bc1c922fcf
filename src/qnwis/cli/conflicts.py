"""`conflicts`: which writes of an active/active cluster overwrote which unseen, and taking that back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue
from rich.table import Table

from qnwis.config.load import load_cluster
from qnwis.continuity.access import Deed, Person
from qnwis.continuity.audit import AuditDraft, AuditRecord
from qnwis.continuity.clocks import compare
from qnwis.continuity.conflict_record import (
    ByCommand,
    artefacts_of_prune,
    artefacts_of_undo,
    draft_of_prune,
    draft_of_undo,
    run_of_undo,
)
from qnwis.continuity.conflicts import Conflict, report
from qnwis.continuity.model import sha256_digest
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.tokens import Expected, Token
from qnwis.providers.audit_place import audit_store_of
from qnwis.providers.conflicts import RegionDatabase
from qnwis.providers.errors import Unreachable
from qnwis.providers.tombstones import prune

from .durations import seconds
from .output import AsJson, Exit, clear_errors, err, fail, out, print_json, refuse
from .proving import PeopleDir, proved_here
from .settings import StateDir
from .signing import By, KeyFile, me

app = typer.Typer(
    help="Conflicting writes of an active/active cluster. The account and its password come from where every"
    " PostgreSQL client has them (PGUSER, PGPASSFILE, …).",
    no_args_is_help=True,
)

ClusterFile = Annotated[Path, typer.Option("--cluster", help="Topology, cluster.yaml.")]
Dbname = Annotated[str, typer.Option(help="The database that is written in all regions.")]
ConflictId = Annotated[str, typer.Argument(help="As `conflicts list` shows it.")]
Why = Annotated[str, typer.Option("--reason", help="Kept in the record.")]


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
def undo(
    conflict_id: ConflictId,
    cluster: ClusterFile,
    dbname: Dbname,
    state_dir: StateDir,
    reason: Why,
    config_dir: PeopleDir = None,
    by: By = "",
    key: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Write the overwritten version back, if nobody has written the row since, and record it. All regions get
    it."""
    with clear_errors(as_json=as_json):
        databases = _databases(cluster, dbname)
        one = _named(conflict_id, *asyncio.run(_report(databases)))
        # Where both versions met: that region has it on record, and notes that it was undone.
        where = next(database for database in databases if database.region in one.seen_in)
        act = _Act(load_cluster(cluster).cluster_id, state_dir, reason, config_dir, by, key, as_json)
        act.prove(run_id=run_of_undo(one.conflict_id), digest=sha256_digest(one.model_dump(mode="json")))
        decided = asyncio.run(where.undo(one))
        if isinstance(decided, Refusal):
            refuse(decided, as_json=as_json)
        done = act.done()
        artefacts = artefacts_of_undo(done, one, decided, where=where.region)
        record = act.record(draft_of_undo(done, one), artefacts)
    if as_json:
        print_json({**decided.model_dump(mode="json"), "audit_id": record.audit_id})
    else:
        out.print(f"{one.table} {dict(one.key)}: {one.loser.told()} is back, in {where.region}", markup=False)
        out.print(f"audit: {record.audit_id}", markup=False)


@app.command(name="prune")
def prune_tombstones(
    cluster: ClusterFile,
    dbname: Dbname,
    older_than: Annotated[
        str,
        typer.Option(
            help="Of deletions, for example 30d: longer than any standby lags, and than a backup is old that"
            " you would go back to."
        ),
    ],
    state_dir: StateDir,
    reason: Why,
    config_dir: PeopleDir = None,
    by: By = "",
    key: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Forget old deletions in all regions, and record it. Refuses while one does not answer or is behind.

    Ends with 1 where some regions forgot and others did not, and says how they become equal again.
    """
    with clear_errors(as_json=as_json):
        older_than_s = seconds(older_than)
        if older_than_s is None:
            fail(Exit.USAGE, "--older-than: expected for example 30d")
        databases = _databases(cluster, dbname)
        act = _Act(load_cluster(cluster).cluster_id, state_dir, reason, config_dir, by, key, as_json)
        act.prove(run_id=None, digest=sha256_digest({"prune": older_than_s}))
        pruned = asyncio.run(prune(databases, older_than_s))
        if isinstance(pruned, Refusal):
            refuse(pruned, as_json=as_json)
        for region, why in pruned.left.items():
            err.print(f"⚠ {region} did not forget, or is not known to have: {why}", markup=False)
        if pruned.left:
            err.print(f"→ {pruned.remedy()}", markup=False)
        done = act.done()
        record = act.record(draft_of_prune(done, pruned), artefacts_of_prune(done, pruned))
    if as_json:
        print_json({**pruned.model_dump(mode="json"), "audit_id": record.audit_id})
    else:
        counts = ", ".join(f"{region}: {count}" for region, count in pruned.by_region.items())
        out.print(f"{pruned.found} deletions that all regions have; forgotten in {counts}", markup=False)
        out.print(f"audit: {record.audit_id}", markup=False)
    if pruned.left:
        raise typer.Exit(Exit.NOT_DONE)


class _Act:
    """What a person does by command, and its record. The store is opened before anything is done: where it
    is not there, or cannot be read, nothing is."""

    def __init__(
        self,
        cluster_id: str,
        state_dir: Path,
        reason: str,
        config_dir: Path | None,
        by: str,
        key: Path | None,
        as_json: bool,
    ) -> None:
        self._cluster_id = cluster_id
        self._reason = reason
        self._config_dir = config_dir
        self._as_json = as_json
        self._who = me(key, by)
        if not state_dir.is_dir():
            fail(Exit.USAGE, f"{state_dir}: expected the folder where workers keep the audit store")
        self._store = audit_store_of(state_dir, os.environ)
        asyncio.run(self._store.latest(1))
        self._began_at = datetime.now(UTC)
        self._person: Person | None = None
        self._token: Token | None = None

    def prove(self, *, run_id: str | None, digest: str) -> None:
        expected = Expected(deed=Deed.RECORD, cluster_id=self._cluster_id, run_id=run_id, digest=digest)
        self._person, self._token = proved_here(
            self._who, expected, self._reason, self._config_dir, as_json=self._as_json
        )

    def done(self) -> ByCommand:
        return ByCommand(
            cluster_id=self._cluster_id,
            by=self._who.name,
            roles=() if self._person is None else self._person.roles,
            reason=self._reason,
            began_at=self._began_at,
            ended_at=datetime.now(UTC),
            token=self._token,
        )

    def record(self, draft: AuditDraft, artefacts: Mapping[str, str]) -> AuditRecord:
        return asyncio.run(self._store.append(draft, artefacts))


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
