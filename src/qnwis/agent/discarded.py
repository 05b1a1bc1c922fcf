"""Before a rejoin discards what only this node has: the rows are exported, and the log is kept.

`<state_dir>/discarded/<effect>/`, for the agent's user alone:

| file | holds |
|---|---|
| `manifest.json` | what was exported, and the checksum of each other file; written last |
| `rows.jsonl` | a row a line: database, table, transaction, its commit time, primary key, row |
| `transactions.jsonl` | a transaction a line: id, subtransactions, commit time, place of the commit |
| `listing-<timeline>.txt.gz` | every record of that part of the log, by pg_waldump |
| `wal/` | the files of the log that hold it |

Rows are as the last of the discarded transactions left them; of deleted rows there is the number. What is no
row of a table (large objects, sequences, roles, other changes to the catalogue) is in the kept log alone, and
the manifest says how much of it there is.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from qnwis.continuity.discarded import (
    Changes,
    Export,
    ExportedFile,
    ExportedStretch,
    Found,
    Relation,
    Transaction,
)
from qnwis.continuity.model import canonical_json
from qnwis.continuity.orders import RejoinOrder
from qnwis.continuity.timelines import Stretch, lsn_text, only_in_mine
from qnwis.durable import sync_directory
from qnwis.logs import log

from .database import Facts
from .discarded_rows import RowFile, read_rows
from .effects import EffectError
from .files import write_durably
from .old_history import old_history
from .old_log import Segments, read_stretch
from .postgres import Postgres
from .programs import read_control

FOLDER, UNFINISHED = "discarded", ".unfinished"
CHUNK = 1 << 20


async def export_discarded(
    postgres: Postgres, order: RejoinOrder, theirs: Facts, history: str
) -> Export | None:
    """Export what this node alone has of its log; None where that holds no transaction. The database is
    down, and is down again afterwards.

    `history`: the upstream's timeline history file. An export that is complete already is taken as it is.
    Raises EffectError where not everything could be exported; nothing of it is left then, for where the disk
    was too small the agent has no room for its own records either.
    """
    folder = folder_of(postgres.config.state_dir, order.effect_id)
    if (done := read_manifest(folder)) is not None:
        return done
    try:
        await asyncio.to_thread(_clear, folder.parent)
        return await _export(postgres, order, theirs, history, folder)
    except (OSError, psycopg.Error) as error:
        raise EffectError(f"{type(error).__name__}: {error}") from error
    finally:
        await asyncio.to_thread(shutil.rmtree, _beside(folder), ignore_errors=True)


def folder_of(state_dir: Path, effect_id: str) -> Path:
    """Where the export of that rejoin is, or would be."""
    return state_dir / FOLDER / re.sub(r"[^A-Za-z0-9._-]", "_", effect_id)


def read_manifest(folder: Path) -> Export | None:
    """None where there is no complete export."""
    path = folder / "manifest.json"
    return Export.model_validate_json(path.read_text()) if path.exists() else None


async def _export(
    postgres: Postgres, order: RejoinOrder, theirs: Facts, history: str, folder: Path
) -> Export | None:
    control = await read_control(postgres)
    segments = Segments(postgres, control.segment_bytes)
    mine = segments.timeline
    stretches = only_in_mine(mine, segments.history(mine), theirs=theirs.timeline, their_history=history)
    if not stretches:
        return None
    beside = _beside(folder)
    await asyncio.to_thread(_make, beside)
    found = [
        await read_stretch(postgres, segments, one, beside / f"listing-{one.timeline}.txt.gz")
        for one in stretches
    ]
    if all(one.empty for one in found):
        return None
    log("discarded_found", transactions=sum(len(one.transactions) for one in found), timeline=mine)
    await asyncio.to_thread(_keep_log, segments, stretches, beside / "wal")
    transactions = [one for part in found for one in part.transactions]
    lines = "".join(_line(one) + "\n" for one in transactions)
    write_durably(beside / "transactions.jsonl", lines)
    last_lsn = max(one.last_lsn for one in found if one.last_lsn is not None)
    with RowFile(beside / "rows.jsonl") as rows:
        async with old_history(postgres, mine, replayed_lsn=last_lsn) as old:
            tables, elsewhere = await read_rows(old, transactions, _changes(found), rows)
    prepared = sum(one.prepared for one in found)
    if prepared:
        elsewhere = (*elsewhere, f"{prepared} transactions prepared for a commit in two phases")
    export = Export(
        effect_id=order.effect_id,
        node_id=postgres.config.node_id,
        upstream=order.upstream,
        system_identifier=theirs.system_identifier,
        at=datetime.now(UTC),
        log=tuple(_in_text(one) for one in stretches),
        transactions=len(transactions),
        rows=rows.count,
        tables=tables,
        not_as_rows=elsewhere,
        files=await asyncio.to_thread(_checksums, beside),
    )
    write_durably(beside / "manifest.json", export.model_dump_json(indent=1) + "\n")
    beside.rename(folder)
    sync_directory(folder.parent)
    log("discarded_exported", folder=str(folder), transactions=export.transactions, rows=export.rows)
    return export


def _beside(folder: Path) -> Path:
    """Where the export is until it is complete."""
    return folder.with_name(folder.name + UNFINISHED)


def _clear(exports: Path) -> None:
    """Remove what an agent that was killed left half done, whichever order that was of: one is carried out at
    a time."""
    for half in exports.glob(f"*{UNFINISHED}"):
        shutil.rmtree(half)


def _make(beside: Path) -> None:
    beside.parent.mkdir(mode=0o700, exist_ok=True)
    beside.mkdir(mode=0o700)


def _keep_log(segments: Segments, stretches: tuple[Stretch, ...], folder: Path) -> None:
    folder.mkdir(mode=0o700)
    for stretch in stretches:
        for segment in segments.holding(stretch):
            shutil.copyfile(segment, folder / segment.name)
            _seal(folder / segment.name)
        history = segments.folder / f"{stretch.timeline:08X}.history"
        if history.exists():
            shutil.copyfile(history, folder / history.name)
            _seal(folder / history.name)
    sync_directory(folder)


def _seal(path: Path) -> None:
    path.chmod(0o600)
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _changes(found: list[Found]) -> dict[Relation, Changes]:
    together: dict[Relation, Changes] = {}
    for part in found:
        for relation, changes in part.changes.items():
            together.setdefault(relation, Changes()).add(changes)
    return together


def _line(one: Transaction) -> str:
    at = None if one.committed_at is None else one.committed_at.isoformat()
    return canonical_json({"xid": one.xid, "subxids": one.subxids, "committed_at": at, "lsn": one.lsn})


def _in_text(stretch: Stretch) -> ExportedStretch:
    return ExportedStretch(
        timeline=stretch.timeline,
        from_lsn=lsn_text(stretch.from_lsn),
        to_lsn=None if stretch.to_lsn is None else lsn_text(stretch.to_lsn),
    )


def _checksums(folder: Path) -> tuple[ExportedFile, ...]:
    """Of each file there, after it is on disk and readable by the agent's user alone."""
    found = []
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        _seal(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        name = str(path.relative_to(folder))
        found.append(ExportedFile(name=name, bytes=path.stat().st_size, sha256=digest))
    sync_directory(folder)
    return tuple(found)
