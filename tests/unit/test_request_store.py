"""What tells one deed from another, whatever key its request came with."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from qnwis.providers.errors import Unreachable
from qnwis.providers.request_store import ANSWERS_KEPT, GIVEN_UP_AFTER, Kept, RequestStore

AT = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "the-same-key"
DONE = Kept(200, "{}", b"done")

BEFORE_DEEDS = """
CREATE TABLE nonces (name TEXT NOT NULL, nonce TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (name, nonce))
    WITHOUT ROWID;
CREATE TABLE answers (
    name TEXT NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL, at REAL NOT NULL,
    status INTEGER, headers TEXT, body BLOB, PRIMARY KEY (name, key)
);
CREATE TABLE alerts (alert_id TEXT PRIMARY KEY, at REAL NOT NULL, answer TEXT);
CREATE TABLE plans (
    sequence INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, plan_id TEXT NOT NULL,
    cluster_id TEXT NOT NULL, made_by TEXT NOT NULL, at REAL NOT NULL, plan TEXT NOT NULL
);
"""


async def deed(store: RequestStore, name: str = "ann", digest: str = "d1", at: datetime = AT) -> str:
    begun = await store.begin(name, KEY, digest, at)
    assert begun.digest is None and begun.deed_id, "it began before"
    return begun.deed_id


async def test_a_request_that_is_tried_again_is_the_same_deed(tmp_path: Path) -> None:
    store = RequestStore(tmp_path / "api.sqlite")
    first = await deed(store)
    await store.forget("ann", KEY)
    assert await deed(store) == first
    # Its process ended; another one takes it up. A day counts from when it began last.
    at = AT + GIVEN_UP_AFTER + timedelta(seconds=1)
    assert await deed(RequestStore(tmp_path / "api.sqlite"), at=at) == first
    assert await deed(store, at=at + ANSWERS_KEPT) == first


async def test_nobody_elses_and_no_other_request_is_the_same_deed(tmp_path: Path) -> None:
    store = RequestStore(tmp_path / "api.sqlite")
    ids = [await deed(store), await deed(store, "dora")]
    await store.forget("ann", KEY)
    ids.append(await deed(store, digest="d2"))
    assert len({*ids}) == 3


async def test_once_its_answer_is_forgotten_the_same_request_is_another_deed(tmp_path: Path) -> None:
    store = RequestStore(tmp_path / "api.sqlite")
    first = await deed(store)
    await store.keep("ann", KEY, DONE)
    assert (await store.begin("ann", KEY, "d1", AT + ANSWERS_KEPT)).kept == DONE
    assert await deed(store, at=AT + ANSWERS_KEPT + timedelta(seconds=1)) != first


async def test_a_file_of_a_version_before_there_were_deeds_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "api.sqlite"
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(BEFORE_DEEDS)
        row = ("ann", KEY, "d1", AT.timestamp(), DONE.status, DONE.headers, DONE.body)
        db.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    store = RequestStore(path)
    assert (await store.begin("ann", KEY, "d1", AT)).kept == DONE
    assert await deed(store, "dora")


async def test_who_waits_too_long_for_another_change_is_told_of_which_cluster(tmp_path: Path) -> None:
    one, other = (RequestStore(tmp_path / "api.sqlite") for _ in range(2))
    async with one.alone("c1", within_s=30):
        async with other.alone("c2", within_s=0):
            pass  # another cluster is nobody's business
        with pytest.raises(Unreachable, match="another change of c1"):
            async with other.alone("c1", within_s=0):
                raise AssertionError("two are alone")
    async with other.alone("c1", within_s=0):
        pass
