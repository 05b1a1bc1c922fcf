"""Real Patroni for tests and benchmarks: etcd and its members on loopback, in a folder removed at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import yaml

from qnwis.agent.processes import processes_in
from qnwis.continuity.topology import Cluster
from tests.looking import WITHIN_S, Looks

from .pg import free_port, installed_postgres
from .region_address import region_address

PASSWORD = "it's a secret"
API_USER, API_PASSWORD = "operator", "to:patroni"
HOST = "127.0.8.{}"
REGIONS = {"east": "127.0.8.101", "west": "127.0.8.102"}
"""An address of each that leads to its leader."""
EAST, WEST = ("e1", "e2"), ("w1",)
AS_ANOTHER = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
UNPRIVILEGED = AS_ANOTHER if os.geteuid() == 0 else ()
"""PostgreSQL does not run as root: in a user namespace of its own it takes itself for somebody else, and
finds programs and files where root alone does."""
DYNAMIC = {
    "ttl": 20,  # the least that Patroni takes
    "loop_wait": 1,
    "retry_timeout": 3,
    "maximum_lag_on_failover": 1 << 20,
    "primary_start_timeout": 0,
    "postgresql": {
        "use_pg_rewind": True,
        "use_slots": True,
        "parameters": {"wal_keep_size": "128MB", "wal_retrieve_retry_interval": "100ms"},
    },
}


def missing() -> str | None:
    """What this machine lacks for a real Patroni."""
    if shutil.which("etcd") is None:
        return "no etcd; on Debian: apt-get install etcd-server"
    if UNPRIVILEGED and subprocess.run([*UNPRIVILEGED, "true"], capture_output=True).returncode:
        return f"`{' '.join(UNPRIVILEGED)}` is not allowed here, and PostgreSQL does not run as root"
    return None


class PatroniLab:
    """Two regions: east serves, west is its standby cluster. `fsync`: whether a commit waits for the disk."""

    def __init__(
        self, root: Path, east: tuple[str, ...] = EAST, west: tuple[str, ...] = WEST, *, fsync: bool = False
    ) -> None:
        self.root, self.east, self.west = root, east, west
        self._fsync = "on" if fsync else "off"
        self.port = free_port("127.0.8.1", above=21_000 + 64 * os.getpid() % 9_000)
        self.api_port = free_port("127.0.8.1", above=self.port)
        self.etcd_port = free_port("127.0.8.9", above=self.api_port)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def topology(self, cluster_id: str, **fields: object) -> Cluster:
        """The cluster as a person would write it."""
        return Cluster.model_validate(
            {
                "cluster_id": cluster_id,
                "name": "by Patroni",
                "manager": "patroni",
                "regions": ("east", "west"),
                "nodes": [
                    {
                        "node_id": name,
                        "hostname": self.host(name),
                        "role": "primary" if name == "e1" else "secondary",
                        "region": "east" if name in self.east else "west",
                        "site": "here",
                        "database": {"host": self.address(name), "port": self.port},
                        "patroni": {"url": self.url(name), "credentials": "env:QNWIS_TEST_PATRONI"},
                    }
                    for name in (*self.east, *self.west)
                ],
                **fields,
            }
        )

    @contextlib.asynccontextmanager
    async def region_addresses(self) -> AsyncIterator[None]:
        """While each region can be reached at its own address."""
        async with contextlib.AsyncExitStack() as listening:
            for region, names in (("east", self.east), ("west", self.west)):
                members = {self.url(name): self.host(name) for name in names}
                await listening.enter_async_context(region_address(REGIONS[region], self.port, members))
            yield

    def address(self, name: str) -> str:
        """Where the leader of its region is reached."""
        return REGIONS["east" if name in self.east else "west"]

    def host(self, name: str) -> str:
        return HOST.format((*self.east, *self.west).index(name) + 1)

    def url(self, name: str) -> str:
        return f"http://{self.host(name)}:{self.api_port}"

    async def start(self) -> None:
        """Every cluster, with the members of each streaming."""
        first, *others = self.east
        self._start_etcd()
        self.start_member(first)
        await self.until(first, role="primary", state="running")
        for name in (*others, *self.west):
            self.start_member(name)
        await asyncio.gather(
            *(self.until(name, replication_state="streaming") for name in (*others, *self.west)),
            *(self.until(name, role="standby_leader") for name in self.west[:1]),
        )

    def _start_etcd(self) -> None:
        own, peer = f"http://127.0.8.9:{self.etcd_port}", f"http://127.0.8.9:{self.etcd_port + 1}"
        folder = self._folder("etcd")
        self._spawn(
            "etcd",
            [
                "etcd",
                *("--name", "e", "--data-dir", str(folder / "data"), "--unsafe-no-fsync"),
                *("--listen-client-urls", own, "--advertise-client-urls", own),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"e={peer}"),
            ],
        )

    def start_member(self, name: str) -> None:
        folder = self._folder(name)
        config = folder / "patroni.yml"
        config.write_text(yaml.safe_dump(self._config(name, folder)))
        self._spawn(name, [sys.executable, "-m", "patroni", str(config)])

    def _folder(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        return folder

    def _spawn(self, name: str, command: list[str]) -> None:
        with (self.root / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*UNPRIVILEGED, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.root / name,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(self.root / name)},
                start_new_session=True,
            )

    def _config(self, name: str, folder: Path) -> dict[str, Any]:
        east, address = name in self.east, f"{self.host(name)}:{self.port}"
        users = {
            "superuser": {"username": "postgres", "password": PASSWORD},
            "replication": {"username": "replicator", "password": PASSWORD},
            "rewind": {"username": "rewinder", "password": PASSWORD},
        }
        follows = {} if east else {"standby_cluster": {"host": REGIONS["east"], "port": self.port}}
        return {
            "scope": "east" if east else "west",
            "name": name,
            "restapi": {
                "listen": f"{self.host(name)}:{self.api_port}",
                "connect_address": f"{self.host(name)}:{self.api_port}",
                "authentication": {"username": API_USER, "password": API_PASSWORD},
            },
            "etcd3": {"hosts": [f"127.0.8.9:{self.etcd_port}"]},
            "bootstrap": {
                "dcs": {**DYNAMIC, **follows},
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums", "no-sync"],
            },
            "postgresql": {
                "listen": address,
                "connect_address": address,
                "data_dir": str(folder / "data"),
                "bin_dir": str(installed_postgres()),
                "pgpass": str(folder / "pgpass"),
                "pg_hba": [f"host {what} all 127.0.0.0/8 scram-sha-256" for what in ("all", "replication")],
                "authentication": users,
                "parameters": {
                    "unix_socket_directories": str(folder),
                    "dynamic_shared_memory_type": "mmap",
                    "shared_buffers": "16MB",
                    "fsync": self._fsync,
                },
                "basebackup": [{"checkpoint": "fast"}, "no-sync"],
            },
        }

    async def status(self, name: str) -> dict[str, Any]:
        """What Patroni says of the member; nothing where it is silent."""
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            with contextlib.suppress(httpx.HTTPError, ValueError):
                found: dict[str, Any] = (await client.get(self.url(name) + "/patroni")).json()
                return found
        return {}

    async def until(self, name: str, **wanted: object) -> dict[str, Any]:
        said: dict[str, Any] = {}
        try:
            async with asyncio.timeout(WITHIN_S):
                looks = Looks()
                while True:
                    said = await self.status(name)
                    if all(said.get(key) == value for key, value in wanted.items()):
                        return said
                    await looks.again()
        except TimeoutError:
            raise AssertionError(f"{name} never became {wanted}; last: {said}\n{self.logs()}") from None

    def logs(self) -> str:
        return "\n".join(f"--- {log}\n{log.read_text()[-3000:]}" for log in sorted(self.root.glob("*.log")))

    async def sql(self, name: str, query: str) -> list[tuple[Any, ...]]:
        return await self.sql_at(self.host(name), query)

    async def sql_at(self, address: str, query: str) -> list[tuple[Any, ...]]:
        async with await psycopg.AsyncConnection.connect(
            host=address,
            port=self.port,
            user="postgres",
            password=PASSWORD,
            dbname="postgres",
            autocommit=True,
            connect_timeout=3,
        ) as connection:
            cursor = await connection.execute(query)
            return await cursor.fetchall() if cursor.description else []

    async def power_off(self, *names: str) -> None:
        """SIGKILL every process of these members at once."""
        for name in names:
            if (agent := self._running.pop(name, None)) is not None:
                agent.kill()
                await asyncio.to_thread(agent.wait)
            for pid in processes_in(self.root / name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while any(processes_in(self.root / name) for name in names):
                await looks.again()

    def edit_config(self, name: str, **settings: object) -> None:
        """What a person does with a region whose members are off: `patronictl edit-config`."""
        config = str(self.root / name / "patroni.yml")
        pairs = [f"{key.replace('__', '.')}={value}" for key, value in settings.items()]
        subprocess.run(
            [Path(sys.executable).with_name("patronictl"), "-c", config, "edit-config", "--force", "--quiet"]
            + [part for pair in pairs for part in ("-s", pair)],
            check=True,
            capture_output=True,
            cwd=self.root,
        )

    async def destroy(self) -> None:
        await self.power_off(*self.east, *self.west, "etcd")
        shutil.rmtree(self.root)


@contextlib.asynccontextmanager
async def patroni_lab(
    east: tuple[str, ...] = EAST, west: tuple[str, ...] = WEST, *, fsync: bool = False
) -> AsyncIterator[PatroniLab]:
    root = Path(tempfile.mkdtemp(prefix="qnwis-patroni-", dir="/var/tmp"))
    lab = PatroniLab(root, east, west, fsync=fsync)
    try:
        async with lab.region_addresses():
            await lab.start()
            yield lab
    finally:
        await lab.destroy()
