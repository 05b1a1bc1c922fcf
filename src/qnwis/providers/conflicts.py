"""The conflicts that the regions of an active/active cluster recorded, read and undone in their databases."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from qnwis.continuity.conflicts import Conflict, Undo, Version, undo
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import Cluster

from .errors import Refused, Unreachable

CONNECT_WITHIN_S = 5

RECORDED = """
    SELECT (SELECT name FROM qnwis.region) AS seen_in, relation, key, why, found_at, undone_at,
        to_jsonb(winner) AS winner, to_jsonb(loser) AS loser
    FROM qnwis.conflict ORDER BY found_at
"""
UNDONE = """
    UPDATE qnwis.conflict SET undone_at = clock_timestamp()
    WHERE relation = %s AND key = %s
        AND ((winner).region, (winner).written_at) = (%s, %s)
        AND ((loser).region, (loser).written_at) = (%s, %s)
"""


@dataclass(frozen=True)
class RegionDatabase:
    """One region's database. Passwords and the like come from where every PostgreSQL client has them."""

    region: str
    conninfo: str

    @classmethod
    def of(cls, cluster: Cluster, region: str, dbname: str) -> RegionDatabase:
        """Of whichever node of the region takes writes now."""
        nodes = [node for node in cluster.nodes if node.region == region and node.holds_data]
        places = [
            (n.hostname, 5432) if n.database is None else (n.database.host, n.database.port) for n in nodes
        ]
        conninfo = make_conninfo(
            host=",".join(host for host, _ in places),
            port=",".join(str(port) for _, port in places),
            dbname=dbname,
            target_session_attrs="read-write",
        )
        return cls(region, conninfo)

    async def conflicts(self) -> tuple[Conflict, ...]:
        """What this region recorded, the oldest first. Raises Unreachable or Refused."""
        async with self.connected() as connection:
            rows = await (await connection.execute(RECORDED)).fetchall()
        return tuple(_conflict(row) for row in rows)

    async def undo(self, conflict: Conflict) -> Undo | Refusal:
        """Put the overwritten version back, if the row still has the one that won. Raises Unreachable or
        Refused."""
        async with self.connected() as connection, connection.transaction():
            # Locked from here on: what is decided on stays what is there.
            asked = "SELECT to_jsonb(p) AS there FROM qnwis.present(%s, %s) AS p"
            row = await (await connection.execute(asked, (conflict.table, Jsonb(conflict.key)))).fetchone()
            decided = undo(conflict, None if row is None else _version(row["there"]))
            if isinstance(decided, Undo):
                await self._write(connection, conflict, decided)
        return decided

    async def _write(
        self, connection: psycopg.AsyncConnection[DictRow], conflict: Conflict, decided: Undo
    ) -> None:
        winner, loser, key = conflict.winner, conflict.loser, Jsonb(conflict.key)
        image = None if decided.row is None else Jsonb(decided.row)
        swapped = await connection.execute(
            "SELECT qnwis.swap(%s, %s, %s, %s, %s) AS swapped",
            (conflict.table, key, winner.region, winner.written_at, image),
        )
        assert await swapped.fetchone() == {"swapped": True}, "the row is locked since it was looked at"
        writes = (winner.region, winner.written_at, loser.region, loser.written_at)
        await connection.execute(UNDONE, (conflict.table, key, *writes))

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[psycopg.AsyncConnection[DictRow]]:
        """A connection to it. Raises Unreachable or Refused."""
        try:
            async with await psycopg.AsyncConnection.connect(
                self.conninfo,
                connect_timeout=CONNECT_WITHIN_S,
                application_name="qnwis-conflicts",
                autocommit=True,
                row_factory=dict_row,
            ) as connection:
                yield connection
        except (
            psycopg.errors.UndefinedTable,
            psycopg.errors.InvalidSchemaName,
            psycopg.errors.UndefinedFunction,
        ) as error:
            raise Refused(
                Refusal(
                    rule="not_active_active",
                    message=f"The database of {self.region} is none of an active/active cluster: {error}",
                    values={"region": self.region},
                    remedy="Name its database (--dbname), or run qnwis/sql/active_active.sql in it first.",
                )
            ) from error
        except psycopg.OperationalError as error:
            raise Unreachable(f"the database of {self.region}: {' '.join(str(error).split())}") from error


def _conflict(row: dict[str, Any]) -> Conflict:
    winner, loser = _version(row["winner"]), _version(row["loser"])
    assert winner is not None and loser is not None
    return Conflict(
        table=row["relation"],
        key=row["key"],
        winner=winner,
        loser=loser,
        why=row["why"],
        seen_in=(row["seen_in"],),
        found_at=row["found_at"],
        undone_at=row["undone_at"],
    )


def _version(there: dict[str, Any] | None) -> Version | None:
    if there is None or there["region"] is None:
        return None
    return Version(
        region=there["region"], clock=there["clock"], written_at=there["written_at"], row=there["image"]
    )
