"""Fast writers, as applications would be: they find the database by its DNS name, honour the TTL, and write
numbered rows, a commit each, as fast as they may. Or one that is pinned to a node's own address and waits for
no standby: it would find a second primary that no name leads to.

A row's number is never used twice: a write whose connection broke may have happened or not, and to send it
again would hide a loss. The history (`qnwis.lab.history`) has every write.

    python -m qnwis.lab.clients --name db.lab.test --nameserver 127.77.1.53 --nameserver-port 15353 \\
        --server node-1=127.77.1.10 --server node-2=127.77.1.11 --port 15432 \\
        --user app --database app --password-file app.password --clients 4 --log history.jsonl
    python -m qnwis.lab.clients --pinned --server node-1=127.77.1.10 …
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString
from zlib import crc32

import psycopg

from .history import Event, Kind, to_line
from .resolver import Addresses, NoAddressError, Pinned, Resolver, Services

_RECONNECT_PAUSE_S = 0.02
"""Between two attempts to log in, as a careful application has it: a log-in costs milliseconds of a core on
either side, and without a pause a few clients would keep two cores from the failover that they wait for."""
_INSERT: LiteralString = """
INSERT INTO rows (client, n) VALUES (%s, %s)
RETURNING ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int,
          (pg_current_wal_insert_lsn() - '0/0')::bigint
"""
_INSERT_WITH_ITEM: LiteralString = f"""
WITH item AS (
    INSERT INTO items (id, said) VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET said = EXCLUDED.said
)
{_INSERT}
"""
_ITEM_EVERY = 5
"""Of so many writes of a client one is of an item that others write too."""
_NO_ANSWER_S = 1.0
"""After this long without an answer a client gives a connection up."""


Log = Callable[[Event], None]


def append_to(path: Path) -> Log:
    """Events go to the file at once, whole lines: other processes read along, and a SIGKILL loses none."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(event: Event) -> None:
        os.write(descriptor, to_line(event).encode() + b"\n")

    return write


@dataclass(frozen=True)
class Target:
    """What the clients are told, as an application's settings would say it."""

    name: str
    port: int
    user: str
    database: str
    password: str


@dataclass
class Writer:
    """One client: what it writes, and what it tells of each write."""

    name: str
    next_n: int
    target: Target
    addresses: Addresses
    servers: Mapping[str, str]
    """node_id by address."""
    pause_s: float
    pinned: bool
    log: Log
    items: int = 0
    """So many rows of the table `items` are written by all clients alike; 0 for none."""
    renew_s: float = float("inf")
    """For so long a connection is used, as a pool would have it: DNS moves only those who ask."""

    async def run(self, stop: asyncio.Event) -> None:
        """Write until `stop` is set."""
        while not stop.is_set():
            began_s = time.monotonic()
            try:
                address = await self.addresses.address(self.target.name)
                server = self.servers.get(address, address)
                async with asyncio.timeout(_NO_ANSWER_S):
                    connection = await _connect(address, self.target, pinned=self.pinned)
            except (NoAddressError, psycopg.Error, TimeoutError) as error:
                n = self._invoked(began_s)
                self._tell(Kind.FAILED, n, error=_words(error))
                await asyncio.sleep(max(_RECONNECT_PAUSE_S, self.pause_s))
                continue
            try:
                await self._write_on(connection, server, stop)
            finally:
                await connection.close()

    async def _write_on(
        self, connection: psycopg.AsyncConnection[tuple[object, ...]], server: str, stop: asyncio.Event
    ) -> None:
        """Write until the connection or a write fails."""
        until_s = time.monotonic() + self.renew_s
        while not stop.is_set() and time.monotonic() < until_s:
            n = self._invoked(time.monotonic())
            try:
                with cut_off_after(_NO_ANSWER_S, connection):
                    cursor = await connection.execute(*self._statement(n))
                    row = await cursor.fetchone()
            except psycopg.Error as error:
                kind = Kind.FAILED if _without_effect(error) else Kind.UNKNOWN
                self._tell(kind, n, server=server, error=_words(error))
                await asyncio.sleep(max(_RECONNECT_PAUSE_S, self.pause_s))
                return
            assert row is not None
            timeline, lsn = row
            assert isinstance(timeline, int) and isinstance(lsn, int)
            self._tell(Kind.ACKNOWLEDGED, n, server=server, timeline=timeline, lsn=lsn)
            await asyncio.sleep(self.pause_s)

    def _statement(self, n: int) -> tuple[LiteralString, tuple[object, ...]]:
        if not self.items or n % _ITEM_EVERY:
            return _INSERT, (self.name, n)
        said = f"{self.name} {n}"
        return _INSERT_WITH_ITEM, (crc32(said.encode()) % self.items, said, self.name, n)

    def _invoked(self, at_s: float) -> int:
        n = self.next_n
        self.next_n += 1
        self.log(Event(at_s, Kind.INVOKED, self.name, n, self.pinned))
        return n

    def _tell(
        self,
        kind: Kind,
        n: int,
        *,
        server: str | None = None,
        timeline: int | None = None,
        lsn: int | None = None,
        error: str | None = None,
    ) -> None:
        at_s = time.monotonic()
        self.log(Event(at_s, kind, self.name, n, self.pinned, server, timeline, lsn, error))


def _without_effect(error: psycopg.Error) -> bool:
    """Whether it is certain that the write was not done: the server itself refused it, and lives on.

    A server that ends the session (class 57) may have written before; so may one that was never heard.
    """
    return error.sqlstate is not None and not error.sqlstate.startswith("57")


@contextmanager
def cut_off_after(
    seconds: float, connection: psycopg.AsyncConnection[tuple[object, ...]]
) -> Generator[None, None, None]:
    """Break the connection if the block takes longer.

    Not a cancelled task: psycopg would ask the server to cancel, and wait 10 s for one that is frozen; and a
    commit that is cancelled while it waits for a standby returns as if it were done.
    """

    def cut() -> None:
        with socket.socket(fileno=os.dup(connection.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)

    timer = asyncio.get_running_loop().call_later(seconds, cut)
    try:
        yield
    finally:
        timer.cancel()


async def _connect(
    server: str, target: Target, *, pinned: bool
) -> psycopg.AsyncConnection[tuple[object, ...]]:
    return await psycopg.AsyncConnection.connect(
        host=server,
        port=target.port,
        user=target.user,
        password=target.password,
        dbname=target.database,
        application_name="qnwis-lab-client",
        options="-c synchronous_commit=local" if pinned else "",
        connect_timeout=2,
        autocommit=True,
    )


def _words(error: BaseException) -> str:
    """The first line of an error; the others are advice."""
    if isinstance(error, TimeoutError):
        return f"no answer within {_NO_ANSWER_S:g} s"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


async def run(writers: Sequence[Writer]) -> None:
    """All of these, until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await asyncio.gather(*(writer.run(stop) for writer in writers))


def main() -> None:
    parser = argparse.ArgumentParser(prog="qnwis.lab.clients", description="The lab's writing clients")
    parser.add_argument("--name", default="", help="DNS name of the service")
    parser.add_argument("--nameserver", help="IP address")
    parser.add_argument("--nameserver-port", type=int)
    parser.add_argument("--service", help="find it by the records (SRV) of this service below the name")
    parser.add_argument("--items", type=int, default=0, help="rows that all clients write alike")
    parser.add_argument("--renew-s", type=float, default=float("inf"), help="use a connection for so long")
    parser.add_argument("--pinned", action="store_true", help="write to the one --server, whatever the name")
    parser.add_argument("--server", action="append", default=[], help="node_id=address, to tell who answered")
    parser.add_argument("--port", type=int, required=True, help="of the database")
    parser.add_argument("--user", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--password-file", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--pause-ms", type=float, default=2.0, help="between two writes of one client")
    parser.add_argument("--log", type=Path, required=True, help="the history, JSON lines")
    options = parser.parse_args()
    password = options.password_file.read_text().strip()
    servers = {address: node_id for node_id, _, address in (s.partition("=") for s in options.server)}
    addresses: Addresses
    if options.pinned:
        ((address, node_id),) = servers.items()
        addresses, names = Pinned(address), [f"pinned-{node_id}"]
    else:
        resolver = Resolver(options.nameserver, options.nameserver_port)
        addresses = resolver if options.service is None else Services(resolver, options.service)
        names = [str(number) for number in range(options.clients)]
    # Later runs on the same table go on above all earlier numbers.
    first_n = time.time_ns() // 1000
    log = append_to(options.log)
    target = Target(options.name, options.port, options.user, options.database, password)
    writers = [
        Writer(
            name,
            first_n,
            target,
            addresses,
            servers,
            options.pause_ms / 1000,
            options.pinned,
            log,
            items=options.items,
            renew_s=options.renew_s,
        )
        for name in names
    ]
    asyncio.run(run(writers))


if __name__ == "__main__":
    main()
