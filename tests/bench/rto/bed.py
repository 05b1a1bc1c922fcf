"""What a cluster is made on: a folder, the parties' namespaces, and the processes that are started there."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from qnwis.lab.errors import LabError
from qnwis.lab.network import NETWORK, Network, addresses, entering
from qnwis.lab.places import Place
from qnwis.lab.processes import Processes, Started, last_lines
from qnwis.lab.procfs import kill_inside
from qnwis.lab.shape import VANTAGES

PG_BIN = Path("/usr/lib/postgresql/15/bin")
NODES = ("node-1", "node-2", "node-3")
MONITOR = "monitor"
"""Where etcd, or pg_auto_failover's monitor, stands: apart from every node."""
AT = {**addresses(NODES, VANTAGES[1:]), MONITOR: str(NETWORK[61])}
PORT = 15432
SUPERUSER = "postgres"
READY_WITHIN_S, LOOK_EVERY_S = 180.0, 0.2
CONF = {
    "listen_addresses": "'*'",
    "port": str(PORT),
    # In the data directory, so that a SIGKILL leaves nothing behind in /dev/shm.
    "dynamic_shared_memory_type": "mmap",
    "wal_keep_size": "256MB",
}
"""Of every PostgreSQL that a peer runs, besides what that peer sets."""
HBA = f"host all all {NETWORK} trust\nhost replication all {NETWORK} trust\nlocal all all trust\n"


SOCKETS = "/run/postgresql"
"""Where Debian's PostgreSQL has its socket."""


def as_postgres() -> tuple[str, ...]:
    """PostgreSQL does not run as root: in a user namespace of its own it takes itself for its usual account,
    and finds programs and files where root alone does."""
    user = pwd.getpwnam("postgres")
    return ("unshare", "--user", f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}", "--")


def with_sockets(folder: Path) -> tuple[str, ...]:
    """All nodes listen on the same port, and not every manager lets their sockets be elsewhere."""
    script = f'mount --bind "$1" {SOCKETS} && shift && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh", str(folder))


@dataclass(frozen=True)
class Bed:
    """For one cluster; everything on it ends with `clear`."""

    root: Path
    network: Network
    cache: Path
    """Outlives it: programs that were copied."""

    @property
    def processes(self) -> Processes:
        return Processes(self.root / "processes", self.root / "logs")

    def home(self, party: str) -> Path:
        return self.root / "parties" / party

    def data_dir(self, party: str) -> Path:
        return self.home(party) / "data"

    def prepare(self) -> None:
        for party in (*NODES, MONITOR):
            for folder in (self._sockets(party), self.home(party) / "run"):
                folder.mkdir(parents=True)

    def _sockets(self, party: str) -> Path:
        return self.home(party) / "sockets"

    def _enter(self, party: str) -> tuple[str, ...]:
        return (*entering(party), *with_sockets(self._sockets(party)), *as_postgres())

    def start(self, party: str, name: str, command: Sequence[str]) -> Started:
        """A process in the party's namespace and folder, as PostgreSQL's account."""
        place = Place(enter=self._enter(party))
        return self.processes.start(
            f"{name}-{party}", command, cwd=self.home(party), place=place, env=self._env(party)
        )

    async def run(self, party: str, *command: str) -> str:
        """The same to its end; what it wrote. Raises LabError."""
        return await asyncio.to_thread(self._run, party, command)

    def _run(self, party: str, command: Sequence[str]) -> str:
        # Into a file: what it leaves running would keep a pipe open.
        with (self.root / f"{party}-commands.log").open("a+") as log:
            began = log.seek(0, os.SEEK_END)
            done = subprocess.run(
                [*self._enter(party), *command],
                cwd=self.home(party),
                env={**os.environ, **self._env(party)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
            log.seek(began)
            said = log.read()
        if done.returncode != 0:
            raise LabError(f"{party}: {' '.join(command)}: exit status {done.returncode}\n{said[-2000:]}")
        return said

    def _env(self, party: str) -> Mapping[str, str]:
        home = str(self.home(party))
        return {
            "PATH": f"{PG_BIN}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "HOME": home,
            "USER": SUPERUSER,
            "XDG_CONFIG_HOME": f"{home}/config",
            "XDG_DATA_HOME": f"{home}/share",
            "XDG_RUNTIME_DIR": f"{home}/run",
        }

    async def start_postgres(self, party: str) -> None:
        await self.run(
            party,
            *(str(PG_BIN / "pg_ctl"), "--pgdata", str(self.data_dir(party)), "--wait", "start"),
            *("--log", str(self.home(party) / "postgres.log")),
        )

    async def initdb(self, party: str, settings: Mapping[str, str]) -> None:
        """A data directory that anybody in the network may reach."""
        data = self.data_dir(party)
        await self.run(
            party,
            *(str(PG_BIN / "initdb"), "--pgdata", str(data), "--username", SUPERUSER, "--auth", "trust"),
            *("--no-sync", "--data-checksums", "--encoding", "UTF8", "--locale", "C"),
        )
        (data / "pg_hba.conf").write_text(HBA)
        self.configure(party, {**CONF, **settings})

    def configure(self, party: str, settings: Mapping[str, str]) -> None:
        with (self.data_dir(party) / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = {value}\n" for name, value in settings.items())

    async def until(self, what: str, check: Callable[[], Awaitable[bool]]) -> None:
        """Return once the check is true; one that fails is asked again. Raises LabError."""
        deadline, error = time.monotonic() + READY_WITHIN_S, ""
        while time.monotonic() < deadline:
            try:
                if await check():
                    return
            except (psycopg.Error, OSError, LabError) as failed:
                error = f": {failed}"
            await asyncio.sleep(LOOK_EVERY_S)
        logs = "\n".join(f"--- {log}\n{last_lines(log, 8)}" for log in sorted(self.root.glob("**/*.log")))
        raise LabError(f"{what}: not within {READY_WITHIN_S:g} s{error}\n{logs}")

    async def streaming(self, primary: str, standbys: int) -> bool:
        rows = await sql(AT[primary], "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
        return bool(rows[0][0] == standbys)

    def clear(self) -> None:
        """End every process on it and remove it."""
        self.processes.stop_all(grace_s=0)
        kill_inside(self.root)
        shutil.rmtree(self.root)


async def sql(
    host: str, query: str, *, port: int = PORT, database: str = "postgres", user: str = SUPERUSER
) -> list[tuple[Any, ...]]:
    """Ask a database; this process stands at the bridge and reaches every party."""
    async with await psycopg.AsyncConnection.connect(
        host=host, port=port, user=user, dbname=database, autocommit=True, connect_timeout=3
    ) as connection:
        cursor = await connection.execute(query.encode())
        return await cursor.fetchall() if cursor.description else []


async def make_table(host: str) -> None:
    """The clients' table, as the lab has it."""
    await sql(
        host,
        "CREATE TABLE rows (client text, n bigint, at timestamptz NOT NULL DEFAULT now(),"
        " PRIMARY KEY (client, n))",
    )
