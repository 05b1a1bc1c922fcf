"""The audit trail in a real PostgreSQL and in S3 under object lock (moto): the same store as in SQLite."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from psycopg.conninfo import conninfo_to_dict
from typer.testing import CliRunner

from qnwis.agent.files import Owner, as_user
from qnwis.cli.qnwis_continuity import app
from qnwis.continuity.audit import FaultCode
from qnwis.providers.audit_keys import SigningKey
from qnwis.providers.audit_place import audit_store_of, log_of
from qnwis.providers.audit_postgres import PostgresLog
from qnwis.providers.audit_s3 import S3Log, S3Place, S3View
from qnwis.providers.audit_sql import SqlLog
from qnwis.providers.audit_store import LoggedAuditStore
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.persons import Persons
from qnwis.sql import audit_schema
from tests.looking import WITHIN_S
from tests.unit.continuity.test_audit import ARTEFACTS, draft

from .pg import installed_postgres, os_user

DEBIANS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
PROGRAMS = DEBIANS[-1] if DEBIANS else installed_postgres()
"""The distribution's newest PostgreSQL where there is one, else the wheel's."""
WRITER = "audit-writer"
BUCKET = "audit-trail"


class Postgres:
    """A database with the audit schema: an owner, and the role that workers use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def url(self, user: str = WRITER) -> str:
        return f"postgresql://{user}@/postgres?host={self.folder}"

    def connect(self, user: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url(user), autocommit=True)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    root = Path(tempfile.mkdtemp(prefix="qnwis-audit-", dir="/var/tmp"))
    owner = Owner.named(os_user())
    if owner is not None:
        os.chown(root, owner.uid, owner.gid)
    programs = PROGRAMS
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, root)
        reachable: dict[str, Any] = {"cwd": root, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}}
        data = root / "data"
        command = [programs / "initdb", "-D", data, "-U", "owner", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, **reachable, **as_user(owner))
        control = [programs / "pg_ctl", "-D", data, "-w", "-t", str(WITHIN_S)]
        options = f"-c listen_addresses= -c unix_socket_directories={root} -c fsync=off"
        start = [*control, "-l", root / "log", "-o", options, "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, **reachable, **as_user(owner))
        stop = [*control, "-m", "immediate", "stop"]
        stack.callback(subprocess.run, stop, check=True, capture_output=True, **reachable, **as_user(owner))
        yield Postgres(root)


@pytest.fixture
def postgres(server: Postgres) -> Iterator[Postgres]:
    with server.connect("owner") as db:
        db.execute(f'CREATE ROLE "{WRITER}" LOGIN')
        printed = CliRunner().invoke(app, ["audit", "schema", "--writer", WRITER])
        assert printed.stdout == audit_schema(WRITER)
        db.execute(printed.stdout)
    yield server
    with server.connect("owner") as db:
        db.execute("DROP SCHEMA qnwis_audit CASCADE")
        db.execute(f'DROP ROLE "{WRITER}"')


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
        yield client


@pytest.fixture(params=["postgres", "s3"])
def place(request: pytest.FixtureRequest) -> str:
    if request.param == "postgres":
        database: Postgres = request.getfixturevalue("postgres")
        return database.url()
    request.getfixturevalue("s3")
    return f"s3://{BUCKET}/continuity"


def store_at(place: str, state: Path, *, keys: Path | None = None) -> LoggedAuditStore:
    environment = {"QNWIS_AUDIT_STORE": place, **({"QNWIS_KEY_STORE": f"file:{keys}"} if keys else {})}
    return audit_store_of(state, environment)


async def test_records_are_appended_read_back_and_proved_wherever_they_are(
    place: str, tmp_path: Path
) -> None:
    store = store_at(place, tmp_path)
    assert await store.latest() == () == await store.verify()
    assert await store.get("audit-cont-1") is None and await store.head() is None
    first = await store.append(draft(1), ARTEFACTS)
    second = await store.append(draft(2), {})
    assert (second.sequence, second.previous_hash) == (2, first.record_hash)
    assert second.audit_id == f"{first.audit_id}-2" and first.initiated_by == draft().initiated_by
    again = store_at(place, tmp_path)
    assert await again.append(draft(1), {"other": "x"}) == first, "the first record stands"
    assert await again.get(first.audit_id) == first
    assert await again.by_run("run-2") == (second,) and await again.latest(1) == (second,)
    assert await again.each_after(0, 1) == ((1, first),) and await again.each_after(2, 9) == ()
    assert await again.each_after(0, 9) == ((1, first), (2, second))
    until = first.timestamp + timedelta(seconds=1)
    assert await again.between(first.timestamp, until) == ((1, first), (2, second))
    assert await again.artefacts(first.audit_id) == ARTEFACTS and await again.artefacts("none") == {}
    head = await again.head()
    assert head is not None and head.head.size == 2
    assert await again.verify() == () == await again.compare([head])
    proved = await again.stored(first.audit_id)
    assert proved is not None and proved[0].index == 0 and proved[0].tree.size == 2


async def test_sealed_records_go_the_same_way(place: str, tmp_path: Path) -> None:
    store = store_at(place, tmp_path, keys=tmp_path / "keys.json")
    record = await store.append(draft(1), ARTEFACTS)
    assert await store.artefacts(record.audit_id) == ARTEFACTS
    assert await store.verify() == () == await store_at(place, tmp_path).verify()
    assert await store_at(place, tmp_path).unopened() == 1


async def test_writers_that_append_at_once_make_one_chain(place: str, tmp_path: Path) -> None:
    stores = [store_at(place, tmp_path) for _ in range(3)]
    await stores[0].append(draft(0), {})  # the signing key is there
    await asyncio.gather(
        *(store.append(draft(10 * who + n), {}) for who, store in enumerate(stores, 1) for n in range(4)),
        *(store.append(draft(5), {"plan": "shared"}) for store in stores),
    )
    records = await stores[0].latest(100)
    assert [record.sequence for record in reversed(records)] == list(range(1, 15))
    assert await stores[0].verify() == ()


# ---- PostgreSQL


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE records SET record = '{}'",
        "DELETE FROM records",
        "TRUNCATE records CASCADE",
        "UPDATE artefacts SET content = ''",
        "DELETE FROM heads",
        "TRUNCATE heads",
    ],
)
async def test_postgres_refuses_all_but_appending_to_the_writer_and_to_the_owner(
    postgres: Postgres, tmp_path: Path, statement: str
) -> None:
    store = store_at(postgres.url(), tmp_path)
    await store.append(draft(1), ARTEFACTS)
    for user, refused in (
        (WRITER, psycopg.errors.InsufficientPrivilege),
        ("owner", psycopg.errors.IntegrityError),
    ):
        with postgres.connect(user) as db, pytest.raises(refused):
            db.execute("SET search_path = qnwis_audit")
            db.execute(statement)
    assert await store.verify() == ()


async def test_the_writer_can_neither_leave_a_gap_nor_take_the_guards_away(
    postgres: Postgres, tmp_path: Path
) -> None:
    await store_at(postgres.url(), tmp_path).append(draft(1), {})
    with postgres.connect(WRITER) as db:
        with pytest.raises(psycopg.errors.IntegrityError, match="only appended"):
            db.execute("INSERT INTO qnwis_audit.records VALUES (7, 'a', 'b', 'c', '{}')")
        for statement in (
            "DROP TRIGGER never_changes ON qnwis_audit.records",
            "ALTER TABLE qnwis_audit.records DISABLE TRIGGER ALL",
            "DROP TABLE qnwis_audit.heads",
            "CREATE OR REPLACE FUNCTION qnwis_audit.refuse() RETURNS trigger LANGUAGE sql AS 'SELECT 1'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(statement)


async def test_an_owner_who_takes_the_guards_away_is_found_out(postgres: Postgres, tmp_path: Path) -> None:
    store = store_at(postgres.url(), tmp_path)
    for run in (1, 2):
        await store.append(draft(run), ARTEFACTS)
    with postgres.connect("owner") as db:
        db.execute("SET search_path = qnwis_audit")
        db.execute("SET session_replication_role = replica")
        db.execute("UPDATE records SET record = replace(record, 'node-3', 'node-9') WHERE sequence = 1")
    assert {fault.code for fault in await store.verify()} >= {
        FaultCode.ALTERED_RECORD,
        FaultCode.ALTERED_HEAD,
    }
    with postgres.connect("owner") as db:
        db.execute("SET session_replication_role = replica")
        for table in ("artefacts", "records", "heads"):
            db.execute(f"DELETE FROM qnwis_audit.{table}")
    assert [fault.code for fault in await store.verify()] == [FaultCode.MISSING_SEQUENCE]


async def test_a_database_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    store = store_at("postgresql://worker:hunter2@127.0.0.1:9/audit", tmp_path)
    with pytest.raises(Unreachable, match=r"PostgreSQL at 127\.0\.0\.1, audit") as caught:
        await store.append(draft(1), {})
    assert "hunter2" not in str(caught.value)


def test_a_server_that_is_gone_without_a_word_is_given_up_soon_unless_its_url_says_otherwise(
    tmp_path: Path,
) -> None:
    log = log_of(tmp_path, {"QNWIS_AUDIT_STORE": "postgresql://db/audit?keepalives_idle=60"})
    assert isinstance(log, PostgresLog)
    asked = conninfo_to_dict(log._conninfo)
    assert (asked["tcp_user_timeout"], asked["keepalives_idle"]) == ("10000", "60")
    assert (asked["host"], asked["dbname"]) == ("db", "audit")


# ---- S3


async def test_in_s3_nobody_deletes_a_record_and_what_is_put_on_top_hides_nothing(
    s3: Any, tmp_path: Path
) -> None:
    store = store_at(f"s3://{BUCKET}?retain_days=30", tmp_path)
    records = [await store.append(draft(run), ARTEFACTS) for run in (1, 2)]
    versions = s3.list_object_versions(Bucket=BUCKET)["Versions"]
    assert len(versions) == 4
    for version in versions:
        with pytest.raises(ClientError, match="AccessDenied"):
            s3.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])
        kept = s3.head_object(Bucket=BUCKET, Key=version["Key"])
        left = kept["ObjectLockRetainUntilDate"] - datetime.now(UTC)
        assert kept["ObjectLockMode"] == "COMPLIANCE" and timedelta(days=29) < left <= timedelta(days=30)
        s3.delete_object(Bucket=BUCKET, Key=version["Key"])  # a marker, which S3 lets anybody set
        s3.put_object(Bucket=BUCKET, Key=version["Key"], Body=b"{}")
    assert await store.latest() == tuple(reversed(records)) and await store.verify() == ()
    third = await store.append(draft(3), {})
    assert third.sequence == 3 and await store.verify() == ()


async def test_in_s3_who_reads_on_comes_past_what_says_it_stands_elsewhere(s3: Any, tmp_path: Path) -> None:
    store = store_at(f"s3://{BUCKET}", tmp_path)
    first = await store.append(draft(1), {})
    kept = s3.get_object(Bucket=BUCKET, Key="records/000000000001")["Body"].read()
    s3.put_object(Bucket=BUCKET, Key="records/000000000002", Body=kept)
    assert await store.each_after(0, 1) == ((1, first),)
    assert await store.each_after(1, 1) == ((2, first),), "else it would be read for ever"
    assert await store.each_after(2, 1) == ()


async def test_what_a_writer_did_not_come_to_is_made_good_by_the_next(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_at(f"s3://{BUCKET}", tmp_path)
    real = S3View._put

    def dies(self: S3View, key: str, body: bytes, **condition: str) -> Any:
        if key.startswith("names/"):
            raise ClientError({"Error": {"Code": "Dead"}}, "PutObject")
        return real(self, key, body, **condition)

    with monkeypatch.context() as patch:
        patch.setattr(S3View, "_put", dies)
        with pytest.raises(Unreachable):
            await store.append(draft(1), {})
    (left,) = await store.by_run("run-1")
    assert await store.append(draft(1), {}) == left, "it is tried again, and is there already"
    await store.append(draft(2), {})
    names = s3.list_objects_v2(Bucket=BUCKET, Prefix="names/")["Contents"]
    assert len(names) == 2 and await store.verify() == ()


async def test_without_the_condition_the_second_of_two_writers_still_begins_anew(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a store that does not know `If-None-Match`."""
    real = S3View._put

    def unconditional(self: S3View, key: str, body: bytes, **condition: str) -> Any:
        return real(self, key, body)

    monkeypatch.setattr(S3View, "_put", unconditional)
    stores = [store_at(f"s3://{BUCKET}", tmp_path) for _ in range(2)]
    await stores[0].append(draft(0), {})
    await asyncio.gather(*(store.append(draft(n), {}) for n, store in enumerate(stores * 3, 1)))
    assert {record.run_id for record in await stores[0].latest(50)} == {f"run-{n}" for n in range(7)}
    assert await stores[0].verify() == ()


class Counted:
    """How much of a log is listed, and how often its bucket is asked at all."""

    def __init__(self, client: Any) -> None:
        self.calls = self.listed = 0
        client.meta.events.register("before-call.s3", self._called)
        client.meta.events.register("after-call.s3.ListObjectVersions", self._listed)

    def _called(self, **_: object) -> None:
        self.calls += 1

    def _listed(self, parsed: dict[str, Any], **_: object) -> None:
        self.listed += len(parsed.get("Versions", ()))


async def test_what_was_listed_once_is_not_listed_by_each_further_record(s3: Any, tmp_path: Path) -> None:
    counted = Counted(s3)
    log = S3Log(S3Place(BUCKET), lambda: s3)
    store = LoggedAuditStore(log, SigningKey(tmp_path / "key.pem"), Persons(tmp_path / "persons.sqlite"))
    for run in range(12):
        await store.append(draft(run), {})
    elsewhere = store_at(f"s3://{BUCKET}", tmp_path / "elsewhere")
    elsewhere.key = store.key
    await elsewhere.append(draft(100), {})  # another worker is between
    for run in range(12, 24):
        counted.calls = counted.listed = 0
        await store.append(draft(run), {})
        assert counted.listed <= 6 and counted.calls <= 9, vars(counted)
    assert [len(await store.by_run(f"run-{run}")) for run in (0, 23, 100)] == [1, 1, 1]
    assert await store.append(draft(3), {}) == (await store.by_run("run-3"))[0]
    counted.listed = 0
    assert await store.verify() == () and counted.listed >= 2 * 25, "who proves it lists it anew"


async def test_what_is_no_record_in_the_bucket_hides_none(s3: Any, tmp_path: Path) -> None:
    store = store_at(f"s3://{BUCKET}", tmp_path)
    await store.append(draft(1), {})
    for key in ("records/zzz", "records/7", "records/a/000000000009", "names/zzz", "names/000000000000-x"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"{}")
    for run in (2, 3):
        assert (await store.append(draft(run), {})).sequence == run
    assert len(await store.by_run("run-2")) == 1 and await store.verify() == ()


async def test_a_store_that_cannot_be_read_is_not_said_to_be_broken(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_at(f"s3://{BUCKET}", tmp_path)
    await store.append(draft(1), {})

    def refused(*_: object) -> Any:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject")

    monkeypatch.setattr(S3View, "rows", refused)
    with pytest.raises(Unreachable, match=f"audit store s3://{BUCKET}/.*AccessDenied"):
        await store.verify()


async def test_a_database_that_goes_away_while_it_is_proved_is_not_said_to_be_broken(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_at(postgres.url(), tmp_path)
    await store.append(draft(1), {})

    def lost(*_: object) -> Any:
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(SqlLog, "all_artefacts", lost)
    with pytest.raises(Unreachable, match="closed the connection"):
        await store.verify()
    monkeypatch.setattr(SqlLog, "all_artefacts", damaged)
    assert [fault.code for fault in await store.verify()] == [FaultCode.UNREADABLE]


def damaged(*_: object) -> Any:
    raise psycopg.errors.DataCorrupted("invalid page in block 0")


async def test_a_bucket_without_object_lock_is_no_place(s3: Any, tmp_path: Path) -> None:
    s3.create_bucket(Bucket="not-locked")
    with pytest.raises(Unreachable, match=r"s3://not-locked/.*Object Lock"):
        await store_at("s3://not-locked", tmp_path).append(draft(1), {})


async def test_an_object_that_is_not_as_it_was_put_is_named(s3: Any, tmp_path: Path) -> None:
    """Where there is no lock after all: the log is as provable as any."""
    store = store_at(f"s3://{BUCKET}", tmp_path)
    await store.append(draft(1), ARTEFACTS)
    s3.create_bucket(Bucket="copy")
    s3.put_bucket_versioning(Bucket="copy", VersioningConfiguration={"Status": "Enabled"})
    for found in s3.list_objects_v2(Bucket=BUCKET)["Contents"]:
        body = s3.get_object(Bucket=BUCKET, Key=found["Key"])["Body"].read()
        s3.put_object(Bucket="copy", Key=found["Key"], Body=body.replace(b"node-3", b"node-9"))
    copy = LoggedAuditStore(S3Log(S3Place("copy"), lambda: s3), store.key, store._persons)
    assert {fault.code for fault in await copy.verify()} >= {
        FaultCode.ALTERED_RECORD,
        FaultCode.ALTERED_HEAD,
    }


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("mysql://db", "expected sqlite, postgresql://…, s3://… or a provider's name: none is installed"),
        ("s3://", "expected s3://BUCKET/PREFIX"),
        ("s3://b?retain_days=0", "1 to 36500"),
        ("s3://b?retention=7", "at most ?retain_days="),
        ("postgresql://u:hunter2@h/d?nonsense=1", "expected postgresql://USER@HOST/DATABASE"),
    ],
)
def test_a_place_that_is_none_is_refused_and_says_what_is_expected(
    tmp_path: Path, place: str, expected: str
) -> None:
    with pytest.raises(Refused, match=re.escape(expected)) as refused:
        log_of(tmp_path, {"QNWIS_AUDIT_STORE": place})
    assert refused.value.refusal.rule == "audit_place_unknown" and "hunter2" not in str(refused.value)
