"""`audit`: read the records of runs, prove their log and their bundles, and erase a person from them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from qnwis.bundle_check import Report, check, read_public_key, read_witness, told, unwrap_with
from qnwis.continuity.audit import AuditRecord, ChainFault, FaultCode
from qnwis.continuity.erasure import draft_of_erasure
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.tree_heads import HeadFault, HeadFaultCode, SignedTreeHead
from qnwis.providers.audit_place import PLACE_VARIABLE, SQLITE, audit_store_of, is_elsewhere
from qnwis.providers.audit_store import LoggedAuditStore
from qnwis.providers.bundles import SUFFIX, Bundles
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.key_store import FileKeyStore, KeyStoreError, key_store_of
from qnwis.providers.witness import witnesses_of
from qnwis.sql import audit_schema
from qnwis.transport import Transport

from . import settings
from .output import AsJson, Exit, clear_errors, fail, out, print_json
from .settings import OptionalStateDir, StateDir

app = typer.Typer(help="Read the records of runs, and prove them.", invoke_without_command=True)

Bundle = Annotated[Path | None, typer.Argument(help="A bundle to check; without it, the store.")]
PublicKey = Annotated[
    Path | None, typer.Option(help="PEM: the log's key that the bundle has to be signed with.")
]
WitnessFile = Annotated[Path | None, typer.Option(help="Signed tree heads kept elsewhere, a line each.")]
LISTED = 20
"""Newest records."""
UNOPENED = (
    "{} records are sealed: proved by what was signed of them, and their content not compared;"
    " QNWIS_KEY_STORE names the key store that opens them"
)
KeysFile = Annotated[Path | None, typer.Option(help="The key store's file: the content is checked too.")]


@app.callback()
def audit(
    context: typer.Context,
    state_dir: OptionalStateDir = None,
    audit_id: Annotated[
        str | None, typer.Option(help="Show this record; without it, list the latest.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    with clear_errors(as_json=as_json):
        store = store_of(state_dir)
        if audit_id is None:
            _list(asyncio.run(store.latest_each(LISTED)), as_json=as_json)
            return
        record = asyncio.run(store.get(audit_id))
        if record is None:
            fail(
                Exit.USAGE, f"no record {audit_id} in {place(state_dir)}; without --audit-id they are listed"
            )
        print_json(record)


@app.command()
def verify(
    bundle: Bundle = None,
    state_dir: OptionalStateDir = None,
    public_key: PublicKey = None,
    witness: WitnessFile = None,
    keys: KeysFile = None,
    as_json: AsJson = False,
) -> None:
    """Prove a bundle, without key, server or database; or the store: records, links, signatures, heads."""
    if bundle is not None:
        _verify_bundle(bundle, public_key, witness, keys, as_json=as_json)
    store = store_of(state_dir)
    with clear_errors(as_json=as_json):
        heads, torn = _heads(witness) if witness is not None else ([], [])
        try:
            chain, against, unopened = asyncio.run(_faults(store, heads))
            against = (*torn, *against)
        except Unreachable as error:
            fail(Exit.UNREACHABLE, f"nothing is proved or disproved, for it cannot be read now: {error}")
    notes = [UNOPENED.format(unopened)] if unopened else []
    if as_json:
        found = [fault.model_dump(mode="json") for fault in (*chain, *against)]
        print_json({"faults": found, "notes": notes})
    else:
        for note in notes:
            out.print(note, markup=False)
        for fault in chain:
            out.print(f"record {fault.sequence}: {fault.code.value}: {fault.message}", markup=False)
        for one in against:
            out.print(f"head of {one.size} records: {one.code.value}: {one.message}", markup=False)
        count = len(chain) + len(against)
        verdict = f"the chain is broken: {count} faults" if count else "the chain is unbroken"
        out.print(verdict, style="bold red" if count else "bold green")
    raise typer.Exit(Exit.NOT_DONE if chain or against else Exit.OK)


@app.command()
def bundle(
    audit_id: Annotated[str, typer.Argument(help="The record; `audit` lists them.")],
    state_dir: StateDir,
    out_file: Annotated[Path | None, typer.Option("--out", help="Where to write it.")] = None,
) -> None:
    """Make the bundle of a record again (a run makes its own, with its history, when it ends)."""
    target = out_file or Path(f"{audit_id}{SUFFIX}")
    try:
        keys = key_store_of(os.environ) or FileKeyStore(state_dir / "audit-keys.json")
        with clear_errors():
            content = asyncio.run(Bundles(store_of(state_dir), keys, target.parent).sealed(audit_id))
        with target.open("xb") as file:
            file.write(content)
    except KeyStoreError as error:
        fail(Exit.USAGE, str(error))
    except OSError as error:
        fail(Exit.USAGE, f"{target}: cannot be written ({error.strerror})")
    out.print(str(target), markup=False)


@app.command()
def head(state_dir: OptionalStateDir = None, as_json: AsJson = False) -> None:
    """Show the log's newest signed tree head, and have the witnesses of QNWIS_AUDIT_WITNESS keep it."""
    with clear_errors(as_json=as_json):
        signed = asyncio.run(_keep(store_of(state_dir)))
    if signed is None:
        fail(Exit.NOT_DONE, "the log has no tree head yet; its next record brings one")
    if as_json:
        print_json(signed)
    else:
        out.print(f"{signed.head.size} records, root {signed.head.root}, {signed.head.at}", markup=False)


@app.command()
def schema(
    writer: Annotated[str, typer.Option(help="The role that workers use; may read and append.")],
) -> None:
    """Print what makes a PostgreSQL database an audit log, for its owner to run with psql."""
    print(audit_schema(writer), end="")


@app.command("erase-person")
def erase_person(
    name: Annotated[str, typer.Argument(help="As people.yaml or the records have it.")],
    state_dir: StateDir,
    reason: Annotated[str, typer.Option(help="Kept in the log; do not name the person.")],
    by: Annotated[str, typer.Option(help="Who asks for it.", show_default="the account's name")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask again.")] = False,
) -> None:
    """Forget who a commitment stands for: records, proofs and bundles stay valid and name nobody.

    What cannot be undone is asked for once more. Copies of audit-persons.sqlite have to be erased where they
    lie.
    """
    if not yes:
        typer.confirm(f"Erase {name} from the audit trail? This cannot be undone", abort=True)
    store = store_of(state_dir)
    with clear_errors():
        alias = asyncio.run(_erase(store, name, reason, by or os.environ.get("USER", "unknown")))
    if alias is None:
        fail(
            Exit.NOT_DONE, f"{name} is not in the audit trail of {state_dir}; names are as they were written"
        )
    out.print(f"erased; the records have {alias}", markup=False)


async def _erase(store: LoggedAuditStore, name: str, reason: str, by: str) -> str | None:
    """The record of it comes first: who and why, and of whom only the commitment."""
    alias = await store.alias_of(name)
    if alias is None:
        return None
    hidden = reason.replace(name, alias)
    await store.append(draft_of_erasure(alias, hidden, by=by, at=datetime.now(UTC)), {})
    return await store.erase_person(name)


async def _faults(
    store: LoggedAuditStore, heads: list[SignedTreeHead]
) -> tuple[tuple[ChainFault, ...], tuple[HeadFault, ...], int]:
    chain = await store.verify()
    if any(fault.sequence == 0 and fault.code is FaultCode.UNREADABLE for fault in chain):
        return chain, (), 0  # there is nothing that could be compared, or counted
    return chain, await store.compare(heads) if heads else (), await store.unopened()


async def _keep(store: LoggedAuditStore) -> SignedTreeHead | None:
    signed = await store.head()
    if signed is not None:
        for witness in witnesses_of(os.environ, Transport()):
            await witness.keep(signed)
    return signed


def _heads(path: Path) -> tuple[list[SignedTreeHead], list[HeadFault]]:
    """What a witness kept, and what of it is no head: the others prove the log all the same."""
    heads, faults = [], []
    try:
        for number, line in enumerate(read_witness(path), start=1):
            try:
                heads.append(SignedTreeHead.model_validate(line))
            except ValueError:
                told = f"line {number} of {path} is no signed tree head; the others count"
                faults.append(HeadFault(size=0, code=HeadFaultCode.UNREADABLE, message=told))
        if faults and not heads:
            raise ValueError(faults[0].message)
    except (OSError, ValueError) as error:
        fail(Exit.USAGE, f"{path}: no file of signed tree heads, a JSON line each ({error})")
    return heads, faults


def _verify_bundle(
    path: Path, public_key: Path | None, witness: Path | None, keys: Path | None, *, as_json: bool
) -> None:
    try:
        report = check(
            path.read_bytes(),
            public_key=read_public_key(public_key) if public_key is not None else None,
            witness=read_witness(witness) if witness is not None else None,
            unwrap=unwrap_with(keys) if keys is not None else None,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        fail(Exit.USAGE, f"cannot be used: {error}")
    _show(report, as_json=as_json)
    raise typer.Exit(Exit.NOT_DONE if report.faults else Exit.OK)


def _show(report: Report, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "audit_id": report.audit_id,
                "signer": report.signer,
                "faults": [{"code": one.code.value, "message": one.message} for one in report.faults],
                "notes": report.notes,
            }
        )
        return
    for line in told(report):
        out.print(line, markup=False)


def _list(found: Sequence[tuple[int, AuditRecord | Refusal]], *, as_json: bool) -> None:
    """Those that cannot be read are named, and hide no other; where none can, why is the refusal."""
    records = [one for _, one in found if isinstance(one, AuditRecord)]
    unread = [(place, one) for place, one in found if isinstance(one, Refusal)]
    if unread and not records:
        raise Refused(unread[0][1])
    if as_json:
        told = [{"sequence": place, "refusal": why.model_dump(mode="json")} for place, why in unread]
        print_json({"records": [record.model_dump(mode="json") for record in records], "unreadable": told})
    else:
        _table(records)
        for place, why in unread:
            out.print(f"record {place} is not listed: {why}", markup=False)
    if unread:
        raise typer.Exit(Exit.NOT_DONE)


def _table(records: Sequence[AuditRecord]) -> None:
    table = Table("audit id", "when", "cluster", "operation", "by", "success", "from → to", box=None)
    # Whole on a narrow screen too: it is typed again.
    table.columns[0].min_width = max((len(r.audit_id) for r in records), default=0)
    for r in records:
        where = f"{r.source_node or '–'} → {r.target_node or '–'}"
        success = "yes" if r.result.success else "no"
        table.add_row(
            r.audit_id, f"{r.timestamp:%F %T}", r.cluster_id, r.operation, r.initiated_by, success, where
        )
    out.print(table)


def store_of(state_dir: Path | None) -> LoggedAuditStore:
    """Of a log that is elsewhere without a state directory too: then persons stay commitments, and there is
    no key to prove it with."""
    known = state_dir or settings.DEFAULT_STATE_DIR
    if not is_elsewhere(os.environ) and not _is_there(known / SQLITE):
        fail(
            Exit.USAGE,
            f"no audit store at {known / SQLITE}; expected the --state-dir of a worker (or QNWIS_STATE_DIR)",
        )
    with clear_errors():
        return audit_store_of(known, os.environ)


def place(state_dir: Path | None) -> str:
    """Where the records are, for people."""
    if is_elsewhere(os.environ):
        return f"the log that {PLACE_VARIABLE} names"
    return str(state_dir or settings.DEFAULT_STATE_DIR)


def _is_there(path: Path) -> bool:
    """Of what may not be looked at it is said when it is read."""
    try:
        return path.exists()
    except OSError:
        return True
