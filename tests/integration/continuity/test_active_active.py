"""Regions that all write, on real PostgreSQL with logical replication every way: cut, in conflict, healed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb
from typer.testing import CliRunner, Result

from qnwis.cli.qnwis_continuity import app
from qnwis.continuity.clocks import merge
from qnwis.continuity.conflicts import Undo, Version, Why, resolve
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.tombstones import Pruned
from qnwis.continuity.topology import Database
from qnwis.continuity.weights import StepCheck, step_refusal
from qnwis.lab.postgres import APP_DATABASE, SUPERUSER
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.region_checks import DatabaseChecks
from qnwis.providers.tombstones import prune
from tests.unit.continuity.scenes import NOON, cluster, node

from .active import PASSWORD, Regions, running_regions

TABLES = """
    CREATE TABLE item (
        id int PRIMARY KEY, said text, size numeric, tags text[], big text,
        loud text GENERATED ALWAYS AS (upper(said)) STORED
    );
    CREATE TABLE order_line (
        line int, order_id uuid, at timestamptz, took interval, bytes bytea,
        n bigint GENERATED ALWAYS AS IDENTITY,
        PRIMARY KEY (order_id, line)
    );
    GRANT ALL ON item TO app;
    CREATE TABLE bare (n int);
    CREATE TABLE mail (id int PRIMARY KEY, address text UNIQUE);
"""
ITEM, LINE = "public.item", "public.order_line"

UPSERT = "INSERT INTO item VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET said = EXCLUDED.said"


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[Regions]:
    async with running_regions("eu", "us", "ap", tables=TABLES, covered=["item", "order_line"]) as regions:
        yield regions


@pytest.fixture
async def regions(shared: Regions) -> Regions:
    """Nothing is cut, no row is there, and no conflict on record."""
    await shared.heal()
    for table in (ITEM, LINE):
        await shared["eu"].sql(f"DELETE FROM {table}")
    await shared.until_received()
    for server in shared.servers.values():
        await server.sql("DELETE FROM qnwis.conflict")
        await server.sql("DELETE FROM qnwis.tombstone")
    return shared


async def said(regions: Regions, item: int = 1) -> set[str | None]:
    """What the regions have of an item; None for none."""
    found = [await s.sql("SELECT said FROM item WHERE id = %s", item) for s in regions.servers.values()]
    return {rows[0][0] if rows else None for rows in found}


async def test_what_one_region_writes_all_have_and_a_write_on_top_of_it_is_no_conflict(
    regions: Regions,
) -> None:
    large = "".join(random.Random(1).choices("abcdefgh", k=20_000))  # stored apart from its row
    await regions["eu"].sql("INSERT INTO item VALUES (1, 'a', 1.50, '{x,y}', %s)", large)
    await regions["ap"].sql(
        "INSERT INTO order_line VALUES"
        " (1, gen_random_uuid(), '2026-02-03 04:05:06.789+01', '-1 day 02:00', '\\x00ff'),"
        " (2, gen_random_uuid(), NULL, NULL, NULL)"
    )
    await regions.until_received()
    await regions["us"].sql("UPDATE item SET said = 'b', tags = NULL")
    ((item,),) = await regions.equal(ITEM)
    assert item[0] | {"big": ""} == {
        "id": 1,
        "said": "b",
        "loud": "B",
        "size": 1.5,
        "tags": None,
        "big": "",
        "qnwis_region": "us",
        "qnwis_clock": {"eu": 1, "us": 1},
        "qnwis_written_at": item[0]["qnwis_written_at"],
    }
    assert item[0]["big"] == large
    assert len(await regions.equal(LINE)) == 2

    await regions["ap"].sql("DELETE FROM item")
    await regions.until_received()
    assert await said(regions) == {None}
    await regions["us"].sql("INSERT INTO item VALUES (1, 'again')")
    ((item,),) = await regions.equal(ITEM)
    assert item[0]["qnwis_clock"] == {"ap": 1, "eu": 1, "us": 2}, "the clock of what was deleted goes on"
    assert await regions.report() == ()
    assert await regions["us"].sql("SELECT count(*) FROM qnwis.change") == [(0,)]


async def test_regions_that_were_cut_apart_are_equal_once_healed_and_every_conflict_is_reported_and_undone(
    regions: Regions,
) -> None:
    await regions["eu"].sql("INSERT INTO item SELECT n, 'before' FROM generate_series(1, 4) AS n")
    await regions.until_received()
    await regions.cut()
    await regions["eu"].sql("UPDATE item SET said = 'eu' WHERE id IN (1, 2, 4)")
    await regions["eu"].sql("INSERT INTO item VALUES (5, 'eu')")
    await regions["us"].sql("UPDATE item SET said = 'us' WHERE id IN (1, 3)")
    await regions["us"].sql("DELETE FROM item WHERE id = 2")
    await regions["us"].sql("INSERT INTO item VALUES (5, 'us')")
    await regions["ap"].sql("DELETE FROM item WHERE id = 4")
    await regions["eu"].sql("UPDATE item SET said = 'eu, later' WHERE id = 4")
    await regions.heal()
    await regions.equal(ITEM)
    assert [await said(regions, n) for n in range(1, 6)] == [{"us"}, {None}, {"us"}, {"eu, later"}, {"us"}]

    reported = await regions.report()
    assert {
        (one.key["id"], one.winner.row and one.winner.row["said"], one.loser.row and one.loser.row["said"])
        for one in reported
    } == {
        (1, "us", "eu"),
        (2, None, "eu"),
        (4, None, "eu"),  # where the deletion met the first of eu's two writes
        (4, "eu, later", None),
        (5, "us", "eu"),
    }
    for one in reported:
        decided = resolve(one.loser, one.winner)
        assert (decided.winner.write, decided.why) == (one.winner.write, one.why)
        assert one.why is Why.LATER

    # What of the report still has its winner in place is undone, in any region that found it.
    undone = {}
    for one in reported:
        decided = await regions[one.seen_in[0]].database.undo(one)
        undone[one.conflict_id] = isinstance(decided, Undo)
        if not undone[one.conflict_id]:
            assert isinstance(decided, Refusal) and decided.rule == "row_changed_since"
    assert len([yes for yes in undone.values() if yes]) == 4
    await regions.equal(ITEM)
    assert [await said(regions, n) for n in (1, 2, 4, 5)] == [{"eu"}, {"eu"}, {None}, {"eu"}]
    after = await regions.report()
    assert {one.conflict_id: one.undone_at is not None for one in after} == undone, "an undo is no conflict"
    for one in after:
        assert isinstance(await regions[one.seen_in[0]].database.undo(one), Refusal)


def by_command(regions: Regions, folder: Path) -> Callable[..., Awaitable[Result]]:
    """`conflicts` with these words, of a topology in `folder`."""
    topology = folder / "cluster.yaml"
    nodes = [
        node(
            name,
            "primary",
            name,
            weight=weight,
            database={"host": "127.0.0.1", "port": regions[name].port},
        )
        for name, weight in (("eu", 40), ("us", 40), ("ap", 20))
    ]
    made = cluster(*nodes, deployment="active_active").model_dump(mode="json", exclude_none=True)
    topology.write_text(yaml.safe_dump(made))

    async def call(*words: str) -> Result:
        """In a thread, for a command has a loop of its own."""
        options = ["--cluster", str(topology), "--dbname", APP_DATABASE]
        account = {"PGUSER": SUPERUSER, "PGPASSWORD": PASSWORD, "COLUMNS": "200", "NO_COLOR": "1"}
        return await asyncio.to_thread(CliRunner().invoke, app, ["conflicts", *words, *options], env=account)

    return call


async def test_people_see_conflicts_and_undo_them_by_command(regions: Regions, tmp_path: Path) -> None:
    call, topology = by_command(regions, tmp_path), tmp_path / "cluster.yaml"
    await regions.cut()
    await regions["eu"].sql("INSERT INTO item VALUES (1, 'eu', 7)")
    await regions["us"].sql("INSERT INTO item VALUES (1, 'us', 7)")
    await regions.heal()
    await regions.equal(ITEM)
    (one,) = await regions.report()
    listed = await call("list")
    assert listed.exit_code == 0 and one.conflict_id in listed.output and "later" in listed.output
    (as_json,) = json.loads((await call("list", "--json")).stdout)["conflicts"]
    assert (as_json["conflict_id"], as_json["loser"]["row"]["said"]) == (one.conflict_id, "eu")
    shown = await call("show", one.conflict_id)
    assert "concurrent" in shown.output and [
        line.split() for line in shown.output.splitlines() if line.startswith("said")
    ] == [["said", "us", "eu"]]

    recorded = ["--state-dir", str(tmp_path), "--reason", "eu was right", "--by", "ann"]
    assert (await call("undo", "no-such", *recorded)).exit_code == 2
    assert (await call("undo", one.conflict_id, "--reason", "-")).exit_code == 2, "where is it recorded?"
    undone = await call("undo", one.conflict_id, *recorded)
    assert undone.exit_code == 0, undone.output
    await regions.equal(ITEM)
    assert await said(regions) == {"eu"}
    again = await call("undo", one.conflict_id, *recorded)
    assert again.exit_code == 3 and "conflict_undone_already" in again.output

    pruned = await call("prune", "--older-than", "0s", *recorded, "--json")
    assert pruned.exit_code == 0, pruned.output
    assert json.loads(pruned.stdout)["found"] >= 0
    store = SqliteAuditStore(tmp_path / "audit.sqlite", tmp_path / "audit-signing-key.pem")
    latest, first = await store.latest()
    assert (latest.operation, latest.result.success) == ("conflict_prune", True)
    assert (first.operation, first.initiated_by, first.role, first.reason) == (
        "conflict_undo",
        "ann",
        "unauthenticated",
        "eu was right",
    )
    kept = await store.artefacts(first.audit_id)
    assert json.loads(kept["conflict"])["loser"]["row"]["said"] == "eu" and await store.verify() == ()

    made = yaml.safe_load(topology.read_text())
    made["nodes"][2]["database"]["port"] = 9
    topology.write_text(yaml.safe_dump(made))
    listed = await call("list")
    assert listed.exit_code == 4 and one.conflict_id in listed.output and "not known" in listed.output


async def test_a_region_that_comes_back_is_known_to_lag_and_to_differ_until_it_does_not(
    regions: Regions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGUSER", SUPERUSER)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    nodes = [
        node(
            name, "primary", name, weight=weight, database=Database(host="127.0.0.1", port=regions[name].port)
        )
        for name, weight in (("eu", 40), ("us", 40), ("ap", 20))
    ]
    topology = cluster(*nodes, deployment="active_active", active_database=APP_DATABASE)
    checks = DatabaseChecks(looks=2, pause_s=0)
    await regions["eu"].sql("INSERT INTO item VALUES (1, 'a')")
    await regions["eu"].sql(f"INSERT INTO {LINE} VALUES (1, gen_random_uuid())")
    await regions.until_received()
    found = await checks.check(topology, "ap", ["eu", "us"])
    assert step_refusal("ap", found, max_lag_bytes=1 << 20) is None, found

    await regions.cut(("eu", "ap"))
    await regions["eu"].sql("UPDATE item SET said = 'b'")
    await regions["eu"].sql(f"DELETE FROM {LINE}")
    await regions.until_received(("eu", "us"))
    behind = await checks.check(topology, "ap", ["eu", "us"])
    assert (behind.writable, behind.differing_rows) == (True, 4), "two rows, from each of two regions"
    assert (behind.unreceived_bytes or 0) > (found.unreceived_bytes or 0)
    assert (await checks.check(topology, "us", ["eu"])).differing_rows == 0
    await regions.heal()
    await regions.equal(ITEM)
    assert (await checks.check(topology, "ap", ["eu", "us"])).differing_rows == 0

    await regions["us"].sql("DROP SUBSCRIPTION qnwis_from_eu")
    assert (await checks.check(topology, "eu", ["us"])).unsent_bytes is None
    await regions.subscribe(regions["eu"], regions["us"])
    for unreadable in (
        topology.model_copy(update={"active_database": None}),
        topology.model_copy(update={"active_database": "postgres"}),
    ):
        assert await checks.check(unreadable, "eu", ["us"]) == StepCheck()


async def test_deletions_are_forgotten_only_once_all_regions_have_them_and_all_that_was_written_before(
    regions: Regions,
) -> None:
    databases = [server.database for server in regions.servers.values()]

    async def tombstones() -> list[int]:
        found = [await s.sql("SELECT key FROM qnwis.tombstone") for s in regions.servers.values()]
        return [len(rows) for rows in found]

    await regions["eu"].sql("INSERT INTO item SELECT n, 'before' FROM generate_series(1, 3) AS n")
    await regions.until_received()
    await regions.cut(("us", "ap"))
    await regions["us"].sql("UPDATE item SET said = 'us' WHERE id = 1")  # which ap has to come
    await regions["eu"].sql("DELETE FROM item WHERE id = 1")
    await regions.until_received(("eu", "us"), ("eu", "ap"), ("us", "eu"))
    assert await tombstones() == [1, 1, 1]
    refused = await prune(databases, 0, within_s=0.5)
    assert isinstance(refused, Refusal) and refused.rule == "subscription_behind"
    assert "us → ap" in refused.values["behind"]  # type: ignore[operator]
    assert await tombstones() == [1, 1, 1]

    await regions.heal()
    await regions.until_received()
    assert await prune(databases, 3600) == Pruned(
        older_than_s=3600, found=0, by_region={"eu": 0, "us": 0, "ap": 0}
    )
    assert await prune(databases, 0) == Pruned(older_than_s=0, found=1, by_region={"eu": 1, "us": 1, "ap": 1})
    assert await tombstones() == [0, 0, 0] and await said(regions) == {None}
    before = await regions.report()
    await regions["ap"].sql("INSERT INTO item VALUES (1, 'again')")
    await regions.equal(ITEM)
    assert await said(regions) == {"again"} and await regions.report() == before

    await regions["us"].sql("DELETE FROM item WHERE id = 2")
    await regions.until_received()
    ((told,),) = await regions["us"].sql("SELECT (pg_current_wal_lsn() + 1000000)::text")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        await regions["us"].sql("SELECT qnwis.prune('[]', %s)", told)
    await regions["us"].sql("DROP SUBSCRIPTION qnwis_from_eu")
    refused = await prune(databases, 0, within_s=0)
    assert isinstance(refused, Refusal) and "eu → us: not subscribed" in refused.message
    await regions.subscribe(regions["eu"], regions["us"])
    assert await tombstones() == [1, 1, 1]


async def test_who_reads_and_is_in_no_topology_is_waited_for_before_any_region_forgets(
    regions: Regions,
) -> None:
    """As `qnwis.prune` itself does: a region would refuse when others have forgotten already."""
    databases = [server.database for server in regions.servers.values()]
    await regions["eu"].sql("SELECT pg_create_logical_replication_slot('qnwis_to_gone', 'pgoutput')")
    try:
        await regions["eu"].sql("INSERT INTO item VALUES (1, 'before')")
        await regions["eu"].sql("DELETE FROM item")
        await regions.until_received()
        refused = await prune(databases, 0, within_s=0)
        assert isinstance(refused, Refusal) and "eu → qnwis_to_gone" in refused.values["behind"]  # type: ignore[operator]
        for server in regions.servers.values():
            assert len(await server.sql("SELECT key FROM qnwis.tombstone")) == 1
    finally:
        await regions["eu"].sql("SELECT pg_drop_replication_slot('qnwis_to_gone')")


async def test_where_one_region_does_not_forget_it_is_recorded_and_said_how_they_become_equal(
    regions: Regions, tmp_path: Path
) -> None:
    async def tombstones() -> list[int]:
        found = [await s.sql("SELECT key FROM qnwis.tombstone") for s in regions.servers.values()]
        return [len(rows) for rows in found]

    call = by_command(regions, tmp_path)
    forget = ["prune", "--older-than", "0s", "--state-dir", str(tmp_path), "--reason", "tidying", "--by", "a"]
    await regions["eu"].sql("INSERT INTO item VALUES (1, 'before'); INSERT INTO item VALUES (2, 'stays')")
    await regions["eu"].sql("DELETE FROM item WHERE id = 1")
    await regions.until_received()
    await regions["us"].sql("ALTER FUNCTION qnwis.prune(jsonb, pg_lsn) RENAME TO not_prune")
    try:
        partly = await call(*forget)
        assert partly.exit_code == 1, partly.output
        assert await tombstones() == [0, 1, 0]
        assert "us did not forget" in partly.output
        remedy = "In the database of us: SELECT qnwis.announce('public.item')"
        assert remedy in partly.output and "audit: " in partly.output
        store = SqliteAuditStore(tmp_path / "audit.sqlite", tmp_path / "audit-signing-key.pem")
        (record,) = await store.latest()
        assert (record.operation, record.result.success) == ("conflict_prune", False)
        kept = json.loads((await store.artefacts(record.audit_id))["pruned"])
        assert kept["by_region"] == {"eu": 1, "ap": 1} and [*kept["left"]] == ["us"]
    finally:
        await regions["us"].sql("ALTER FUNCTION qnwis.not_prune(jsonb, pg_lsn) RENAME TO prune")

    again = await call(*forget)
    assert again.exit_code == 0 and await tombstones() == [0, 1, 0], "what all have is all that goes"
    await regions["us"].sql(remedy.partition(": ")[2])
    await regions.equal(ITEM)
    assert await tombstones() == [1, 1, 1]
    assert (await call(*forget)).exit_code == 0 and await tombstones() == [0, 0, 0]


async def test_an_update_that_comes_before_its_insert_is_not_lost(regions: Regions) -> None:
    await regions.cut(("eu", "ap"))
    await regions["eu"].sql("INSERT INTO item VALUES (1, 'eu'), (2, 'eu')")
    await regions.until_received(("eu", "us"))
    await regions["us"].sql("UPDATE item SET said = 'us' WHERE id = 1")
    await regions["us"].sql("DELETE FROM item WHERE id = 2")
    await regions.until_received(("us", "ap"))
    assert await regions["ap"].sql("SELECT id, said FROM item") == [(1, "us")]
    await regions.heal()
    await regions.equal(ITEM)
    assert (await said(regions, 1), await said(regions, 2)) == ({"us"}, {None})
    assert await regions.report() == ()


async def test_under_writes_to_the_same_rows_everywhere_all_regions_end_equal(regions: Regions) -> None:
    async def client(name: str, seed: int) -> None:
        dice = random.Random(seed)
        async with await regions[name].connect() as connection:
            await connection.execute("SET ROLE app")  # which has rights on the table alone
            for n in range(60):
                item, words = dice.randint(1, 4), f"{name} {n}"
                # An upsert beside deletions of its row may be told to come again.
                with contextlib.suppress(psycopg.errors.DeadlockDetected):
                    if dice.random() < 0.3:
                        await connection.execute("DELETE FROM item WHERE id = %s", (item,))
                    else:
                        await connection.execute(UPSERT, (item, words))

    async def partitions() -> None:
        await regions.cut()
        await regions.heal()

    clients = [client(name, seed) for seed, name in enumerate(("eu", "eu", "us", "us", "ap"))]
    await asyncio.gather(*clients, partitions())
    rows = await regions.equal(ITEM)
    live = [row for (row,) in rows if "said" in row[0]]
    assert len(rows) == len({row[0]["id"] for (row,) in rows}), "no row has a tombstone beside it"
    assert len(live) <= 4 and await regions.report() != ()


async def test_what_a_lost_subscription_missed_is_announced_again(regions: Regions) -> None:
    """As after a failover inside a region: the slots of the old primary are gone with it."""
    source, target = regions["eu"], regions["us"]
    await source.sql("INSERT INTO item VALUES (1, 'a'), (2, 'a')")
    await regions.until_received()
    await target.sql("DROP SUBSCRIPTION qnwis_from_eu")
    await source.sql("UPDATE item SET said = 'b' WHERE id = 1")
    await source.sql("DELETE FROM item WHERE id = 2")
    await regions.subscribe(source, target)
    await regions.until_received()
    assert await target.sql("SELECT said FROM item ORDER BY id") == [("a",), ("a",)]
    assert await source.sql(f"SELECT qnwis.announce('{ITEM}')") == [(2,)]
    await regions.equal(ITEM)
    assert (await said(regions, 1), await said(regions, 2)) == ({"b"}, {None})
    assert await regions.report() == ()


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("TRUNCATE item", "TRUNCATE of public.item is refused"),
        ("UPDATE item SET id = 2", "the key of a row of public.item cannot be changed"),
        ("SELECT qnwis.cover('bare')", "public.bare has no primary key"),
        ("SELECT qnwis.cover('mail')", "further unique indexes: public.mail_address_key"),
    ],
)
async def test_what_is_not_covered_is_refused(regions: Regions, statement: str, told: str) -> None:
    await regions["eu"].sql("INSERT INTO item VALUES (1, 'a')")
    with pytest.raises(psycopg.Error, match=told):
        await regions["eu"].sql(statement)


versions = st.builds(
    lambda region, clock, micro: Version(
        region=region,
        clock=clock,
        written_at=NOON + timedelta(microseconds=micro),
        row={"id": f"{region}{micro}"},  # a region gives no two writes of a row one stamp
    ),
    st.sampled_from(["EU", "ap", "eu", "us-1", "us.2"]),
    st.dictionaries(st.sampled_from(["EU", "ap", "eu", "us-1", "us.2"]), st.integers(1, 3)),
    st.integers(0, 2),
)
PAIRS = """
    SELECT to_jsonb(r.winner), to_jsonb(r.loser), r.why, qnwis.merge(p.one -> 'clock', p.other -> 'clock')
    FROM jsonb_to_recordset(%s) AS p (n int, one jsonb, other jsonb), qnwis.resolve(
        jsonb_populate_record(NULL::qnwis.version, p.one), jsonb_populate_record(NULL::qnwis.version, p.other)
    ) AS r ORDER BY p.n
"""


def test_the_database_decides_as_the_domain_does(shared: Regions) -> None:
    def plain(version: Version) -> dict[str, Any]:
        whole = version.model_dump(mode="json")
        image = whole.pop("row")
        return {**whole, "image": image}

    def read(whole: dict[str, Any]) -> Version:
        row = whole.pop("image")
        return Version.model_validate({**whole, "row": row})

    with psycopg.connect(shared["eu"].conninfo) as connection:

        @settings(max_examples=10, phases=[Phase.generate])
        @given(st.lists(st.tuples(versions, versions), min_size=50, max_size=100))
        def holds(pairs: list[tuple[Version, Version]]) -> None:
            asked = [{"n": n, "one": plain(a), "other": plain(b)} for n, (a, b) in enumerate(pairs)]
            answers = connection.execute(PAIRS, (Jsonb(asked),)).fetchall()
            for (one, other), (winner, loser, why, clock) in zip(pairs, answers, strict=True):
                expected = resolve(one, other)
                assert (read(winner), read(loser), why) == (expected.winner, expected.loser, expected.why)
                assert clock == expected.clock == merge(one.clock, other.clock)

        holds()
