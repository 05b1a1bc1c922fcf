"""The agent's connections to databases: every question bounded in time."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Coroutine
from typing import Any, TypeVar

import psycopg
from psycopg.rows import DictRow, dict_row

from qnwis.continuity.evidence import StandbyConnection
from qnwis.continuity.model import Model
from qnwis.continuity.topology import Database

from .config import Account

T = TypeVar("T")

QUERY_TIMEOUT_S = 1.0
"""A database that takes longer to answer the agent is not up."""


GREETING_HOLDS_S = 0.5
"""For so long a new connection that was answered stands for others."""
_LONGEST_HISTORY = 1 << 20
"""Bytes of a timeline's history file; a line of it is some forty."""
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""What any client may say first. The postmaster's new child answers it, with or without TLS, and before it
counts connections."""


class DatabaseDownError(Exception):
    """The database does not answer; the text says how that showed."""


class ConnectionsExhaustedError(DatabaseDownError):
    """The database is up, but has no connection left even for its superuser (SQLSTATE 53300)."""


class Facts(Model):
    """What the database says of itself. LSNs are bytes since the start of the log."""

    in_recovery: bool
    read_only: bool
    system_identifier: str
    timeline: int
    write_lsn: int | None
    receive_lsn: int | None
    replay_lsn: int | None
    streaming: bool
    last_message_age_s: float | None
    standbys: tuple[StandbyConnection, ...]
    clients: int
    """Connections of clients now, the agent's own included."""
    client_limit: int
    """Connections open to clients that are not superusers."""


# A standby that was restarted knows where its log ends only once it has replayed all of it and waits for
# more: until then its position is too low, and another might be taken for the most advanced.
# A standby without a receiver says the newest timeline it has log of: its last restart point may be older.
_FACTS = """
SELECT r.in_recovery,
       current_setting('default_transaction_read_only')::bool AS read_only,
       (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
       CASE WHEN r.in_recovery THEN coalesce(w.received_tli, (
              SELECT greatest(max(('x' || left(name, 8))::bit(32)::int),
                              (SELECT timeline_id FROM pg_control_checkpoint()))
                FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'))
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END AS timeline,
       CASE WHEN NOT r.in_recovery THEN (pg_current_wal_lsn() - '0/0')::bigint END AS write_lsn,
       CASE WHEN r.in_recovery AND (pg_last_wal_receive_lsn() IS NOT NULL OR EXISTS (
              SELECT FROM pg_stat_activity WHERE backend_type = 'startup'
                 AND wait_event IN ('RecoveryRetrieveRetryInterval', 'RecoveryWalStream')))
            THEN (greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0')::bigint
            END AS receive_lsn,
       CASE WHEN r.in_recovery THEN (pg_last_wal_replay_lsn() - '0/0')::bigint END AS replay_lsn,
       coalesce(r.in_recovery AND w.status = 'streaming', false) AS streaming,
       CASE WHEN r.in_recovery
            THEN extract(epoch FROM clock_timestamp() - w.last_msg_receipt_time)::float8
            END AS last_message_age_s,
       (SELECT coalesce(json_agg(json_build_object(
                 'application_name', application_name, 'state', coalesce(state, ''),
                 'sync_state', coalesce(sync_state, ''),
                 'flush_lag_bytes', CASE WHEN NOT r.in_recovery
                    THEN greatest((pg_current_wal_lsn() - flush_lsn)::bigint, 0) END)), '[]')
          FROM pg_stat_replication) AS standbys,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS clients,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true), '0')::int AS client_limit
  FROM (SELECT pg_is_in_recovery() AS in_recovery) r LEFT JOIN pg_stat_wal_receiver w ON true
"""


class Connection:
    """One connection to a database, made when needed and kept. Questions are answered one at a time."""

    def __init__(self, database: Database, account: Account) -> None:
        self._database = database
        self._user = account.user
        self._password = account.password()
        self._connection: psycopg.AsyncConnection[DictRow] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._greeted_at = float("-inf")

    async def facts(self) -> Facts:
        """Everything the agent reports, in one question, if new connections are answered too: a backend does
        not need its postmaster to go on. Raises DatabaseDownError."""
        try:
            facts = Facts.model_validate(await self.row(_FACTS))
        except psycopg.Error as error:  # for example a role that may not read the statistics
            raise DatabaseDownError(f"the database does not say how it is: {error}") from error
        clock = asyncio.get_running_loop().time
        if clock() - self._greeted_at > GREETING_HOLDS_S:
            await greet(self._database)
            self._greeted_at = clock()
        return facts

    async def history(self, timeline: int) -> str:
        """A timeline's history file; empty for the first, which has none. Raises DatabaseDownError."""
        name = f"pg_wal/{timeline:08X}.history"
        # With a length: PostgreSQL 15 and older take `missing_ok` in no other way.
        question = f"SELECT coalesce(pg_read_file('{name}', 0, {_LONGEST_HISTORY}, true), '') AS history"
        row = await self.row(question)
        return str(row["history"])

    async def row(self, query: str, *, timeout_s: float = QUERY_TIMEOUT_S) -> DictRow:
        """The first row of a query; empty for a command without rows.

        Raises DatabaseDownError when no answer comes, psycopg.Error for a fault of the query itself.
        """
        async with self._one_at_a_time:
            if self._connection is not None:
                try:
                    return await self._ask(self._connection, query, timeout_s)
                except psycopg.errors.ObjectNotInPrerequisiteState:
                    raise  # an answer: the database is up and says that the question does not fit
                except psycopg.OperationalError:
                    # A connection from before the database's restart: try once on a new one.
                    await self._forget()
            try:
                self._connection = await self._connect()
                return await self._ask(self._connection, query, timeout_s)
            except psycopg.errors.ObjectNotInPrerequisiteState:
                raise
            except psycopg.OperationalError as error:
                await self._forget()
                raise _down(error) from error

    async def close(self) -> None:
        async with self._one_at_a_time:
            await self._forget()

    async def _connect(self) -> psycopg.AsyncConnection[DictRow]:
        return await _within(
            QUERY_TIMEOUT_S,
            psycopg.AsyncConnection.connect(
                host=self._database.host,
                port=self._database.port,
                user=self._user,
                password=self._password,
                dbname="postgres",
                application_name="qnwis-agent",
                autocommit=True,
                row_factory=dict_row,
            ),
        )

    async def _ask(
        self, connection: psycopg.AsyncConnection[DictRow], query: str, timeout_s: float
    ) -> DictRow:
        try:
            return await _within(timeout_s, _first_row(connection, query))
        except (DatabaseDownError, asyncio.CancelledError):
            # Its question is still open, so nothing else can be asked on it; `_first_row` closes it.
            self._connection = None
            raise

    async def _forget(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


async def greet(database: Database) -> None:
    """See that a new connection is answered. Raises DatabaseDownError."""
    try:
        async with asyncio.timeout(QUERY_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(database.host, database.port)
            try:
                writer.write(SSL_REQUEST)
                answer = await reader.read(1)
            finally:
                writer.close()
    except TimeoutError:
        raise DatabaseDownError(f"no new connection is answered within {QUERY_TIMEOUT_S:g} s") from None
    except OSError as error:
        raise DatabaseDownError(f"no new connection can be made: {error}") from error
    if not answer:
        raise DatabaseDownError("a new connection was closed without an answer")


async def _first_row(connection: psycopg.AsyncConnection[DictRow], query: str) -> DictRow:
    try:
        cursor = await connection.execute(query)
        return (await cursor.fetchone() if cursor.description else None) or {}
    except asyncio.CancelledError:
        await connection.close()
        raise


async def _within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, or DatabaseDownError after `seconds`.

    Unlike wait_for this does not wait for `work` to notice that it was cancelled: psycopg would first spend
    seconds on asking a frozen server to cancel.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        _abandon(task)
        raise
    if not done:
        _abandon(task)
        raise DatabaseDownError(f"no answer within {seconds:g} s")
    return task.result()


def _abandon(task: asyncio.Future[T]) -> None:
    task.cancel()
    task.add_done_callback(lambda ended: None if ended.cancelled() else ended.exception())


def _down(error: psycopg.OperationalError) -> DatabaseDownError:
    # libpq keeps no SQLSTATE of a refused connection; the agent sets lc_messages, so the words are these.
    text = " ".join(str(error).split())
    if "too many clients already" in text or "remaining connection slots" in text:
        return ConnectionsExhaustedError(text)
    return DatabaseDownError(text)
