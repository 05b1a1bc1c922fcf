"""`audit`: read the records of runs, and prove their chain."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.table import Table

from qnwis.continuity.audit import AuditRecord
from qnwis.providers.audit_store import SqliteAuditStore

from .output import AsJson, Exit, clear_errors, fail, out, print_json
from .settings import StateDir

app = typer.Typer(help="Read the records of runs, and prove their chain.", invoke_without_command=True)


@app.callback()
def audit(
    context: typer.Context,
    state_dir: StateDir,
    audit_id: Annotated[
        str | None, typer.Option(help="Show this record; without it, list the latest.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    with clear_errors(as_json=as_json):
        store = _store(state_dir)
        if audit_id is None:
            _list(asyncio.run(store.latest()), as_json=as_json)
            return
        record = asyncio.run(store.get(audit_id))
        if record is None:
            fail(Exit.USAGE, f"no record {audit_id} in {state_dir}; `audit` without --audit-id lists them")
        print_json(record)


@app.command()
def verify(state_dir: StateDir, as_json: AsJson = False) -> None:
    """Prove the chain: every record, every link, every signature, every artefact."""
    store = _store(state_dir)
    with clear_errors(as_json=as_json):
        faults = asyncio.run(store.verify())
    if as_json:
        print_json({"faults": [fault.model_dump(mode="json") for fault in faults]})
    else:
        for fault in faults:
            out.print(f"record {fault.sequence}: {fault.code.value}: {fault.message}", markup=False)
        verdict = f"the chain is broken: {len(faults)} faults" if faults else "the chain is unbroken"
        out.print(verdict, style="bold red" if faults else "bold green")
    raise typer.Exit(Exit.NOT_DONE if faults else Exit.OK)


def _list(records: tuple[AuditRecord, ...], *, as_json: bool) -> None:
    if as_json:
        print_json({"records": [record.model_dump(mode="json") for record in records]})
        return
    table = Table("audit id", "when", "cluster", "operation", "by", "success", "from → to", box=None)
    for r in records:
        where = f"{r.source_node or '–'} → {r.target_node or '–'}"
        success = "yes" if r.result.success else "no"
        table.add_row(
            r.audit_id, f"{r.timestamp:%F %T}", r.cluster_id, r.operation, r.initiated_by, success, where
        )
    out.print(table)


def _store(state_dir: StateDir) -> SqliteAuditStore:
    path = state_dir / "audit.sqlite"
    if not path.exists():
        fail(
            Exit.USAGE, f"no audit store at {path}; expected the --state-dir of a worker (or QNWIS_STATE_DIR)"
        )
    return SqliteAuditStore(path, state_dir / "audit-signing-key.pem")
