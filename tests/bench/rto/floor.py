"""The floor: a standby is promoted as soon as the primary is killed. Nobody watches, nothing is fenced."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from .bed import AT, NODES, PORT, SUPERUSER, Bed, make_table
from .names import FLOOR
from .peer import Peer, installed
from .settings import FLOOR as SETTINGS
from .settings import Setting
from .systems import Running, System


class Floor(System):
    name, fences, settings = FLOOR, False, SETTINGS

    def missing(self) -> str | None:
        return installed()

    def version(self) -> str:
        return "pg_promote()"

    @asynccontextmanager
    async def running(self, bed: Bed, setting: Setting) -> AsyncIterator[Running]:
        await plain_replication(bed, {name: str(value) for name, value in setting.values.items()})
        await make_table(AT[NODES[0]])
        # Opened before: the floor is the promotion alone.
        async with await psycopg.AsyncConnection.connect(
            host=AT[NODES[1]], port=PORT, user=SUPERUSER, dbname="postgres", autocommit=True
        ) as standby:
            yield Promoted(bed, standby)


class Promoted(Peer):
    def __init__(self, bed: Bed, standby: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        super().__init__(bed)
        self._standby = standby

    async def after_kill(self) -> None:
        await self._standby.execute("SELECT pg_promote(wait => false)")


async def plain_replication(bed: Bed, settings: dict[str, str]) -> None:
    """A primary and two standbys that follow it, started."""
    primary, *standbys = NODES
    await bed.initdb(primary, settings)
    await bed.start_postgres(primary)
    for standby in standbys:
        await bed.run(
            standby,
            *("pg_basebackup", "--host", AT[primary], "--port", str(PORT), "--username", SUPERUSER),
            *("--checkpoint", "fast", "--write-recovery-conf", "--pgdata", str(bed.data_dir(standby))),
        )
        await bed.start_postgres(standby)
    await bed.until("two standbys that stream", lambda: bed.streaming(primary, len(standbys)))
