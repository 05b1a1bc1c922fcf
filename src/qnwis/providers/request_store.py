"""What the API's processes remember together: nonces, answers, alerts, plans. One SQLite file."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from qnwis.continuity.plan import Plan

from .errors import Unreachable
from .sqlite_wal import write_ahead
from .whole_files import alone_within

T = TypeVar("T")

BUSY_TIMEOUT_S = 5.0
ANSWERS_KEPT = timedelta(hours=24)
ALERTS_KEPT = timedelta(days=7)
GIVEN_UP_AFTER = timedelta(minutes=10)
"""A request without an answer for so long was cut off with its process; sent again it is begun anew, as the
same deed, by which what it had started is found."""
PLANS_KEPT = 1000

SCHEMA = """
CREATE TABLE IF NOT EXISTS nonces (
    name TEXT NOT NULL, nonce TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (name, nonce)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS nonces_until ON nonces (until);
CREATE TABLE IF NOT EXISTS answers (
    name TEXT NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL, at REAL NOT NULL,
    status INTEGER, headers TEXT, body BLOB, PRIMARY KEY (name, key)
);
CREATE TABLE IF NOT EXISTS deeds (
    name TEXT NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL, at REAL NOT NULL, deed_id TEXT NOT NULL,
    PRIMARY KEY (name, key, digest)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alerts (alert_id TEXT PRIMARY KEY, at REAL NOT NULL, answer TEXT);
CREATE TABLE IF NOT EXISTS plans (
    sequence INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, plan_id TEXT NOT NULL,
    cluster_id TEXT NOT NULL, made_by TEXT NOT NULL, at REAL NOT NULL, plan TEXT NOT NULL
);
"""


@dataclass(frozen=True)
class Kept:
    """An answer that was given before."""

    status: int
    headers: str
    """JSON."""
    body: bytes


@dataclass(frozen=True)
class Begun:
    """What is known of a key: a request that now begins (both None), one without an answer, or an answer."""

    digest: str | None = None
    kept: Kept | None = None
    deed_id: str = ""
    """Of a request that now begins: the same whenever it begins again, and of no other."""
    again: bool = False
    """It began before, and nothing is known of what came of that."""


@dataclass(frozen=True)
class MadePlan:
    plan: Plan
    made_by: str
    at_s: float


class RequestStore:
    """Every method raises Unreachable when the file cannot be read or written: then nothing is let pass."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def first_use(self, name: str, nonce: str, *, now: datetime, good_for_s: float) -> bool:
        """Whether this identity never sent this nonce; from now on it has, on disk before this returns."""

        def use(db: sqlite3.Connection) -> bool:
            db.execute("DELETE FROM nonces WHERE until < ?", (now.timestamp(),))
            row = (name, nonce, now.timestamp() + good_for_s)
            return db.execute("INSERT OR IGNORE INTO nonces VALUES (?, ?, ?)", row).rowcount == 1

        return await self._write(use)

    async def begin(self, name: str, key: str, digest: str, now: datetime) -> Begun:
        """Note that a request with this key begins, unless one did."""

        def begin(db: sqlite3.Connection) -> Begun:
            kept_since = ((now - ANSWERS_KEPT).timestamp(),)
            db.execute("DELETE FROM answers WHERE at < ?", kept_since)
            db.execute("DELETE FROM deeds WHERE at < ?", kept_since)
            db.execute(
                "DELETE FROM answers WHERE name = ? AND key = ? AND status IS NULL AND at < ?",
                (name, key, (now - GIVEN_UP_AFTER).timestamp()),
            )
            row = db.execute(
                "SELECT digest, status, headers, body FROM answers WHERE name = ? AND key = ?", (name, key)
            ).fetchone()
            if row is not None:
                return Begun(row[0], None if row[1] is None else Kept(row[1], row[2], row[3]))
            db.execute(
                "INSERT INTO answers (name, key, digest, at) VALUES (?, ?, ?, ?)",
                (name, key, digest, now.timestamp()),
            )
            new = secrets.token_hex(16)
            # It outlives the row above where that is forgotten, and ends with it where it has an answer.
            (deed_id,) = db.execute(
                "INSERT INTO deeds (name, key, digest, at, deed_id) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET at = excluded.at RETURNING deed_id",
                (name, key, digest, now.timestamp(), new),
            ).fetchone()
            return Begun(deed_id=deed_id, again=deed_id != new)

        return await self._write(begin)

    async def keep(self, name: str, key: str, answer: Kept) -> None:
        """From now on the key has this answer, in place of an earlier one."""
        row = (answer.status, answer.headers, answer.body, name, key)
        await self._write(
            lambda db: db.execute(
                "UPDATE answers SET status = ?, headers = ?, body = ? WHERE name = ? AND key = ?", row
            )
        )

    async def forget(self, name: str, key: str) -> None:
        """A request that failed for no reason of its own may be tried again with its key: the same deed. One
        that has an answer keeps it: what it started goes on."""
        await self._write(
            lambda db: db.execute(
                "DELETE FROM answers WHERE name = ? AND key = ? AND status IS NULL", (name, key)
            )
        )

    @asynccontextmanager
    async def alone(self, cluster_id: str, *, within_s: float) -> AsyncIterator[None]:
        """While no other request, of whichever process, changes what is registered of the cluster. Raises
        Unreachable where another has done so for `within_s`."""
        lock = self._path.with_name(f".{cluster_id}.lock")
        async with AsyncExitStack() as held:
            try:
                await held.enter_async_context(alone_within(lock, within_s))
            except TimeoutError as error:
                raise Unreachable(f"another change of {cluster_id} has gone on for {within_s:g} s") from error
            except OSError as error:
                raise Unreachable(f"{lock}: {error}") from error
            yield

    async def alert_begins(self, alert_id: str, now: datetime) -> str | None:
        """None for an alert that was not seen, or that was given up (GIVEN_UP_AFTER); else its answer, empty
        while there is none."""

        def begin(db: sqlite3.Connection) -> str | None:
            db.execute("DELETE FROM alerts WHERE at < ?", ((now - ALERTS_KEPT).timestamp(),))
            db.execute(
                "DELETE FROM alerts WHERE alert_id = ? AND answer IS NULL AND at < ?",
                (alert_id, (now - GIVEN_UP_AFTER).timestamp()),
            )
            row = db.execute("SELECT answer FROM alerts WHERE alert_id = ?", (alert_id,)).fetchone()
            if row is not None:
                return str(row[0] or "")
            db.execute("INSERT INTO alerts (alert_id, at) VALUES (?, ?)", (alert_id, now.timestamp()))
            return None

        return await self._write(begin)

    async def alert_ends(self, alert_id: str, answer: str | None) -> None:
        """Keep the answer; None forgets the alert, so that it is asked about again when it is sent again."""
        if answer is None:
            await self._write(lambda db: db.execute("DELETE FROM alerts WHERE alert_id = ?", (alert_id,)))
        else:
            row = (answer, alert_id)
            await self._write(lambda db: db.execute("UPDATE alerts SET answer = ? WHERE alert_id = ?", row))

    async def may_ask(self, cluster_id: str, now: datetime, *, every_s: float) -> bool:
        """Whether the cluster's guardian was not asked lately; from now on it was."""
        slot = f"{cluster_id} at {now.timestamp() // every_s:.0f}"
        return await self.alert_begins(slot, now) is None

    async def may_ask_again(self, cluster_id: str, now: datetime, *, every_s: float) -> None:
        """That time it could not be asked."""
        await self.alert_ends(f"{cluster_id} at {now.timestamp() // every_s:.0f}", None)

    async def keep_plan(self, plan: Plan, made_by: str, now: datetime) -> None:
        def keep(db: sqlite3.Connection) -> None:
            row = (
                plan.digest,
                plan.plan_id,
                plan.cluster_id,
                made_by,
                now.timestamp(),
                plan.model_dump_json(),
            )
            db.execute(
                "INSERT OR IGNORE INTO plans (digest, plan_id, cluster_id, made_by, at, plan)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
            db.execute(
                "DELETE FROM plans WHERE sequence <= (SELECT max(sequence) FROM plans) - ?", (PLANS_KEPT,)
            )

        await self._write(keep)

    async def plans(self, *, limit: int, plan_id: str | None = None) -> tuple[MadePlan, ...]:
        """The newest, newest first; of that id only where one is given."""

        def read(db: sqlite3.Connection) -> tuple[MadePlan, ...]:
            rows = db.execute(
                "SELECT plan, made_by, at FROM plans WHERE ? IS NULL OR plan_id = ?"
                " ORDER BY sequence DESC LIMIT ?",
                (plan_id, plan_id, limit),
            )
            return tuple(MadePlan(Plan.model_validate_json(text), by, at) for text, by, at in rows)

        return await self._write(read)

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def run() -> T:
            with self._open() as db:
                return work(db)

        try:
            return await asyncio.to_thread(run)
        except (OSError, sqlite3.Error) as error:
            raise Unreachable(f"{self._path}: {error}") from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as db:
            write_ahead(db, within_s=BUSY_TIMEOUT_S)
            db.execute("PRAGMA synchronous = FULL")
            # The table that came last: where it is missing the file is new, or of an earlier version.
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'deeds'").fetchone():
                db.executescript(SCHEMA)
            db.execute("BEGIN IMMEDIATE")
            with db:
                yield db
