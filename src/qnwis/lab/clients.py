"""Fast writers, as applications would be: they find the database by its DNS name, honour the TTL, and write
numbered rows, a commit each, as fast as they may.

A row's number is never used twice: a write whose connection broke may have happened or not, and to send it
again would hide a loss.

    python -m qnwis.lab.clients --name db.lab.test --nameserver 127.77.1.53 --nameserver-port 15353 \
        --port 15432 --user app --database app --password-file app.password --clients 4 --log acks.jsonl
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import psycopg
from dns.rdatatype import RdataType

_RECONNECT_PAUSE_S = 0.005
_NO_ANSWER_S = 1.0
"""After this long without an answer a client gives a connection up."""


class NoAddressError(Exception):
    """The name cannot be resolved now."""


@dataclass
class Resolver:
    """Asks one DNS server and keeps an answer for as long as its TTL allows, and no longer."""

    server: str
    port: int
    now: Callable[[], float] = time.monotonic
    _cache: dict[str, tuple[str, float]] = field(default_factory=dict)

    async def address(self, name: str) -> str:
        """An IPv4 address of the name. Raises NoAddressError."""
        address, valid_until = self._cache.get(name, ("", float("-inf")))
        if self.now() < valid_until:
            return address
        asked_at = self.now()
        query = dns.message.make_query(name, RdataType.A)
        try:
            answer, _ = await dns.asyncquery.udp_with_fallback(query, self.server, 0.5, self.port)
        except (dns.exception.DNSException, OSError) as error:
            raise NoAddressError(f"DNS: {type(error).__name__}") from error
        found = answer.get_rrset(answer.answer, dns.name.from_text(name), dns.rdataclass.IN, RdataType.A)
        if not found:
            raise NoAddressError(f"DNS: {answer.rcode().name}, no address")
        address = str(found[0])
        self._cache[name] = (address, asked_at + found.ttl)
        return address


class Log(Protocol):
    def __call__(self, **event: object) -> None: ...


def append_to(path: Path) -> Log:
    """Events go to the file at once, whole lines: other processes read along, and a SIGKILL loses none."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(**event: object) -> None:
        line = {"m": round(time.monotonic(), 6), "w": round(time.time(), 6), **event}
        os.write(descriptor, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    return write


@dataclass(frozen=True)
class Target:
    """What the clients are told, as an application's settings would say it."""

    name: str
    port: int
    user: str
    database: str
    password: str


async def write_rows(
    client: int,
    first_n: int,
    target: Target,
    resolver: Resolver,
    pause_s: float,
    log: Log,
    stop: asyncio.Event,
) -> None:
    """One client, until `stop` is set."""
    n = first_n
    while not stop.is_set():
        try:
            server = await resolver.address(target.name)
            async with asyncio.timeout(_NO_ANSWER_S):
                connection = await _connect(server, target)
        except (NoAddressError, psycopg.Error, TimeoutError) as error:
            log(client=client, error=_words(error))
            await asyncio.sleep(_RECONNECT_PAUSE_S)
            continue
        try:
            while not stop.is_set():
                with _cut_off_after(_NO_ANSWER_S, connection):
                    await connection.execute("INSERT INTO rows (client, n) VALUES (%s, %s)", (client, n))
                log(client=client, n=n, server=server)
                n += 1
                await asyncio.sleep(pause_s)
        except psycopg.Error as error:
            log(client=client, n=n, server=server, error=_words(error))
            n += 1
            await asyncio.sleep(_RECONNECT_PAUSE_S)
        finally:
            await connection.close()


@contextmanager
def _cut_off_after(
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


async def _connect(server: str, target: Target) -> psycopg.AsyncConnection[tuple[object, ...]]:
    return await psycopg.AsyncConnection.connect(
        host=server,
        port=target.port,
        user=target.user,
        password=target.password,
        dbname=target.database,
        application_name="qnwis-lab-client",
        connect_timeout=2,
        autocommit=True,
    )


def _words(error: BaseException) -> str:
    """The first line of an error; the others are advice."""
    if isinstance(error, TimeoutError):
        return f"no answer within {_NO_ANSWER_S:g} s"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


async def run(count: int, target: Target, resolver: Resolver, pause_s: float, log: Log) -> None:
    """So many clients, until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # Later runs on the same table go on above all earlier numbers.
    first_n = time.time_ns() // 1000
    await asyncio.gather(
        *(write_rows(client, first_n, target, resolver, pause_s, log, stop) for client in range(count))
    )
    log(end=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="qnwis.lab.clients", description="The lab's writing clients")
    parser.add_argument("--name", required=True, help="DNS name of the service")
    parser.add_argument("--nameserver", required=True, help="IP address")
    parser.add_argument("--nameserver-port", type=int, required=True)
    parser.add_argument("--port", type=int, required=True, help="of the database")
    parser.add_argument("--user", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--password-file", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--pause-ms", type=float, default=2.0, help="between two writes of one client")
    parser.add_argument("--log", type=Path, required=True, help="acknowledged writes, JSON lines")
    options = parser.parse_args()
    password = options.password_file.read_text().strip()
    target = Target(options.name, options.port, options.user, options.database, password)
    resolver = Resolver(options.nameserver, options.nameserver_port)
    asyncio.run(run(options.clients, target, resolver, options.pause_ms / 1000, append_to(options.log)))


if __name__ == "__main__":
    main()
