"""The audit trail: whatever is changed, removed or added shows, in the domain and in the file on disk."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.audit import (
    NO_RECORD,
    Approval,
    AuditDraft,
    AuditRecord,
    AuditResult,
    FaultCode,
    chain,
    content_hash,
    draft_of,
    sha256_text,
    verify_artefacts,
    verify_chain,
)
from qnwis.continuity.audit_layers import layers_of
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.model import canonical_json, sha256_digest
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import FailoverRequest, RunArtefacts, RunKind, RunOutcome, RunResult
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.errors import Refused, Unreachable

KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
AT = datetime(2025, 1, 11, 12, 34, 56, tzinfo=UTC)
ARTEFACTS = {"plan": '{"digest":"…"}', "evidence_before": "{}", "outcomes": "[]"}


def check(signature: bytes, message: bytes) -> bool:
    try:
        KEY.public_key().verify(signature, message)
    except InvalidSignature:
        return False
    return True


def draft(run: int = 1, *, at: datetime = AT, operation: str = "failover_execute") -> AuditDraft:
    return AuditDraft(
        timestamp=at,
        operation=operation,
        cluster_id="prod-cluster",
        initiated_by="john.doe@example.com",
        role="continuity_operator",
        source_node="node-1",
        target_node="node-3",
        reason="Primary node health degradation",
        approval=Approval(
            required=True, approved_by="jane.admin@example.com", approved_at=AT - timedelta(seconds=71)
        ),
        result=AuditResult(success=True, duration_ms=3450, actions_executed=5),
        run_id=f"run-{run}",
    )


def trail(length: int) -> list[AuditRecord]:
    records: list[AuditRecord] = []
    for run in range(length):
        taken = {r.audit_id for r in records}
        records.append(chain(records[-1] if records else None, draft(run), ARTEFACTS, KEY.sign, taken=taken))
    return records


def codes(records: list[AuditRecord]) -> list[tuple[int, FaultCode]]:
    return [(fault.sequence, fault.code) for fault in verify_chain(records, check)]


# ---- the chain


def test_a_record_has_the_specifications_form() -> None:
    [record] = trail(1)
    told = json.loads(record.model_dump_json())
    assert {name: told[name] for name in list(told) if name not in OURS} == {
        "audit_id": "audit-cont-20250111-123456",
        "timestamp": "2025-01-11T12:34:56Z",
        "operation": "failover_execute",
        "cluster_id": "prod-cluster",
        "initiated_by": "john.doe@example.com",
        "role": "continuity_operator",
        "source_node": "node-1",
        "target_node": "node-3",
        "reason": "Primary node health degradation",
        "approval": {
            "required": True,
            "approved_by": "jane.admin@example.com",
            "approved_at": "2025-01-11T12:33:45Z",
        },
        "result": {"success": True, "duration_ms": 3450, "actions_executed": 5},
        "manifest_hash": sha256_digest({name: sha256_text(text) for name, text in ARTEFACTS.items()}),
        "signature": record.signature,
    }
    assert told.keys() >= OURS


OURS = {"run_id", "sequence", "previous_hash", "record_hash", "manifest"}


def test_the_first_record_and_its_followers() -> None:
    records = trail(3)
    assert [r.sequence for r in records] == [1, 2, 3]
    assert [r.previous_hash for r in records] == [NO_RECORD, records[0].record_hash, records[1].record_hash]
    assert [r.audit_id for r in records] == [
        "audit-cont-20250111-123456",
        "audit-cont-20250111-123456-2",
        "audit-cont-20250111-123456-3",
    ]
    assert verify_chain(records, check) == []
    assert verify_chain([], check) == []


def test_times_are_written_in_utc() -> None:
    record = chain(None, draft(at=AT.astimezone(timezone(timedelta(hours=3)))), {}, KEY.sign)
    assert record.audit_id == "audit-cont-20250111-123456"
    assert '"timestamp":"2025-01-11T12:34:56Z"' in canonical_json(record)
    with pytest.raises(ValueError, match="timezone"):
        draft(at=AT.replace(tzinfo=None))


def test_a_record_survives_the_way_through_json() -> None:
    records = [AuditRecord.model_validate_json(canonical_json(r)) for r in trail(3)]
    assert verify_chain(records, check) == []


def test_a_removed_record_is_named_by_where_it_is_missing() -> None:
    records = trail(4)
    assert codes([records[0], *records[2:]]) == [(3, FaultCode.MISSING_SEQUENCE)]
    assert codes(records[1:]) == [(2, FaultCode.MISSING_SEQUENCE)]
    assert codes([records[0], records[2], records[1], records[3]])[0] == (3, FaultCode.MISSING_SEQUENCE)


def test_a_record_rewritten_with_the_right_key_breaks_the_link_after_it() -> None:
    records = trail(3)
    forged = chain(records[0], draft(99), ARTEFACTS, KEY.sign)
    assert codes([records[0], forged, records[2]]) == [(3, FaultCode.BROKEN_LINK)]


def test_a_record_rewritten_with_another_key_is_not_signed() -> None:
    records = trail(1)
    forged = chain(records[0], draft(99), ARTEFACTS, Ed25519PrivateKey.generate().sign)
    assert codes([records[0], forged]) == [(2, FaultCode.BAD_SIGNATURE)]


def run_artefacts(*, dry_run: bool = False, automatic: bool = False) -> RunArtefacts:
    return RunArtefacts(
        request=FailoverRequest(
            cluster_id="c", initiated_by="ann", reason="drill", dry_run=dry_run, automatic=automatic
        ),
        evidence_before=ClusterEvidence(cluster_id="c", nodes=()),
        evidence_after=None,
        result=RunResult(
            kind=RunKind.PRIMARY_FAILURE,
            outcome=RunOutcome.ROLLED_BACK,
            reason="promotion failed",
            cluster_id="c",
            run_id="run-7",
            old_primary="node-1",
            outcomes=(
                Outcome(action_id="1", status=OutcomeStatus.SUCCEEDED),
                Outcome(action_id="2", status=OutcomeStatus.FAILED),
            ),
            started_at=AT,
            ended_at=AT + timedelta(milliseconds=1234.4),
        ),
    )


CHANGES: dict[str, object] = {
    "audit_id": "audit-cont-20250111-123457",
    "timestamp": AT + timedelta(seconds=1),
    "operation": "other",
    "cluster_id": "other",
    "initiated_by": "other",
    "role": "other",
    "source_node": None,
    "target_node": None,
    "reason": "other",
    "approval": Approval(required=False),
    "result": AuditResult(success=False, duration_ms=3450, actions_executed=5),
    "run_id": "other",
    "plan_digest": "other",
    "refusal": Refusal(rule="other", message="other", remedy="other"),
    "approvals": (),
    "layers": layers_of(run_artefacts()),
    "sequence": 9,
    "previous_hash": sha256_text("other"),
    "manifest": {"plan": sha256_text("other")},
    "manifest_hash": sha256_text("other"),
    "record_hash": sha256_text("other"),
    "signature": "b3RoZXI=",
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_is_covered(name: str) -> None:
    records = trail(3)
    altered = records[1].model_copy(update={name: CHANGES[name]})
    found = [sequence for sequence, _ in codes([records[0], altered, records[2]])]
    assert altered.sequence in found


def test_no_field_was_forgotten_above() -> None:
    assert CHANGES.keys() == AuditRecord.model_fields.keys()


def test_an_alteration_with_its_hash_made_good_still_lacks_the_signature() -> None:
    [record] = trail(1)
    altered = record.model_copy(update={"reason": "other"})
    altered = altered.model_copy(update={"record_hash": content_hash(altered)})
    assert codes([altered]) == [(1, FaultCode.BAD_SIGNATURE)]


def test_only_one_spelling_of_a_signature_counts() -> None:
    """The last character of its Base64 holds bits that decoding ignores."""
    [record] = trail(1)
    assert record.signature.endswith("==")
    last = record.signature[-3]
    other = record.signature[:-3] + chr(ord(last) + 1) + "=="
    assert codes([record.model_copy(update={"signature": other})]) == [(1, FaultCode.BAD_SIGNATURE)]


def test_artefacts_altered_missing_or_added() -> None:
    [record] = trail(1)
    assert verify_artefacts(record, ARTEFACTS) == []
    for wrong, named in (
        (ARTEFACTS | {"plan": "{}"}, "'plan'"),
        ({k: v for k, v in ARTEFACTS.items() if k != "outcomes"}, "'outcomes' is missing"),
        (ARTEFACTS | {"extra": ""}, "none of this name"),
    ):
        [fault] = verify_artefacts(record, wrong)
        assert (fault.sequence, fault.code) == (1, FaultCode.ALTERED_ARTEFACT)
        assert named in fault.message


@given(st.integers(2, 6), st.data())
def test_any_reordering_loss_or_repetition_shows(length: int, data: st.DataObject) -> None:
    """All but the loss of the newest records, which a chain alone cannot show."""
    records = trail(length)
    picked = data.draw(st.lists(st.integers(0, length - 1), max_size=length + 1))
    undamaged = picked == list(range(len(picked)))
    assert bool(codes([records[i] for i in picked])) is not undamaged


# ---- a run's record


def test_the_record_of_a_run() -> None:
    made = draft_of(run_artefacts())
    assert (made.operation, made.run_id, made.timestamp) == (
        "failover_execute",
        "run-7",
        AT + timedelta(milliseconds=1234.4),
    )
    assert made.result == AuditResult(success=False, duration_ms=1234, actions_executed=1)
    assert (made.source_node, made.target_node, made.role) == ("node-1", None, "unauthenticated")
    assert draft_of(run_artefacts(automatic=True)).role == "service"
    assert draft_of(run_artefacts(dry_run=True)).operation == "failover_dry_run"


# ---- the store


@pytest.fixture
def store(tmp_path: Path) -> SqliteAuditStore:
    return SqliteAuditStore(tmp_path / "audit.sqlite", tmp_path / "keys" / "signing.pem")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_append_and_read_back(store: SqliteAuditStore) -> None:
    first = await store.append(draft(1), ARTEFACTS)
    second = await store.append(draft(2), {})
    assert (first.sequence, second.sequence) == (1, 2)
    assert second.previous_hash == first.record_hash
    assert second.audit_id == f"{first.audit_id}-2"
    assert await store.get(first.audit_id) == first
    assert await store.by_run("run-2") == (second,)
    assert await store.latest() == (second, first)
    assert await store.latest(1) == (second,)
    assert await store.artefacts(first.audit_id) == ARTEFACTS
    assert await store.artefacts(second.audit_id) == {}
    assert await store.verify() == ()


async def test_an_empty_store_reads_as_empty(store: SqliteAuditStore, tmp_path: Path) -> None:
    assert await store.get("audit-cont-1") is None
    assert await store.latest() == ()
    assert await store.artefacts("audit-cont-1") == {}
    assert await store.verify() == ()
    assert files(tmp_path) == []


async def test_a_repeated_append_answers_the_first_record(store: SqliteAuditStore) -> None:
    first = await store.append(draft(1), ARTEFACTS)
    again = await store.append(draft(1, at=AT + timedelta(hours=1)), {"other": "x"})
    assert again == first
    assert await store.artefacts(first.audit_id) == ARTEFACTS
    other = await store.append(draft(1, operation="failback"), {})
    assert other.sequence == 2


async def test_the_key_is_private_and_verifying_needs_only_the_public_one(
    store: SqliteAuditStore, tmp_path: Path
) -> None:
    await store.append(draft(1), ARTEFACTS)
    key = tmp_path / "keys" / "signing.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert files(key.parent) == ["signing.pem", "signing.pem.pub"]
    key.unlink()
    assert await store.verify() == ()
    with pytest.raises(Refused, match=r"signing key .* is missing"):
        await store.append(draft(2), {})
    assert len(await store.latest()) == 1


async def test_a_chain_is_not_continued_with_another_key(store: SqliteAuditStore, tmp_path: Path) -> None:
    await store.append(draft(1), ARTEFACTS)
    shutil.rmtree(tmp_path / "keys")
    with pytest.raises(Refused, match="a new key could not continue this chain"):
        await store.append(draft(2), {})
    with pytest.raises(Refused, match=r"public key .* is missing"):
        await store.verify()
    other = SqliteAuditStore(tmp_path / "other.sqlite", tmp_path / "other.pem")
    await other.append(draft(1), {})
    (tmp_path / "keys").mkdir()
    shutil.copy(tmp_path / "other.pem.pub", tmp_path / "keys" / "signing.pem.pub")
    assert {f.code for f in await store.verify()} == {FaultCode.BAD_SIGNATURE, FaultCode.ALTERED_HEAD}


async def test_a_machine_with_a_key_of_its_own_does_not_write_into_the_others_log(
    store: SqliteAuditStore, tmp_path: Path
) -> None:
    await store.append(draft(1), ARTEFACTS)
    second = SqliteAuditStore(tmp_path / "audit.sqlite", tmp_path / "second" / "signing.pem")
    elsewhere = SqliteAuditStore(tmp_path / "elsewhere.sqlite", tmp_path / "second" / "signing.pem")
    await elsewhere.append(draft(1), {})
    with pytest.raises(Refused, match=r"is not signed by .*second.*audit_key_wrong"):
        await second.append(draft(2), {})
    assert len(await store.latest()) == 1 and await store.verify() == ()


async def test_a_swapped_private_key_is_refused(store: SqliteAuditStore, tmp_path: Path) -> None:
    await store.append(draft(1), {})
    other = SqliteAuditStore(tmp_path / "other.sqlite", tmp_path / "other.pem")
    await other.append(draft(1), {})
    shutil.copy(tmp_path / "other.pem", tmp_path / "keys" / "signing.pem")
    with pytest.raises(Refused, match="does not belong to"):
        await store.append(draft(2), {})


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE records SET record = '{}'",
        "DELETE FROM records",
        "UPDATE artefacts SET content = ''",
        "DELETE FROM artefacts",
        "INSERT OR REPLACE INTO records SELECT * FROM records",
        "INSERT INTO records SELECT sequence + 5, 'a', 'b', 'c', record FROM records",
        "INSERT OR REPLACE INTO artefacts SELECT sequence, name, 'x' FROM artefacts",
        "UPDATE heads SET head = ''",
        "DELETE FROM heads",
        "INSERT OR REPLACE INTO heads SELECT * FROM heads",
    ],
)
async def test_the_database_itself_refuses_all_but_appending(
    store: SqliteAuditStore, tmp_path: Path, statement: str
) -> None:
    await store.append(draft(1), ARTEFACTS)
    refused = pytest.raises(sqlite3.IntegrityError, match=r"audit (records|artefacts|heads) are")
    with closing(sqlite3.connect(tmp_path / "audit.sqlite")) as db, refused:
        db.execute(statement)
    assert await store.verify() == ()


async def test_the_loss_of_the_whole_file_shows(store: SqliteAuditStore, tmp_path: Path) -> None:
    await store.append(draft(1), ARTEFACTS)
    for name in files(tmp_path):
        if name.startswith("audit.sqlite"):
            (tmp_path / name).unlink()
    assert [f.code for f in await store.verify()] == [FaultCode.MISSING_SEQUENCE]


async def test_a_log_that_its_first_writer_has_only_begun_reads_as_empty_and_an_emptied_one_shows(
    store: SqliteAuditStore, tmp_path: Path
) -> None:
    (tmp_path / "audit.sqlite").touch()
    assert await store.latest() == () == await store.verify()
    await store.append(draft(1), ARTEFACTS)
    with closing(sqlite3.connect(tmp_path / "audit.sqlite")) as db, db:
        for table in ("records", "artefacts", "heads"):
            db.execute(f"DROP TABLE {table}")
    assert [f.code for f in await store.verify()] == [FaultCode.MISSING_SEQUENCE]


async def test_a_file_that_is_no_database(store: SqliteAuditStore, tmp_path: Path) -> None:
    await store.append(draft(1), ARTEFACTS)
    (tmp_path / "audit.sqlite-wal").unlink(missing_ok=True)
    (tmp_path / "audit.sqlite").write_bytes(b"not a database" * 100)
    assert [f.code for f in await store.verify()] == [FaultCode.UNREADABLE]
    with pytest.raises(Unreachable, match=r"audit store .*audit\.sqlite"):
        await store.latest()


def tampered(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        db.execute(statement, values)


async def test_a_flipped_byte_in_any_stored_column_is_found(store: SqliteAuditStore, tmp_path: Path) -> None:
    for run in (10, 77):  # so far apart that no flip makes one the other
        await store.append(draft(run), ARTEFACTS)
    path = tmp_path / "audit.sqlite"
    with closing(sqlite3.connect(path)) as db:
        columns = [
            (table, column, rowid, value)
            for table, key in (("records", "sequence"), ("artefacts", "sequence"), ("heads", "size"))
            for (_, column, *_) in db.execute(f"PRAGMA table_info({table})").fetchall()
            for rowid, value in db.execute(
                f"SELECT rowid, CAST({column} AS BLOB) FROM {table} WHERE {key} = 2"
            ).fetchall()
        ]
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert {(table, column) for table, column, *_ in columns} == {
        *(("records", c) for c in ("sequence", "audit_id", "run_id", "operation", "record")),
        *(("artefacts", c) for c in ("sequence", "name", "content")),
        *(("heads", c) for c in ("size", "peaks", "head")),
    }
    pristine = path.read_bytes()
    for table, column, rowid, value in columns:
        # Every byte of the short columns, and one in 29 of the long ones.
        for place in range(0, len(value), {"record": 29, "head": 29, "peaks": 7}.get(column, 1)):
            for bit in (0x01, 0x20, 0x80):
                flipped = value[:place] + bytes([value[place] ^ bit]) + value[place + 1 :]
                path.write_bytes(pristine)
                kind = {"sequence": "INTEGER", "size": "INTEGER", "peaks": "BLOB"}.get(column, "TEXT")
                update = f"UPDATE {table} SET {column} = CAST(? AS {kind}) WHERE rowid = ?"
                tampered(path, update, flipped, rowid)
                assert await store.verify(), f"{table}.{column}, byte {place} ^ {bit:#x}"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "DELETE FROM records WHERE sequence = 2",
            {FaultCode.MISSING_SEQUENCE, FaultCode.ALTERED_ARTEFACT, FaultCode.ALTERED_HEAD},
        ),
        ("DELETE FROM heads WHERE size = 2", {FaultCode.ALTERED_HEAD}),
        ("DELETE FROM heads WHERE size = 3", {FaultCode.ALTERED_HEAD}),
        ("DELETE FROM artefacts WHERE sequence = 2", {FaultCode.ALTERED_ARTEFACT}),
        ("INSERT INTO artefacts VALUES (2, 'more', '')", {FaultCode.ALTERED_ARTEFACT}),
        ("UPDATE artefacts SET content = x'00' WHERE name = 'plan'", {FaultCode.ALTERED_ARTEFACT}),
        (
            "UPDATE records SET record = x'00' WHERE sequence = 3",
            {FaultCode.UNREADABLE, FaultCode.ALTERED_ARTEFACT, FaultCode.ALTERED_HEAD},
        ),
        (
            "UPDATE records SET record = ' ' || record WHERE sequence = 2",
            {FaultCode.ALTERED_RECORD, FaultCode.ALTERED_HEAD},
        ),
    ],
)
async def test_what_was_done_to_the_file_is_named(
    store: SqliteAuditStore, tmp_path: Path, statement: str, expected: set[FaultCode]
) -> None:
    for run in range(3):
        await store.append(draft(run), ARTEFACTS)
    tampered(tmp_path / "audit.sqlite", statement)
    assert {fault.code for fault in await store.verify()} == expected


async def test_reading_an_altered_record_says_what_to_do(store: SqliteAuditStore, tmp_path: Path) -> None:
    record = await store.append(draft(1), {})
    tampered(tmp_path / "audit.sqlite", "UPDATE records SET record = '{}'")
    with pytest.raises(Refused, match="audit verify"):
        await store.get(record.audit_id)


APPENDER = """
import asyncio, sys
from pathlib import Path
from qnwis.continuity.audit import AuditDraft
from qnwis.providers.audit_store import SqliteAuditStore

async def main(folder, template, who):
    store = SqliteAuditStore(folder / "audit.sqlite", folder / "signing.pem")
    draft = AuditDraft.model_validate_json(template)
    sys.stdin.read(1)  # all processes begin at once
    for n in range(10):
        own = draft.model_copy(update={"run_id": f"{who}-{n}"})
        shared = draft.model_copy(update={"run_id": f"shared-{n}"})
        await asyncio.gather(store.append(own, {"plan": who}), store.append(shared, {"plan": "shared"}))

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
"""


def test_processes_that_append_at_once_make_one_chain(tmp_path: Path) -> None:
    template = canonical_json(draft())
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(tmp_path), template, who],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        for who in ("first", "second", "third")
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    store = SqliteAuditStore(tmp_path / "audit.sqlite", tmp_path / "signing.pem")
    records = asyncio.run(store.latest(1000))
    assert len(records) == 3 * 10 + 10
    assert asyncio.run(store.verify()) == ()
