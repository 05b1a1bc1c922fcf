"""Forgetting deletions of an active/active cluster in all regions, where they are known to have arrived."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from time import monotonic

import psycopg
from psycopg.types.json import Jsonb

from qnwis.continuity.refusal import Refusal
from qnwis.continuity.tombstones import Pruned, Tombstone, behind_refusal, forgettable

from .conflicts import RegionDatabase
from .errors import Refused, Unreachable
from .region_checks import slot_name

CONFIRMED_WITHIN_S = 30.0
"""A region that has nothing to receive confirms every 10 s how far it is (`wal_receiver_status_interval`)."""
LOOK_EVERY_S = 0.2

OLD = """
    SELECT relation, key::text AS key, region, written_at
    FROM qnwis.tombstones(make_interval(secs => %s))
"""
LEFT = """
    SELECT slot_name, CASE WHEN confirmed_flush_lsn IS NOT NULL
        THEN GREATEST(0, %s::pg_lsn - confirmed_flush_lsn)::bigint END AS unconfirmed
    FROM pg_replication_slots WHERE database = current_database() AND slot_name LIKE 'qnwis\\_to\\_%%'
"""
"""Of all who read, as `qnwis.prune` asks itself: it refuses while one of them is behind."""


async def prune(
    databases: Sequence[RegionDatabase], older_than_s: float, *, within_s: float = CONFIRMED_WITHIN_S
) -> Pruned | Refusal:
    """Forget the deletions older than that, by every region's clock. Nothing is forgotten unless all that was
    written before they were read has arrived everywhere, for which it waits `within_s`. Raises Unreachable or
    Refused, and no region has forgotten anything then."""
    old = await asyncio.gather(*(_old(database, older_than_s) for database in databases))
    buried = forgettable({d.region: found for d, found in zip(databases, old, strict=True)})
    # Only now: whoever has the tombstone knows of the deletion; all that was written before is in the log.
    written = dict(
        zip(
            (database.region for database in databases),
            await asyncio.gather(*(_written(database) for database in databases)),
            strict=True,
        )
    )
    until = monotonic() + within_s
    while (refusal := behind_refusal(await _behind(databases, written))) is not None:
        if monotonic() > until:
            return refusal
        await asyncio.sleep(LOOK_EVERY_S)
    forgetting = (_forget(database, buried, written[database.region]) for database in databases)
    ends = await asyncio.gather(*forgetting, return_exceptions=True)
    failed = {d.region: end for d, end in zip(databases, ends, strict=True) if isinstance(end, BaseException)}
    may_have = any(not isinstance(end, BaseException) or isinstance(end, Unreachable) for end in ends)
    for failure in failed.values():
        if not buried or not may_have or not isinstance(failure, Exception):
            raise failure
    return Pruned(
        older_than_s=older_than_s,
        found=len(buried),
        by_region={d.region: end for d, end in zip(databases, ends, strict=True) if isinstance(end, int)},
        left={region: str(failure) for region, failure in failed.items()},
        tables=tuple(sorted({one.relation for one in buried})) if failed else (),
    )


async def _old(database: RegionDatabase, older_than_s: float) -> list[Tombstone]:
    async with database.connected() as connection:
        rows = await (await connection.execute(OLD, (older_than_s,))).fetchall()
    return [Tombstone.model_validate(row) for row in rows]


async def _written(database: RegionDatabase) -> str:
    """How far its log is."""
    async with database.connected() as connection:
        row = await (await connection.execute("SELECT pg_current_wal_lsn()::text AS lsn")).fetchone()
    assert row is not None
    return str(row["lsn"])


async def _behind(
    databases: Sequence[RegionDatabase], written: dict[str, str]
) -> dict[str, dict[str, int | None]]:
    async def of(source: RegionDatabase) -> dict[str, int | None]:
        others = {slot_name(database.region): database.region for database in databases}
        others = {slot: region for slot, region in others.items() if region != source.region}
        async with source.connected() as connection:
            rows = await (await connection.execute(LEFT, (written[source.region],))).fetchall()
        found = {others.get(row["slot_name"], row["slot_name"]): row["unconfirmed"] for row in rows}
        return {**dict.fromkeys(others.values()), **found}

    found = await asyncio.gather(*(of(source) for source in databases))
    return {source.region: left for source, left in zip(databases, found, strict=True)}


async def _forget(database: RegionDatabase, buried: Collection[Tombstone], written: str) -> int:
    named = [
        {
            "relation": one.relation,
            "key": one.key,
            "region": one.region,
            "written_at": one.written_at.isoformat(),
        }
        for one in buried
    ]
    async with database.connected() as connection:
        try:
            asked = await connection.execute(
                "SELECT qnwis.prune(%s, %s::pg_lsn) AS pruned", (Jsonb(named), written)
            )
        except psycopg.errors.ObjectNotInPrerequisiteState as error:
            raise Refused(
                Refusal(
                    rule="subscription_behind",
                    message=f"The database of {database.region} refuses: {error.diag.message_primary}",
                    values={"region": database.region},
                    remedy="Wait until every region receives again.",
                )
            ) from error
        row = await asked.fetchone()
    assert row is not None
    return int(row["pruned"])
