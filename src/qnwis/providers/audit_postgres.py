"""The audit log in PostgreSQL: several workers on several machines append to one log.

The schema (`qnwis/sql/audit.sql`) is made by the database's owner; the role that is used here may read and
append. Writers wait for each other at an advisory lock, which that role may take.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from .audit_log import Conflict
from .audit_sql import SqlLog

LOCK = 0x716E7769_61756474
"""Of the advisory lock, so that nobody else's is it by chance."""
CONNECT_TIMEOUT_S = 5
SILENT = {
    "tcp_user_timeout": 10_000,  # ms, until what was sent has arrived
    "keepalives_idle": 5,  # s
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
"""A server that is gone without a word is given up after some ten seconds, unless its URL says otherwise:
else it would hold a thread for as long as the system likes, hours by default."""
LOCK_TIMEOUT_MS = 8000
"""How long an append waits for other writers: within an attempt of the activity that records."""


class PostgresLog:
    failures: tuple[type[Exception], ...] = (OSError, psycopg.Error)
    damages: tuple[type[Exception], ...] = (psycopg.errors.DataCorrupted, psycopg.errors.IndexCorrupted)

    def __init__(self, conninfo: str) -> None:
        """`conninfo`: a URL of PostgreSQL. Raises ValueError for what is none; its text holds no secret."""
        try:
            known = conninfo_to_dict(conninfo)
        except psycopg.Error:
            raise ValueError("expected postgresql://USER@HOST/DATABASE") from None
        self._conninfo = make_conninfo("", **{**SILENT, **known})
        self._named = f"PostgreSQL at {known.get('host') or 'its socket'}, {known.get('dbname') or 'default'}"

    def __str__(self) -> str:
        return self._named

    def exists(self) -> bool:
        with self.reading() as log:
            return log.newest() is not None

    @contextmanager
    def reading(self) -> Iterator[SqlLog]:
        with self._connection() as db:
            db.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            db.read_only = True
            yield SqlLog(db, mark="%s")

    @contextmanager
    def writing(self) -> Iterator[SqlLog]:
        with self._connection() as db:
            # Read committed: what is read after the lock is what the writer before has committed.
            db.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
            db.execute("SET LOCAL synchronous_commit = on")
            db.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            try:
                yield SqlLog(db, mark="%s")
            except psycopg.errors.IntegrityError as error:
                raise Conflict from error

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        """Commits at the end, rolls back after an exception."""
        with psycopg.connect(
            self._conninfo,
            connect_timeout=CONNECT_TIMEOUT_S,
            options="-c search_path=qnwis_audit",
            application_name="qnwis audit",
        ) as db:
            yield db
