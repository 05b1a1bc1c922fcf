"""Records at rest: nothing of them can be read, everything is proved without a key, and opened with it."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnwis.continuity.audit import FaultCode, chain
from qnwis.continuity.model import canonical_json
from qnwis.continuity.sealed_records import (
    PREFIX,
    NotOpened,
    SealingKey,
    open_artefacts,
    open_record,
    read_sealed,
    seal_record,
)
from qnwis.providers.audit_place import audit_store_of
from qnwis.providers.audit_store import LoggedAuditStore, SqliteAuditStore
from qnwis.providers.bundles import Bundles
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.key_store import FileKeyStore, KeyStoreError, Wrapped
from tests.unit.cli.test_commands import call

from .test_audit import ARTEFACTS, KEY, check, draft, tampered

SECRET = "smoke in hall seven"
TOLD = draft().model_copy(update={"reason": SECRET})
SEALING = SealingKey(b"d" * 32, "k1", b"wrapped", b"s" * 32)


@pytest.fixture
def keys(tmp_path: Path) -> FileKeyStore:
    return FileKeyStore(tmp_path / "elsewhere" / "keys.json")


def store_in(folder: Path, keys: FileKeyStore | None) -> SqliteAuditStore:
    return SqliteAuditStore(folder / "audit.sqlite", folder / "signing.pem", keys=keys)


async def filled(store: LoggedAuditStore, *runs: int) -> None:
    for run in runs:
        artefacts = {**ARTEFACTS, "report": json.dumps({"said": SECRET})}
        await store.append(TOLD.model_copy(update={"run_id": f"run-{run}"}), artefacts)


def codes(found: object) -> set[FaultCode]:
    return {fault.code for fault in found}  # type: ignore[attr-defined]


# ---- the form


@settings(max_examples=40)
@given(
    st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=30), max_size=4), st.text(max_size=30)
)
def test_what_was_sealed_opens_to_what_it_was(artefacts: dict[str, str], reason: str) -> None:
    record = chain(None, draft().model_copy(update={"reason": reason}), artefacts, KEY.sign)
    text, texts = seal_record(record, artefacts, SEALING, KEY.sign)
    sealed = read_sealed(text)
    assert sealed.is_signed(check)
    assert open_record(sealed, SEALING.data_key) == canonical_json(record)
    assert open_artefacts(sealed, SEALING.data_key, texts) == artefacts


def test_a_sealed_record_cannot_be_opened_by_another_key_or_in_another_place() -> None:
    record = chain(None, TOLD, ARTEFACTS, KEY.sign)
    text, texts = seal_record(record, ARTEFACTS, SEALING, KEY.sign)
    sealed = read_sealed(text)
    with pytest.raises(NotOpened):
        open_record(sealed, b"e" * 32)
    with pytest.raises(NotOpened):
        open_record(sealed.model_copy(update={"audit_id": "audit-cont-1"}), SEALING.data_key)
    swapped = {**texts, "plan": texts["outcomes"], "outcomes": texts["plan"]}
    with pytest.raises(NotOpened, match=r"^(plan|outcomes) was altered"):
        open_artefacts(sealed, SEALING.data_key, swapped)
    with pytest.raises(NotOpened, match=r"\['plan'\] are missing"):
        open_artefacts(sealed, SEALING.data_key, {k: v for k, v in texts.items() if k != "plan"})


def test_each_record_has_a_key_of_its_own() -> None:
    record = chain(None, TOLD, {}, KEY.sign)
    other = SealingKey(SEALING.data_key, "k1", b"wrapped", b"t" * 32)
    one, two = (read_sealed(seal_record(record, {}, key, KEY.sign)[0]) for key in (SEALING, other))
    assert one.content != two.content and one.leaf == two.leaf
    with pytest.raises(NotOpened):
        open_record(one.model_copy(update={"salt": two.salt}), SEALING.data_key)


# ---- the store


async def test_nothing_of_a_record_can_be_read_on_disk_and_all_of_it_comes_back(
    tmp_path: Path, keys: FileKeyStore
) -> None:
    store = store_in(tmp_path, keys)
    await filled(store, 1, 2)
    with closing(sqlite3.connect(tmp_path / "audit.sqlite")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw = (tmp_path / "audit.sqlite").read_bytes()
    for told in (SECRET, "node-1", "prod-cluster", "continuity_operator", '"digest"'):
        assert told.encode() not in raw and base64.b64encode(told.encode())[:-4] not in raw, told

    again = store_in(tmp_path, keys)
    newest, oldest = await again.latest()
    assert (newest.sequence, oldest.sequence, newest.reason) == (2, 1, SECRET)
    assert newest.initiated_by == TOLD.initiated_by, "persons are named as in a log that is not sealed"
    assert (await again.artefacts(oldest.audit_id))["report"] == json.dumps({"said": SECRET})
    assert await again.append(TOLD.model_copy(update={"run_id": "run-1"}), {}) == oldest
    assert await again.verify() == ()


async def test_who_has_another_signing_key_seals_nothing_into_the_log(
    tmp_path: Path, keys: FileKeyStore
) -> None:
    await filled(store_in(tmp_path, keys), 1)
    await filled(store_in(tmp_path / "elsewhere", keys), 1)
    other = SqliteAuditStore(tmp_path / "audit.sqlite", tmp_path / "elsewhere" / "signing.pem", keys=keys)
    with pytest.raises(Refused, match="audit_key_wrong"):
        await filled(other, 2)
    assert await store_in(tmp_path, keys).verify() == ()


async def test_a_log_that_began_in_clear_goes_on_sealed_and_back(tmp_path: Path, keys: FileKeyStore) -> None:
    clear, sealed = store_in(tmp_path, None), store_in(tmp_path, keys)
    for run, store in enumerate((clear, sealed, sealed, clear)):
        await filled(store, run)
    head = await clear.head()
    assert head is not None and head.head.size == 4
    for store, unopened in ((clear, 2), (sealed, 0)):
        assert await store.verify() == () == await store.compare([head])
        assert await store.unopened() == unopened
    assert [record.run_id for record in await sealed.latest()] == ["run-3", "run-2", "run-1", "run-0"]
    with pytest.raises(Refused, match=r"no key store is named.*audit_key_lost"):
        await clear.by_run("run-1")


async def test_records_are_read_after_the_key_was_rotated_and_a_lost_key_is_named(
    tmp_path: Path, keys: FileKeyStore
) -> None:
    await filled(store_in(tmp_path, keys), 1)
    old = keys.keys()[0]
    new = keys.rotate(datetime.now(UTC))
    await filled(store_in(tmp_path, keys), 2)
    assert [one.reason for one in await store_in(tmp_path, keys).latest()] == [SECRET, SECRET]

    keys._write((new,))  # what was forgotten to be kept
    left = store_in(tmp_path, keys)
    assert (await left.by_run("run-2"))[0].reason == SECRET
    with pytest.raises(Refused, match=f"has no key {old.id}") as refused:
        await left.by_run("run-1")
    assert refused.value.refusal.values["key_id"] == old.id
    (fault,) = await left.verify()
    assert (fault.sequence, fault.code) == (1, FaultCode.LOST_KEY) and old.id in fault.message


async def test_every_change_of_what_is_sealed_shows_without_the_key(
    tmp_path: Path, keys: FileKeyStore
) -> None:
    await filled(store_in(tmp_path, keys), 10, 77)
    path, reader = tmp_path / "audit.sqlite", store_in(tmp_path, None)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        ((text,),) = db.execute("SELECT record FROM records WHERE sequence = 2").fetchall()
        ((content,),) = db.execute(
            "SELECT content FROM artefacts WHERE sequence = 2 AND name = 'report'"
        ).fetchall()
    assert text.startswith(PREFIX) and await reader.verify() == ()
    pristine = path.read_bytes()
    for column, value, statement in (
        ("record", text, "UPDATE records SET record = ? WHERE sequence = 2"),
        ("content", content, "UPDATE artefacts SET content = ? WHERE sequence = 2 AND name = 'report'"),
    ):
        for place in range(0, len(value), 61):
            changed = value[:place] + ("B" if value[place] == "A" else "A") + value[place + 1 :]
            path.write_bytes(pristine)
            tampered(path, statement, changed)
            assert await reader.verify(), f"{column}, character {place}"


async def test_a_seal_that_was_signed_anew_still_does_not_fit_its_leaf(
    tmp_path: Path, keys: FileKeyStore
) -> None:
    """Whoever has the signing key and the key store can write another record, and not for an old head."""
    store = store_in(tmp_path, keys)
    await filled(store, 1)
    head = await store.head()
    assert head is not None
    with closing(sqlite3.connect(tmp_path / "audit.sqlite")) as db:
        ((text,),) = db.execute("SELECT record FROM records").fetchall()
    sealed = read_sealed(text)
    key = await keys.unwrap(Wrapped(sealed.key_id, base64.b64decode(sealed.wrapped)))
    sign = store.key.signer(may_create=False)
    forged = chain(None, draft(1).model_copy(update={"reason": "other"}), {}, sign)
    sealing = SealingKey(key, sealed.key_id, base64.b64decode(sealed.wrapped), b"s" * 32)
    written, _ = seal_record(forged, {}, sealing, sign)
    tampered(tmp_path / "audit.sqlite", "DELETE FROM artefacts")
    tampered(tmp_path / "audit.sqlite", "UPDATE records SET record = ?", written)
    assert codes(await store.verify()) == {FaultCode.ALTERED_HEAD}
    assert await store.compare([head]) != ()

    mixed = read_sealed(written).model_copy(update={"leaf": sealed.leaf, "signature": ""})
    signature = base64.b64encode(sign(mixed.message())).decode()
    tampered(
        tmp_path / "audit.sqlite",
        "UPDATE records SET record = ?",
        mixed.model_copy(update={"signature": signature}).text(),
    )
    assert await store_in(tmp_path, None).verify() == (), "the content is what only the key shows"
    assert FaultCode.ALTERED_SEAL in codes(await store.verify())


async def test_a_bundle_is_made_of_a_sealed_record_and_proved(tmp_path: Path, keys: FileKeyStore) -> None:
    store = store_in(tmp_path, keys)
    await filled(store, 1)
    (record,) = await store.latest()
    bundle = await Bundles(store, keys, tmp_path).write(record.audit_id)
    public = str(tmp_path / "signing.pem.pub")
    keys_file = str(tmp_path / "elsewhere" / "keys.json")
    proved = await asyncio.to_thread(
        call, "audit", "verify", str(bundle), "--public-key", public, "--keys", keys_file, "--json"
    )
    assert json.loads(proved.stdout)["faults"] == json.loads(proved.stdout)["notes"] == []


class Silent(FileKeyStore):
    async def wrap(self, key: bytes) -> Wrapped:
        raise KeyStoreError("the key store does not answer")


async def test_nothing_is_written_in_clear_where_the_key_store_fails(tmp_path: Path) -> None:
    store = SqliteAuditStore(tmp_path / "a.sqlite", tmp_path / "k.pem", keys=Silent(tmp_path / "keys.json"))
    with pytest.raises(Unreachable, match="does not answer"):
        await store.append(TOLD, {})
    assert not (tmp_path / "a.sqlite").exists()


def test_the_command_proves_a_sealed_log_and_says_what_it_did_not_open(tmp_path: Path) -> None:
    environment = {"QNWIS_KEY_STORE": f"file:{tmp_path / 'keys.json'}"}
    asyncio.run(filled(audit_store_of(tmp_path, environment), 1))
    verify = ("audit", "verify", "--state-dir", str(tmp_path), "--json")
    shut = call(*verify)
    assert shut.exit_code == 0, shut.output
    assert "1 records are sealed" in json.loads(shut.stdout)["notes"][0]
    opened = call(*verify, env=environment)
    assert json.loads(opened.stdout) == {"faults": [], "notes": []}
    listed = call("audit", "--state-dir", str(tmp_path), "--json")
    assert listed.exit_code == 3 and "audit_key_lost" in listed.output
    assert SECRET in call("audit", "--state-dir", str(tmp_path), "--json", env=environment).output
