"""PgBouncer in front: clients that connect to it live through a planned switchover without an error.

PgBouncer finds the primary by the service's name, and the hooks are those of `deploy/pgbouncer`.
"""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import psycopg
import pytest
import yaml

from qnwis.continuity.run import RunResult
from qnwis.lab.cluster import Lab
from qnwis.lab.control_plane import ControlPlane
from qnwis.lab.layout import DATABASE_PORT, DNS_PORT, new_password
from qnwis.lab.maintenance_demo import play_maintenance
from qnwis.lab.postgres import APP, APP_DATABASE
from qnwis.lab.temporal_server import ADDRESS_VARIABLE
from qnwis.starting import RunHandle
from tests.looking import WITHIN_S, Looks

from .real import PAUSE_MS, lab_directory, running_lab

DEPLOY = Path(__file__).parents[3] / "deploy" / "pgbouncer"
PROGRAM = shutil.which("pgbouncer", path=f"{os.defpath}:/usr/sbin")
PORT = 16432
ADMIN = "continuity"

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed (make install-system)"),
    pytest.mark.skipif(os.getuid() != 0, reason="PgBouncer asks a DNS server on port 53, which takes root"),
]


@dataclass
class Clients:
    """Clients of an application, each with one connection to PgBouncer that it never gives up."""

    port: int
    password: str
    written: list[str] = field(default_factory=list)
    """Which server acknowledged each write."""

    @contextlib.asynccontextmanager
    async def write(self, count: int) -> AsyncIterator[None]:
        """They write meanwhile. Raises psycopg.Error for the first error that any of them sees."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(self._writes(f"pooled-{number}", stop))
            try:
                yield
            finally:
                stop.set()

    async def until_written(self, more: int) -> None:
        wanted = len(self.written) + more
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while len(self.written) < wanted:
                await looks.again()

    async def _writes(self, client: str, stop: asyncio.Event) -> None:
        async with await psycopg.AsyncConnection.connect(
            host="127.0.0.1",
            port=self.port,
            user=APP,
            password=self.password,
            dbname=APP_DATABASE,
            autocommit=True,
            prepare_threshold=None,
        ) as connection:
            number = 0
            while not stop.is_set():
                number += 1
                cursor = await connection.execute(
                    "INSERT INTO rows (client, n) VALUES (%s, %s) RETURNING host(inet_server_addr())",
                    (client, number),
                )
                ((server,),) = await cursor.fetchall()
                self.written.append(server)
                await asyncio.sleep(PAUSE_MS / 1000)


class Relay(asyncio.DatagramProtocol):
    """Port 53, for a resolver that knows no other, in front of the lab's DNS server."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._asked: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.ensure_future(self._ask(data, addr))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _ask(self, data: bytes, addr: tuple[str, int]) -> None:
        loop, answered = asyncio.get_running_loop(), asyncio.Event()

        class Asking(asyncio.DatagramProtocol):
            answer = b""

            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                self.answer = data
                answered.set()

        transport, asking = await loop.create_datagram_endpoint(Asking, remote_addr=self._server)
        try:
            transport.sendto(data)
            await asyncio.wait_for(answered.wait(), WITHIN_S)
            self._transport.sendto(asking.answer, addr)
        finally:
            transport.close()


@pytest.fixture(scope="module", autouse=True)
def own_server() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(ADDRESS_VARIABLE, raising=False)
        yield


@pytest.fixture(scope="module")
async def control() -> AsyncIterator[ControlPlane]:
    with lab_directory() as root:
        async with running_lab(root) as control:
            yield control


@pytest.fixture(scope="module")
async def port(control: ControlPlane) -> AsyncIterator[int]:
    """Of a PgBouncer in front of the lab."""
    lab = control.lab
    loop, nameserver = asyncio.get_running_loop(), lab.block.nameserver
    relay, _ = await loop.create_datagram_endpoint(
        lambda: Relay((nameserver, DNS_PORT)), local_addr=(nameserver, 53)
    )
    port = PORT + lab.block.number
    config = configured(lab, port)
    user = "postgres"
    started = subprocess.Popen(
        ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", str(PROGRAM), str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while not await listens(port):
                assert started.poll() is None, (config.parent / "pgbouncer.log").read_text()
                await looks.again()
        yield port
    finally:
        started.terminate()
        await asyncio.to_thread(started.wait, WITHIN_S)
        relay.close()


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def configured(lab: Lab, port: int) -> Path:
    """The shipped file with the lab's own name, ports and passwords; and a password file for the hooks."""
    home = lab.folder.root / "pgbouncer"
    home.mkdir()
    service = lab.cluster.dns
    assert service is not None
    password, of_console = lab.folder.password(APP).read_text().strip(), new_password()
    (home / "userlist.txt").write_text(f'"{APP}" "{password}"\n"{ADMIN}" "{of_console}"\n')
    (home / "resolv.conf").write_text(f"nameserver {lab.block.nameserver}\n")
    file = configparser.ConfigParser(interpolation=None)
    file.read(DEPLOY / "pgbouncer.ini")
    file["databases"] = {APP_DATABASE: f"host={service.fqdn} port={DATABASE_PORT} dbname={APP_DATABASE}"}
    file["pgbouncer"].update(
        listen_port=str(port),
        auth_file=str(home / "userlist.txt"),
        logfile=str(home / "pgbouncer.log"),
        resolv_conf=str(home / "resolv.conf"),
        unix_socket_dir="",
    )
    with (home / "pgbouncer.ini").open("w") as written:
        file.write(written)
    for path in (home, *home.iterdir()):
        shutil.chown(path, "postgres")
    passfile = lab.folder.root / "pgpass"
    passfile.write_text(f"127.0.0.1:{port}:pgbouncer:{ADMIN}:{of_console}\n")
    passfile.chmod(0o600)
    return home / "pgbouncer.ini"


def with_hooks(lab: Lab, port: int) -> None:
    """The shipped hooks, for the lab's PgBouncer."""
    conninfo = f"host=127.0.0.1 port={port} dbname=pgbouncer user={ADMIN} passfile={lab.folder.root}/pgpass"
    file = yaml.safe_load((DEPLOY / "hooks.yaml").read_text())
    for hook in file["hooks"]:
        _, what, database, _ = hook["command"]
        hook["command"] = [str(DEPLOY / "pooler"), what, database, conninfo]
    (lab.folder.config / "hooks.yaml").write_text(yaml.safe_dump(file))


async def test_clients_of_pgbouncer_see_no_error_when_hooks_pause_it_for_a_planned_switchover(
    control: ControlPlane, port: int
) -> None:
    lab = control.lab
    with_hooks(lab, port)
    clients = Clients(port, lab.folder.password(APP).read_text().strip())

    async def follow(handle: RunHandle) -> RunResult:
        return await handle.result()

    async with clients.write(3):
        await clients.until_written(10)
        report = await play_maintenance(control, clients=1, say=print, follow=follow)
        await clients.until_written(10)

    assert report.verified, report
    hooks = [(hook.hook, hook.ok) for hook in report.result.hooks]
    assert hooks == [("pause-pgbouncer", True), ("resume-pgbouncer", True)]
    moved_to = lab.cluster.node(report.result.new_primary or "").hostname
    assert clients.written[-1] == moved_to and len(set(clients.written)) == 2
