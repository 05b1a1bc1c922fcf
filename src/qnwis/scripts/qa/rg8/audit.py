"""The audit trail and the bundle of a run: whole they are proved, and whatever is done to them shows."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from qnwis.bundle_check import check as check_bundle
from qnwis.bundle_check import read_public_key
from qnwis.continuity.audit import Approval, AuditDraft, AuditResult
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.bundles import Bundles
from qnwis.providers.key_store import FileKeyStore

from .found import Found, Measured, found

NAME = "audit"
HOLDS = (
    "an audit log and a bundle are proved as they were written, and every record that is altered, removed or"
    " moved, and every byte of a bundle that is flipped, shows"
)
RECORDS = 4
FLIPS = 60
"""Bytes of the bundle that are flipped, spread over all of it."""
TAMPERINGS: Mapping[str, str] = {
    "a record altered": "UPDATE records SET record = replace(record, 'node-1', 'node-9') WHERE sequence = 2",
    "a record removed": "DELETE FROM records WHERE sequence = 2",
    "the last record removed": "DELETE FROM records WHERE sequence = 4",
    "a record moved": "UPDATE records SET sequence = 9 WHERE sequence = 2",
    "an artefact altered": "UPDATE artefacts SET content = x'00' WHERE sequence = 2",
    "an artefact removed": "DELETE FROM artefacts WHERE sequence = 2",
    "an artefact added": "INSERT INTO artefacts VALUES (2, 'more', '')",
    "a tree head removed": "DELETE FROM heads WHERE size = 2",
}

Faults = Callable[[SqliteAuditStore], Awaitable[int]]
"""How many faults the log's own check finds."""
BundleFaults = Callable[[bytes], int]


async def _log_faults(store: SqliteAuditStore) -> int:
    return len(await store.verify())


def check(faults: Faults = _log_faults, bundle_faults: BundleFaults | None = None) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_check(Path(folder), faults, bundle_faults))


async def _check(folder: Path, faults: Faults, bundle_faults: BundleFaults | None) -> Found:
    path, key = folder / "audit.sqlite", folder / "signing.pem"
    store = SqliteAuditStore(path, key)
    ids = [
        (await store.append(_draft(run), {"plan": f'{{"run": {run}}}'})).audit_id for run in range(RECORDS)
    ]
    misses = []
    if await faults(store):
        misses.append("a log that nobody touched is not proved")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    for what, statement in TAMPERINGS.items():
        path.write_bytes(whole)
        _tamper(path, statement)
        if not await faults(SqliteAuditStore(path, key)):
            misses.append(f"{what}, and the log is still proved")
    path.write_bytes(whole)

    bundles = Bundles(store, FileKeyStore(folder / "keys.json"), folder / "bundles")
    bundle = (await bundles.write(ids[1], "{}")).read_bytes()
    public_key = read_public_key(folder / "signing.pem.pub")

    def own(data: bytes) -> int:
        return len(check_bundle(data, public_key=public_key).faults)

    count = bundle_faults or own
    if count(bundle):
        misses.append("a bundle that nobody touched is not proved")
    flips = [i * len(bundle) // FLIPS for i in range(FLIPS)]
    missed = [at for at in flips if not count(_flipped(bundle, at))]
    if missed:
        misses.append(
            f"{len(missed)} of {FLIPS} flipped bytes of a bundle do not show, the first at {missed[0]}"
        )
    measured = [
        Measured(what="ways to tamper with a log", value=len(TAMPERINGS)),
        Measured(what="flipped bytes of a bundle", value=FLIPS),
    ]
    return found(NAME, HOLDS, misses, measured)


def _draft(run: int) -> AuditDraft:
    return AuditDraft(
        timestamp=datetime(2025, 1, 11, 12, 34, run, tzinfo=UTC),
        operation="failover_execute",
        cluster_id="gate",
        initiated_by="ann",
        role="continuity_operator",
        source_node="node-1",
        target_node="node-2",
        reason="the gate",
        approval=Approval(required=False),
        result=AuditResult(success=True, duration_ms=3450, actions_executed=5),
        run_id=f"run-{run}",
    )


def _tamper(path: Path, statement: str) -> None:
    """As somebody would who owns the file: its triggers hold nobody up."""
    with closing(sqlite3.connect(path)) as db, db:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        db.execute(statement)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :]
