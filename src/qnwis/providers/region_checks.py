"""Whether a region that comes back to an active/active cluster has caught up with the others, both ways."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from qnwis.continuity.topology import Cluster
from qnwis.continuity.weights import StepCheck

from .conflicts import RegionDatabase
from .errors import Refused, Unreachable

LAG = """
    SELECT (pg_current_wal_lsn() - confirmed_flush_lsn)::bigint AS lag FROM pg_replication_slots
    WHERE slot_name = %s AND database = current_database()
"""
WRITES = "SELECT relation, key::text AS key, region, written_at FROM qnwis.writes()"

Writes = Mapping[tuple[str, str], tuple[str, datetime]]
"""By table and key: region and stamp of the write that left the row so."""


class RegionChecks(Protocol):
    async def check(self, cluster: Cluster, region: str, others: Collection[str]) -> StepCheck:
        """What is found of the region and of these others. What cannot be read is None; raises nothing on
        purpose."""
        ...


@dataclass(frozen=True)
class DatabaseChecks:
    """RegionChecks in the regions' databases, `active_database` of the topology."""

    looks: int = 4
    """A row differs where it was seen to, with the same two writes, so many times."""
    pause_s: float = 0.5
    """Between two looks: the time in which a write that goes on has to arrive."""

    async def check(self, cluster: Cluster, region: str, others: Collection[str]) -> StepCheck:
        dbname = cluster.active_database
        if dbname is None or not others:
            return StepCheck()
        here = RegionDatabase.of(cluster, region, dbname)
        there = [RegionDatabase.of(cluster, other, dbname) for other in sorted(others)]
        try:
            writable = await _writable(here)
            unsent = [await _lag(here, other.region) for other in there]
            unreceived = [await _lag(other, region) for other in there]
            differing = [await self._differing(here, other) for other in there]
        except (Unreachable, Refused):
            return StepCheck()
        return StepCheck(
            writable=writable,
            unsent_bytes=_largest(unsent),
            unreceived_bytes=_largest(unreceived),
            differing_rows=sum(differing),
        )

    async def _differing(self, one: RegionDatabase, other: RegionDatabase) -> int:
        kept: set[object] | None = None
        for look in range(self.looks):
            if look:
                await asyncio.sleep(self.pause_s)
            a, b = await asyncio.gather(_writes(one), _writes(other))
            now = {(row, a.get(row), b.get(row)) for row in a.keys() | b.keys() if a.get(row) != b.get(row)}
            kept = set(now) if kept is None else kept & now
            if not kept:
                break
        return len(kept or ())


def slot_name(region: str) -> str:
    """Of the slot from which a region receives; PostgreSQL takes no other characters in such a name."""
    return "qnwis_to_" + re.sub("[^a-z0-9_]", "_", region.lower())


async def _writable(database: RegionDatabase) -> bool:
    async with database.connected() as connection:
        asked = (
            "SELECT NOT pg_is_in_recovery() AND NOT current_setting('default_transaction_read_only')::bool"
        )
        row = await (await connection.execute(f"{asked} AS writable")).fetchone()
    return row is not None and bool(row["writable"])


async def _lag(source: RegionDatabase, target: str) -> int | None:
    """Bytes of the source's log that the target has not confirmed; None where it is not subscribed."""
    async with source.connected() as connection:
        row = await (await connection.execute(LAG, (slot_name(target),))).fetchone()
    return None if row is None or row["lag"] is None else max(0, int(row["lag"]))


async def _writes(database: RegionDatabase) -> Writes:
    async with database.connected() as connection:
        rows = await (await connection.execute(WRITES)).fetchall()
    return {(row["relation"], row["key"]): (row["region"], row["written_at"]) for row in rows}


def _largest(lags: list[int | None]) -> int | None:
    """None where one is not known."""
    known = [lag for lag in lags if lag is not None]
    return max(known) if known and len(known) == len(lags) else None
