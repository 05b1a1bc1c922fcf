"""The databases of an active/active lab: founded as regions, subscribed to each other, held back, compared.

Everything is asked of the databases themselves, as a superuser, in whichever node of the region takes writes.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from qnwis.continuity.conflicts import Conflict, report
from qnwis.continuity.topology import Cluster
from qnwis.providers.conflicts import RegionDatabase
from qnwis.providers.region_checks import slot_name
from qnwis.sql import active_active

from .acks import Row
from .errors import LabError
from .layout import Folder
from .postgres import APP, APP_DATABASE, SUPERUSER
from .procfs import signal_process
from .waiting import until_none

COVERED = ("rows", "items")
ITEMS = 200
"""Rows that the clients of all regions write alike: from these come the conflicts."""
RENEW_S = 1.0
"""For so long a client of an active/active lab uses a connection; then it asks DNS again."""
CAUGHT_UP_WITHIN_S = 60.0
LOOK_EVERY_S = 0.1

_TABLE = f"CREATE TABLE items (id int PRIMARY KEY, said text NOT NULL); ALTER TABLE items OWNER TO {APP}"
_ITEM = "INSERT INTO items VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET said = EXCLUDED.said"
_STREAMING = "SELECT count(*) FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming'"
_SENDERS = """
    SELECT r.pid FROM pg_stat_replication AS r JOIN pg_replication_slots AS s ON s.active_pid = r.pid
    WHERE s.slot_type = 'logical'
"""
_UNSENT = """
    SELECT coalesce(max((pg_current_wal_lsn() - confirmed_flush_lsn)::bigint), 0) FROM pg_replication_slots
    WHERE slot_type = 'logical'
"""
_RECEIVED = "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
_TIMELINE = "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int"


@dataclass(frozen=True)
class ActiveRegions:
    """The databases of all regions of one lab."""

    cluster: Cluster
    folder: Folder

    @property
    def regions(self) -> tuple[str, ...]:
        return tuple(node.region for node in self.cluster.primaries)

    async def found(self) -> None:
        """Make each a region, cover the clients' tables, and subscribe each to each other one; returns when
        all receive. Raises LabError."""
        for region in self.regions:
            await self._do(region, _TABLE)
            await self._do(region, active_active())
            await self._ask(region, "SELECT qnwis.found_region(%s)", region)
            for table in COVERED:
                await self._ask(region, "SELECT qnwis.cover(%s)", table)
        for source, target in self.ways:
            await self._do(target, self._subscription(source, target))
        await _until_none(self._all_streaming, "the subscriptions")

    @property
    def ways(self) -> list[tuple[str, str]]:
        """From whom to whom."""
        return [(one, other) for one in self.regions for other in self.regions if one != other]

    async def hold_back(self, region: str) -> None:
        """Let nothing that the region writes reach the others: what sends it stands still (SIGSTOP) until the
        region is killed."""
        for (pid,) in await self._ask(region, _SENDERS):
            signal_process(int(pid), signal.SIGSTOP)

    async def write_item(self, region: str, item: int, said: str) -> None:
        """Write one of the rows that all regions write, in this one."""
        await self._ask(region, _ITEM, item, said)

    async def unsent_bytes(self, region: str) -> int:
        """Of the region's log, what the region that has least of it has not confirmed."""
        ((unsent,),) = await self._ask(region, _UNSENT)
        return int(unsent)

    async def until_caught_up(self) -> None:
        """Wait until whatever was written before this call has arrived in all regions. Raises LabError."""
        written = {region: await self._ask(region, "SELECT pg_current_wal_lsn()") for region in self.regions}

        async def behind() -> str | None:
            for source, target in self.ways:
                received = await self._ask(source, _RECEIVED, written[source][0][0], slot_name(target))
                if received != [(True,)]:
                    return f"{target} has not received all of {source}"
            return None

        await _until_none(behind, "replication between the regions")

    async def rows(self, region: str) -> set[Row]:
        """The clients' rows there. Raises LabError."""
        return {(str(c), int(n)) for c, n in await self._ask(region, "SELECT client, n FROM rows")}

    async def timelines(self) -> dict[str, int]:
        """Of each region's database: a promotion begins another one."""
        return {region: int((await self._ask(region, _TIMELINE))[0][0]) for region in self.regions}

    async def differing(self) -> int:
        """Covered rows that are not the same in all regions. Writes have to rest."""
        states: list[set[tuple[str, ...]]] = [
            {tuple(map(str, row)) for row in await self._ask(region, "SELECT * FROM qnwis.writes()")}
            for region in self.regions
        ]
        differing = set[tuple[str, ...]]().union(*states) - states[0].intersection(*states[1:])
        return len({row[:2] for row in differing})

    async def conflicts(self) -> tuple[Conflict, ...]:
        """What all regions have on record, each once."""
        found = [await self._database(region).conflicts() for region in self.regions]
        return report(one for each in found for one in each)

    async def _all_streaming(self) -> str | None:
        for source, target in self.ways:
            if await self._ask(source, _STREAMING, _subscription_name(source)) == [(0,)]:
                return f"{target} does not receive from {source}"
        return None

    def _subscription(self, source: str, target: str) -> sql.Composed:
        return sql.SQL(
            "CREATE SUBSCRIPTION {name} CONNECTION {conninfo} PUBLICATION qnwis"
            " WITH (origin = none, copy_data = false, slot_name = {slot})"
        ).format(
            name=sql.Identifier(_subscription_name(source)),
            conninfo=sql.Literal(make_conninfo(self._conninfo(source), password=self._password)),
            slot=sql.Literal(slot_name(target)),
        )

    def _database(self, region: str) -> RegionDatabase:
        found = RegionDatabase.of(self.cluster, region, APP_DATABASE)
        return replace(found, conninfo=make_conninfo(found.conninfo, user=SUPERUSER, password=self._password))

    def _conninfo(self, region: str) -> str:
        """For a subscriber: where the region's primary is."""
        node = next(node for node in self.cluster.primaries if node.region == region)
        assert node.database is not None
        return make_conninfo(
            host=node.database.host, port=node.database.port, dbname=APP_DATABASE, user=SUPERUSER
        )

    @property
    def _password(self) -> str:
        return self.folder.password(SUPERUSER).read_text().strip()

    async def _do(self, region: str, statements: str | sql.Composed) -> None:
        await self._execute(region, lambda connection: connection.execute(statements))

    async def _ask(self, region: str, query: str, *values: object) -> list[TupleRow]:
        return await self._execute(region, lambda on: on.execute(query, values or None))

    async def _execute(
        self,
        region: str,
        do: Callable[[psycopg.AsyncConnection[TupleRow]], Awaitable[psycopg.AsyncCursor[TupleRow]]],
    ) -> list[Any]:
        try:
            async with await psycopg.AsyncConnection.connect(
                self._database(region).conninfo, autocommit=True, connect_timeout=5
            ) as connection:
                cursor = await do(connection)
                return await cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            raise LabError(f"the database of {region}: {str(error).strip()}") from error


async def _until_none(missing: Callable[[], Awaitable[str | None]], what: str) -> None:
    await until_none(missing, what, [], timeout_s=CAUGHT_UP_WITHIN_S, pause_s=LOOK_EVERY_S)


def _subscription_name(source: str) -> str:
    """Of the subscription by which any region receives from this one."""
    return slot_name(source).replace("qnwis_to_", "qnwis_from_", 1)
