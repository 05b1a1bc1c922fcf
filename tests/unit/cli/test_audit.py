"""`audit`: proving a bundle and a store, keeping heads elsewhere, erasing a person."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import qnwis.providers.audit_sqlite
from qnwis.cli import settings
from qnwis.providers import audit_place
from qnwis.providers.audit_sqlite import SqliteLog
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.key_store import FileKeyStore
from tests.unit.continuity.test_audit import tampered
from tests.unit.continuity.test_audit_persons import BOB, recorded

from .test_commands import call


@pytest.fixture
def state(tmp_path: Path) -> Path:
    store = SqliteAuditStore(tmp_path / "audit.sqlite", tmp_path / "audit-signing-key.pem")
    asyncio.run(recorded(store))
    return tmp_path


def test_a_bundle_is_made_and_proved_by_name_of_what_is_wrong(state: Path, tmp_path: Path) -> None:
    audit_id = json.loads(call("audit", "--state-dir", str(state), "--json").stdout)["records"][0]["audit_id"]
    bundle, keys = tmp_path / "a.bundle", tmp_path / "keys.json"
    stored = {"QNWIS_KEY_STORE": f"file:{keys}"}
    made = call("audit", "bundle", audit_id, "--state-dir", str(state), "--out", str(bundle), env=stored)
    assert made.exit_code == 0, made.output
    public = str(state / "audit-signing-key.pem.pub")

    proved = call("audit", "verify", str(bundle), "--public-key", public)
    assert proved.exit_code == 0 and f"proved: {audit_id}" in proved.output, proved.output
    opened = call("audit", "verify", str(bundle), "--public-key", public, "--keys", str(keys), "--json")
    assert json.loads(opened.stdout)["faults"] == json.loads(opened.stdout)["notes"] == []

    bundle.write_bytes(bundle.read_bytes()[:-1])
    cut = call("audit", "verify", str(bundle))
    assert cut.exit_code == 1 and "truncated: " in cut.output
    assert call("audit", "verify", str(tmp_path / "none")).exit_code == 2
    again = call("audit", "bundle", audit_id, "--state-dir", str(state), "--out", str(bundle), env=stored)
    assert again.exit_code == 2 and "cannot be written" in again.output


def test_a_record_is_shown_as_the_specification_types_it_from_the_default_state_directory(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unset = {"QNWIS_STATE_DIR": ""}
    monkeypatch.setattr(settings, "DEFAULT_STATE_DIR", tmp_path / "none")
    nowhere = call("audit", "--audit-id", "any", env=unset)
    assert nowhere.exit_code == 2 and f"no audit store at {tmp_path / 'none'}" in nowhere.output
    assert not (tmp_path / "none").exists()

    monkeypatch.setattr(settings, "DEFAULT_STATE_DIR", state)
    audit_id = json.loads(call("audit", "--json", env=unset).stdout)["records"][0]["audit_id"]
    shown = call("audit", "--audit-id", audit_id, env=unset)
    assert json.loads(shown.stdout)["audit_id"] == audit_id
    unknown = call("audit", "--audit-id", "another", env=unset)
    assert unknown.exit_code == 2 and f"no record another in {state}" in unknown.output


def test_a_log_that_is_elsewhere_is_read_without_a_state_directory(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(*_: object, **__: object) -> SqliteLog:
        return SqliteLog(state / "audit.sqlite")

    audit_id = json.loads(call("audit", "--state-dir", str(state), "--json").stdout)["records"][0]["audit_id"]
    monkeypatch.setattr(settings, "DEFAULT_STATE_DIR", tmp_path / "none")
    monkeypatch.setattr(audit_place, "log_of", elsewhere)
    typed = {"QNWIS_STATE_DIR": "", "QNWIS_AUDIT_STORE": "postgresql://audit.example/audit"}
    shown = call("audit", "--audit-id", audit_id, env=typed)
    assert json.loads(shown.stdout)["initiated_by"].startswith("person:"), "the names are not there"
    unknown = call("audit", "--audit-id", "another", env=typed)
    assert "no record another in the log that QNWIS_AUDIT_STORE names" in unknown.output
    assert not (tmp_path / "none").exists()


def test_a_log_that_was_cut_off_shows_against_a_head_that_lies_elsewhere(state: Path, tmp_path: Path) -> None:
    store = SqliteAuditStore(state / "audit.sqlite", state / "audit-signing-key.pem")
    asyncio.run(recorded(store, 2))
    witness = tmp_path / "elsewhere" / "heads.jsonl"
    kept = call("audit", "head", "--state-dir", str(state), env={"QNWIS_AUDIT_WITNESS": str(witness)})
    assert kept.exit_code == 0 and kept.output.startswith("2 records, root ")
    compare = ("audit", "verify", "--state-dir", str(state), "--witness", str(witness))
    assert "the chain is unbroken" in call(*compare).output

    with closing(sqlite3.connect(state / "audit.sqlite")) as db, db:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        for table, column in (("records", "sequence"), ("artefacts", "sequence"), ("heads", "size")):
            db.execute(f"DELETE FROM {table} WHERE {column} = 2")

    assert call(*compare[:4]).exit_code == 0, "a log alone cannot show what was cut off its end"
    cut = call(*compare)
    assert cut.exit_code == 1 and "truncated_log: " in cut.output and "now there are 1" in cut.output


def test_a_record_that_cannot_be_read_is_named_and_hides_no_other(state: Path) -> None:
    store = SqliteAuditStore(state / "audit.sqlite", state / "audit-signing-key.pem")
    asyncio.run(recorded(store, 2))
    listing = ("audit", "--state-dir", str(state))
    whole = json.loads(call(*listing, "--json").stdout)
    assert len(whole["records"]) == 2 and whole["unreadable"] == []
    tampered(state / "audit.sqlite", "UPDATE records SET record = '{}' WHERE sequence = 2")
    told, shown = call(*listing, "--json"), call(*listing)
    assert told.exit_code == shown.exit_code == 1
    (left,) = json.loads(told.stdout)["records"]
    assert left == whole["records"][1]
    (one,) = json.loads(told.stdout)["unreadable"]
    assert one["sequence"] == 2 and one["refusal"]["rule"] == "audit_record_unreadable"
    assert left["audit_id"] in shown.output
    assert "record 2 is not listed: " in shown.output and "Field required, and " in shown.output

    tampered(state / "audit.sqlite", "UPDATE records SET record = '{}'")
    none = call(*listing)
    assert none.exit_code == 3 and "audit_record_unreadable" in none.output, "as of a store without its keys"


@pytest.mark.parametrize("opens", [False, True], ids=["without the key store", "with it"])
def test_a_store_that_cannot_be_read_now_is_not_said_to_be_broken(
    state: Path, monkeypatch: pytest.MonkeyPatch, opens: bool
) -> None:
    env = {"QNWIS_KEY_STORE": f"file:{state / 'keys.json'}"} if opens else {}
    monkeypatch.setattr(qnwis.providers.audit_sqlite, "BUSY_TIMEOUT_S", 0.05)
    verify = ("audit", "verify", "--state-dir", str(state))
    with closing(sqlite3.connect(state / "audit.sqlite", isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")
        db.execute("CREATE TABLE mine (n)")
        locked = call(*verify, env=env)
    assert locked.exit_code == 4 and "database is locked" in locked.output, locked.output
    assert "nothing is proved or disproved" in locked.output
    assert call(*verify, env=env).exit_code == 0


@pytest.mark.parametrize(
    "harm", ["no database", "a part of it", "no artefacts"], ids=["not a database", "cut", "dropped"]
)
def test_a_file_that_is_not_what_was_written_is_broken_whoever_reads_it(state: Path, harm: str) -> None:
    path = state / "audit.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        if harm == "no artefacts":
            db.execute("DROP TABLE artefacts")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if harm == "no database":
        path.write_bytes(b"not a database" * 100)
    if harm == "a part of it":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    broken = call("audit", "verify", "--state-dir", str(state))
    assert broken.exit_code == 1 and "is damaged: " in broken.output, broken.output
    assert "the chain is broken: 1 faults" in broken.output


def test_a_line_of_a_witness_that_cannot_be_read_is_a_fault_and_the_others_count(
    state: Path, tmp_path: Path
) -> None:
    witness = tmp_path / "heads.jsonl"
    call("audit", "head", "--state-dir", str(state), env={"QNWIS_AUDIT_WITNESS": str(witness)})
    whole = witness.read_bytes()
    compare = ("audit", "verify", "--state-dir", str(state), "--witness", str(witness))
    witness.write_bytes(whole + whole[:60] + b"\n" + whole)
    torn = call(*compare)
    assert torn.exit_code == 1 and "unreadable_head: line 2 of " in torn.output, torn.output
    assert "1 faults" in torn.output
    tampered(state / "audit.sqlite", "UPDATE records SET record = replace(record, 'e', 'f')")
    assert call(*compare).output.count("rewritten_log: ") == 2
    witness.write_bytes(b"-----BEGIN PUBLIC KEY-----\n")
    assert call(*compare).exit_code == 2


def test_a_person_is_erased_and_who_asked_for_it_is_recorded(state: Path) -> None:
    erase = ("audit", "erase-person", BOB, "--state-dir", str(state), "--reason", "asked to be forgotten")
    assert call(*erase).exit_code == 1, "it asks once more"
    done = call(*erase, "--by", "dora", "--yes")
    assert done.exit_code == 0, done.output
    alias = done.output.split()[-1]

    listed = call("audit", "--state-dir", str(state), "--json")
    assert BOB not in listed.stdout
    newest, oldest = json.loads(listed.stdout)["records"]
    assert (newest["operation"], newest["initiated_by"]) == ("erase_person", "dora")
    assert newest["reason"] == f"{alias}: asked to be forgotten" and oldest["initiated_by"] == alias
    assert "the chain is unbroken" in call("audit", "verify", "--state-dir", str(state)).output
    assert call(*erase, "--yes").exit_code == 1


def test_a_key_store_that_others_can_read_is_refused(state: Path, tmp_path: Path) -> None:
    FileKeyStore(tmp_path / "keys.json").label_key()
    (tmp_path / "keys.json").chmod(0o644)
    env = {"QNWIS_KEY_STORE": f"file:{tmp_path / 'keys.json'}"}
    audit_id = json.loads(call("audit", "--state-dir", str(state), "--json").stdout)["records"][0]["audit_id"]
    refused = call("audit", "bundle", audit_id, "--state-dir", str(state), env=env)
    assert refused.exit_code == 2 and "chmod 600" in refused.output
