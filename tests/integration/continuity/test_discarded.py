"""What a database alone has is exported before a rejoin discards it: a real PostgreSQL that was killed.

Where the histories part is said by the test, as the new primary's history file would say it. That a rejoin
exports, and what it says of that, is in `test_agent`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from qnwis.agent import discarded
from qnwis.agent.config import load_config
from qnwis.agent.database import Facts
from qnwis.agent.discarded import export_discarded, folder_of
from qnwis.agent.effects import EffectError
from qnwis.agent.old_history import old_history
from qnwis.agent.peers import Peers
from qnwis.agent.postgres import Postgres
from qnwis.agent.processes import processes_in
from qnwis.agent.watched import kill_processes_in
from qnwis.continuity.discarded import Export
from qnwis.continuity.lease_messages import LeaseTerms
from qnwis.continuity.orders import RejoinOrder
from qnwis.providers.nodes import HttpNodes
from qnwis.transport import Transport

from .pg import TestCluster, TestNode

ORDER = RejoinOrder(effect_id="run 7: rejoin", run_id="run 7", epoch=7, upstream="n2")
SETTINGS = "max_prepared_transactions = 2\nautovacuum = off\n"
TABLES = """
CREATE TABLE "odd % name" (id int PRIMARY KEY, note text, amount numeric);
CREATE TABLE without_key (name text);
INSERT INTO "odd % name" VALUES (1, 'both', 1), (2, 'both', 2), (3, 'both', 3);
CHECKPOINT;
"""


class Old:
    """A database that was the primary: its postmaster runs without an agent."""

    def __init__(self, member: TestNode) -> None:
        config = load_config(member.config)
        assert config.database is not None
        self.member = member
        self.postgres = Postgres(config, config.database, Peers(config))
        self.parts_at = ""
        """Where the new primary's history leaves this one's."""

    async def start(self) -> None:
        await self.postgres.start()
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(psycopg.OperationalError):
                    await self.member.sql("SELECT 1")
                    return
                await asyncio.sleep(0.05)

    async def crash(self) -> None:
        await kill_processes_in(self.postgres.data_dir)
        await self.postgres.wait_ended()

    async def export(self, order: RejoinOrder = ORDER) -> Export | None:
        history = f"1\t{self.parts_at}\tno recovery target specified\n"
        return await export_discarded(self.postgres, order, THEIRS, history)

    async def part(self) -> None:
        """From now on its history is its own."""
        ((self.parts_at,),) = await self.member.sql("SELECT pg_current_wal_insert_lsn()::text")


THEIRS = Facts(
    in_recovery=False,
    read_only=False,
    system_identifier="1",
    timeline=2,
    write_lsn=0,
    receive_lsn=None,
    replay_lsn=None,
    streaming=False,
    last_message_age_s=None,
    standbys=(),
    clients=0,
    client_limit=17,
)


@pytest.fixture(scope="module")
async def old() -> AsyncIterator[Old]:
    """Killed with transactions in every state, some of them begun before the histories part."""
    root = Path(tempfile.mkdtemp(prefix="qnwis-test-", dir="/var/tmp"))
    root.chmod(0o755)
    async with HttpNodes(Transport()) as nodes:
        cluster = TestCluster(root, nodes, synchronous=False, lease=LeaseTerms())
        try:
            cluster.create()
            with (cluster["n1"].data_dir / "postgresql.conf").open("a") as conf:
                conf.write(SETTINGS)
            made = Old(cluster["n1"])
            await made.start()
            with contextlib.suppress(psycopg.OperationalError):  # of connections that the crash broke
                await _write_and_crash(made)
            yield made
        finally:
            await cluster.destroy()


async def _write_and_crash(old: Old) -> None:
    member = old.member
    async with member.connect() as early, member.connect() as never:
        for statement in TABLES.split(";"):
            await early.execute(statement)
        await early.execute("BEGIN")
        await early.execute("""INSERT INTO "odd % name" VALUES (10, 'begun before', 10)""")
        await old.part()
        await early.execute("COMMIT")
        await member.sql("""INSERT INTO "odd % name" VALUES (4, 'only here', 12345678901234567890.12)""")
        await member.sql("""UPDATE "odd % name" SET note = 'changed here' WHERE id = 1""")
        await member.sql("""DELETE FROM "odd % name" WHERE id = 2""")
        await member.sql("INSERT INTO without_key SELECT 'n' || i FROM generate_series(1, 2000) i")
        await early.execute("BEGIN")
        await early.execute("SAVEPOINT s")
        await early.execute("""INSERT INTO "odd % name" VALUES (5, 'in a subtransaction', 5)""")
        await early.execute("RELEASE s")
        await early.execute("COMMIT")
        await early.execute("BEGIN")
        await early.execute("""INSERT INTO "odd % name" VALUES (6, 'taken back', 6)""")
        await early.execute("ROLLBACK")
        await early.execute("BEGIN")
        await early.execute("""INSERT INTO "odd % name" VALUES (8, 'only prepared', 8)""")
        await early.execute("PREPARE TRANSACTION 'left'")
        await never.execute("BEGIN")
        await never.execute("""INSERT INTO "odd % name" VALUES (7, 'never committed', 7)""")
        await member.sql("CREATE ROLE only_here")  # and what was written until here is on disk
        await old.crash()


async def test_every_row_that_only_the_old_primary_had_is_exported_and_nothing_else(old: Old) -> None:
    export = await old.export()

    assert export is not None
    folder = folder_of(old.postgres.config.state_dir, ORDER.effect_id)
    lines = (folder / "rows.jsonl").read_text().splitlines()
    exported = [json.loads(line, parse_float=str) for line in lines]
    keyed = {row["key"]["id"]: row["row"] for row in exported if row["key"]}
    assert {key: row["note"] for key, row in keyed.items()} == {
        1: "changed here",
        4: "only here",
        5: "in a subtransaction",
        10: "begun before",
    }
    assert keyed[4]["amount"] == "12345678901234567890.12"
    unkeyed = {row["row"]["name"] for row in exported if row["key"] is None}
    assert unkeyed == {f"n{i}" for i in range(1, 2001)}
    assert {(t.table, t.rows, t.deleted) for t in export.tables} == {
        ('"public"."odd % name"', 4, 1),
        ('"public"."without_key"', 2000, 0),
    }
    assert (export.rows, export.transactions) == (len(exported), 7)
    said = " and ".join(export.not_as_rows)
    assert "roles" in said and "1 transactions prepared" in said
    ended = {line["xid"]: line for line in map(json.loads, (folder / "transactions.jsonl").open())}
    assert {row["xid"] for row in exported} <= set(ended)
    assert all(row["committed_at"] == ended[row["xid"]]["committed_at"] is not None for row in exported)
    assert sound(folder, export)
    assert processes_in(old.postgres.data_dir) == []


async def test_what_was_exported_once_is_not_exported_again(old: Old) -> None:
    first = await old.export(ORDER.model_copy(update={"effect_id": "twice"}))
    again = await old.export(ORDER.model_copy(update={"effect_id": "twice"}))
    assert first is not None and again == first


async def test_half_an_export_of_a_killed_agent_is_made_anew(old: Old) -> None:
    order = ORDER.model_copy(update={"effect_id": "killed"})
    folder = folder_of(old.postgres.config.state_dir, order.effect_id)
    half = folder.with_name(folder.name + ".unfinished")
    half.mkdir(parents=True)
    (half / "rows.jsonl").write_text("half a li")
    export = await old.export(order)
    assert export is not None and export.rows == 2004
    assert sound(folder, export) and not half.exists()


async def test_half_an_export_of_another_order_takes_no_room_any_longer(old: Old) -> None:
    half = folder_of(old.postgres.config.state_dir, "killed and not repeated.unfinished")
    half.mkdir(parents=True)
    (half / "rows.jsonl").write_text("half a li")
    whole = await old.export(ORDER.model_copy(update={"effect_id": "another"}))
    assert whole is not None and not half.exists()


async def test_an_export_that_finds_no_room_leaves_the_room_that_there_was(
    old: Old, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent writes its own records there, a promise before it is answered for one."""
    order = ORDER.model_copy(update={"effect_id": "no room"})
    folder = folder_of(old.postgres.config.state_dir, order.effect_id)

    def full(*_: object) -> None:
        assert list(folder.with_name(folder.name + ".unfinished").iterdir())
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(discarded, "_keep_log", full)
    with pytest.raises(EffectError, match="No space left"):
        await old.export(order)
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(folder.name)] == []


async def test_where_the_log_that_is_left_begins_too_late_nothing_counts_as_exported(old: Old) -> None:
    log = old.postgres.data_dir / "pg_wal"
    aside = log.with_name("aside")
    aside.mkdir()
    moved = [Path(shutil.move(path, aside)) for path in log.glob("0*")]
    order = ORDER.model_copy(update={"effect_id": "too late"})
    try:
        with pytest.raises(EffectError):
            await old.export(order)
    finally:
        for path in moved:
            shutil.move(path, log)
    assert not folder_of(old.postgres.config.state_dir, order.effect_id).exists()


async def test_files_of_the_log_that_were_made_ahead_are_none_of_it(old: Old) -> None:
    """By which of the files pg_waldump learns how large they are is chance, where nobody says: of so many it
    would be one."""
    log = old.postgres.data_dir / "pg_wal"
    newest = max(path for path in log.glob("0*") if len(path.name) == 24)
    ahead = [log / f"{int(newest.name, 16) + number:024X}" for number in range(1, 101)]
    owner = newest.stat()
    for path in ahead:
        with path.open("xb") as file:
            file.truncate(owner.st_size)
        os.chown(path, owner.st_uid, owner.st_gid)
    try:
        export = await old.export(ORDER.model_copy(update={"effect_id": "made ahead"}))
    finally:
        for path in ahead:
            path.unlink()
    assert export is not None and export.rows == 2004
    kept = {Path(file.name).name for file in export.files}
    assert newest.name in kept and not kept & {path.name for path in ahead}


async def test_the_old_database_is_read_where_nobody_else_can_and_nobody_can_write(old: Old) -> None:
    async with old_history(old.postgres, 1, replayed_lsn=0) as history:
        with pytest.raises(psycopg.OperationalError):
            await old.member.sql("SELECT 1")
        async with await history.connect("postgres") as connection:
            socket_folder = Path(connection.info.host)
            assert stat.S_IMODE(socket_folder.stat().st_mode) == 0o700
            assert await (await connection.execute("SHOW listen_addresses")).fetchone() == ("",)
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                await connection.execute("INSERT INTO without_key VALUES ('written')")
    assert processes_in(old.postgres.data_dir) == [] and not socket_folder.exists()


def sound(folder: Path, export: Export) -> bool:
    """Every file is there as the manifest says, the log among them, for the agent's user alone."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {file.name for file in export.files} | {"manifest.json"}
    assert any(name.startswith("wal/0") for name in names)
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in names} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    said: dict[str, Any] = {file.name: file.sha256 for file in export.files}
    found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in said}
    return said == found
