"""Regions of an active/active cluster: a PostgreSQL each, with logical replication every way between them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from qnwis.agent.processes import processes_in
from qnwis.continuity.conflicts import Conflict, report
from qnwis.lab.layout import default_directory
from qnwis.lab.postgres import APP, APP_DATABASE, SUPERUSER, Installation, find_installation, make_primary
from qnwis.providers.conflicts import RegionDatabase
from qnwis.sql import active_active
from tests.looking import WITHIN_S, Looks

from .pg import free_port

CACHE = default_directory().with_name(default_directory().name + "-cache")
"""As the other tests have it: PostgreSQL's programs are copied there once."""
PASSWORD = "secret"
STATE = """
    SELECT jsonb_build_array(to_jsonb(t)) FROM {table} AS t
    UNION ALL SELECT jsonb_build_array(key, to_jsonb(deleted)) FROM qnwis.tombstone WHERE relation = '{table}'
    ORDER BY 1
"""


class RegionServer:
    """The database of one region."""

    def __init__(self, name: str, installation: Installation, folder: Path, port: int) -> None:
        self.name = name
        self.data_dir = folder / name
        self.port = port
        self._installation = installation
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def conninfo(self) -> str:
        return f"host=127.0.0.1 port={self.port} dbname={APP_DATABASE} user={SUPERUSER} password={PASSWORD}"

    @property
    def database(self) -> RegionDatabase:
        return RegionDatabase(self.name, self.conninfo)

    def start(self) -> None:
        user = self._installation.user
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "wal_level": "logical",
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_worker_processes": "16",
            "wal_retrieve_retry_interval": "100ms",
        }
        with (self.data_dir.parent / f"{self.name}.log").open("ab") as log:
            self._server = subprocess.Popen(
                [
                    str(self._installation.bin / "postgres"),
                    *("-D", str(self.data_dir)),
                    *(f"-c{name}={value}" for name, value in settings.items()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C"},
                user=None if user is None else user.uid,
                group=None if user is None else user.gid,
                extra_groups=None if user is None else [],
            )

    def stop(self) -> None:
        for pid in processes_in(self.data_dir):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        if self._server is not None:
            self._server.wait(WITHIN_S)

    async def connect(self) -> psycopg.AsyncConnection[TupleRow]:
        return await psycopg.AsyncConnection.connect(self.conninfo, autocommit=True)

    async def until_up(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while True:
                try:
                    await (await self.connect()).close()
                    return
                except psycopg.OperationalError:
                    assert self._server is not None and self._server.poll() is None, self.log()
                    await looks.again()

    async def sql(self, query: str, *values: Any) -> list[TupleRow]:
        async with await self.connect() as connection:
            cursor = await connection.execute(sql.SQL(query), values or None)  # type: ignore[arg-type]
            return await cursor.fetchall() if cursor.description else []

    async def state(self, table: str) -> list[TupleRow]:
        """All rows and all deletions, clocks included."""
        return await self.sql(STATE.format(table=table))

    async def last_written(self) -> str:
        ((lsn,),) = await self.sql("SELECT pg_current_wal_lsn()")
        return str(lsn)

    def log(self) -> str:
        return (self.data_dir.parent / f"{self.name}.log").read_text()[-3000:]


class Regions:
    """All regions, each subscribed to each other."""

    def __init__(self, servers: Sequence[RegionServer]) -> None:
        self.servers = {server.name: server for server in servers}

    def __getitem__(self, name: str) -> RegionServer:
        return self.servers[name]

    @property
    def ways(self) -> list[tuple[RegionServer, RegionServer]]:
        """From whom to whom."""
        every = self.servers.values()
        return [(source, target) for source in every for target in every if source is not target]

    async def found(self, tables: str, covered: Sequence[str]) -> None:
        for server in self.servers.values():
            await server.sql(tables)
            await server.sql(active_active())
            await server.sql(f"SELECT qnwis.found_region('{server.name}')")
            for table in covered:
                await server.sql(f"SELECT qnwis.cover('{table}')")
        for source, target in self.ways:
            await self.subscribe(source, target)

    async def subscribe(self, source: RegionServer, target: RegionServer) -> None:
        await target.sql(
            f"CREATE SUBSCRIPTION qnwis_from_{source.name} CONNECTION '{source.conninfo}' PUBLICATION qnwis"
            f" WITH (origin = none, copy_data = false, slot_name = qnwis_to_{target.name})"
        )

    async def cut(self, *ways: tuple[str, str]) -> None:
        """Let nothing through from the first to the second; without ways, nothing at all."""
        for source, target in ways or [(a.name, b.name) for a, b in self.ways]:
            name = f"qnwis_from_{source}"
            await self[target].sql(f"ALTER SUBSCRIPTION {name} DISABLE")
            async with asyncio.timeout(WITHIN_S):
                looks = Looks()
                while await self[target].sql(
                    f"SELECT 1 FROM pg_stat_subscription WHERE subname = '{name}' AND pid IS NOT NULL"
                ):
                    await looks.again()

    async def heal(self) -> None:
        for source, target in self.ways:
            await target.sql(f"ALTER SUBSCRIPTION qnwis_from_{source.name} ENABLE")

    async def until_received(self, *ways: tuple[str, str]) -> None:
        """Wait until whatever was written before this call has arrived; without ways, everywhere."""
        for source, target in [(self[a], self[b]) for a, b in ways] or self.ways:
            lsn = await source.last_written()
            try:
                async with asyncio.timeout(WITHIN_S):
                    looks = Looks()
                    while not await source.sql(
                        "SELECT 1 FROM pg_replication_slots WHERE confirmed_flush_lsn >= "
                        f"'{lsn}' AND slot_name = 'qnwis_to_{target.name}'"
                    ):
                        await looks.again()
            except TimeoutError:
                raise AssertionError(f"{source.name} → {target.name}:\n{target.log()}") from None

    async def equal(self, table: str) -> list[TupleRow]:
        """The state that all regions have, once everything has arrived."""
        await self.until_received()
        states = {name: await server.state(table) for name, server in self.servers.items()}
        first = next(iter(states.values()))
        assert all(state == first for state in states.values()), states
        return first

    async def report(self) -> tuple[Conflict, ...]:
        found = [await server.database.conflicts() for server in self.servers.values()]
        return report(one for each in found for one in each)


@contextlib.asynccontextmanager
async def running_regions(
    *names: str, tables: str, covered: Sequence[str], pg_bin: Path | None = None
) -> AsyncIterator[Regions]:
    """Regions that replicate every way; `tables` makes the same tables in each."""
    root = Path(tempfile.mkdtemp(prefix="qnwis-test-active-", dir="/var/tmp"))
    root.chmod(0o755)
    installation = find_installation(pg_bin, cache=CACHE)
    port, servers = 20_000 + 64 * os.getpid() % 10_000, []
    for name in names:
        port = free_port("127.0.0.1", above=port)
        servers.append(RegionServer(name, installation, root, port))
    try:
        _make(installation, [server.data_dir for server in servers])
        for server in servers:
            server.start()
        for server in servers:
            await server.until_up()
        regions = Regions(servers)
        await regions.found(tables, covered)
        yield regions
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(root)


def _make(installation: Installation, folders: Sequence[Path]) -> None:
    """One data directory, and copies of it: equal data to begin with."""
    first, *others = folders
    first.mkdir(mode=0o700)
    if installation.user is not None:
        os.chown(first, installation.user.uid, installation.user.gid)
    passwords = dict.fromkeys((SUPERUSER, "replicator", APP), PASSWORD)
    make_primary(installation, first, passwords=passwords, network=IPv4Network("127.0.0.0/8"), segment_mb=16)
    for folder in others:
        subprocess.run(["cp", "-a", str(first), str(folder)], check=True)
