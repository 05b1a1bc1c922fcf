"""The clients: several fast writers that know the nodes and write to the one that takes writes.

They are the lab's writers (`qnwis.lab.clients`), with another way to find the database: whoever lost his
connection has every node asked again and again, each by itself and once for all writers, as a connection pool
would, and goes to the first that takes writes. So a node that answers nothing holds nobody up, and what is
measured is the system's time and not that of a list of hosts. A node that answers is asked on the connection
that there is: new ones, each with a process of the database and a password to prove, took a quarter of two
cores away from the system that is measured.

    python -m tests.bench.rto.client --server node-1=10.77.0.10 --server node-2=10.77.0.11 --port 15432 \\
        --user postgres --database postgres --password-file password --clients 4 --log history.jsonl
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from qnwis.lab.acks import AckLog, ack_log
from qnwis.lab.clients import Target, Writer, append_to, cut_off_after, run
from qnwis.lab.errors import LabError
from qnwis.lab.history import Event, Kind, from_line, read_history
from qnwis.lab.network import entering
from qnwis.lab.places import CLIENTS, Place
from qnwis.lab.processes import Processes, Started, python_module

from .systems import Running

WRITERS, PAUSE_MS = 4, 2.0
ANSWER_WITHIN_S, ASK_AGAIN_S = 1.0, 0.02
LOOK_EVERY_S = 0.05
TAKES_WRITES = "SELECT NOT pg_is_in_recovery() AND NOT current_setting('transaction_read_only')::bool"


@dataclass
class Finder:
    """Which of the nodes takes writes (an `Addresses`, whatever the name)."""

    hosts: Sequence[str]
    target: Target
    _search: asyncio.Task[str] | None = field(default=None, init=False)

    async def address(self, name: str) -> str:
        if self._search is None or self._search.done():
            self._search = asyncio.create_task(self._find())
        return await asyncio.shield(self._search)

    async def _find(self) -> str:
        asking = [asyncio.create_task(self._until_writable(host)) for host in self.hosts]
        try:
            done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in asking:
                task.cancel()

    async def _until_writable(self, host: str) -> str:
        connection: psycopg.AsyncConnection | None = None
        try:
            while True:
                try:
                    if connection is None:
                        async with asyncio.timeout(ANSWER_WITHIN_S):
                            connection = await self._connect(host)
                    with cut_off_after(ANSWER_WITHIN_S, connection):
                        row = await (await connection.execute(TAKES_WRITES)).fetchone()
                    if row == (True,):
                        return host
                except (psycopg.Error, TimeoutError):
                    if connection is not None:
                        await connection.close()
                    connection = None
                await asyncio.sleep(ASK_AGAIN_S)
        finally:
            if connection is not None:
                await connection.close()

    async def _connect(self, host: str) -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(
            host=host,
            port=self.target.port,
            user=self.target.user,
            password=self.target.password,
            dbname=self.target.database,
            autocommit=True,
        )


class Writers:
    """The process of the clients, and what it has written so far."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._log = folder / "history.jsonl"
        self._read_to = 0
        self._processes = Processes(folder / "processes", folder)
        self._process: Started | None = None
        self.last: dict[str, Event] = {}
        """The newest acknowledged write by client, as of the last look."""

    def start(self, running: Running) -> None:
        command = python_module(
            "tests.bench.rto.client",
            *(f"--server={node}={host}" for node, host in running.hosts.items()),
            *("--port", str(running.port), "--user", running.user, "--database", running.database),
            *("--password-file", str(running.password_file), "--clients", str(WRITERS)),
            *("--pause-ms", str(PAUSE_MS), "--log", str(self._log)),
        )
        place = Place(enter=entering(CLIENTS))
        self._process = self._processes.start("clients", command, cwd=self._folder, place=place)

    async def until_all(self, *, after_s: float, not_on: str | None = None, within_s: float) -> bool:
        """Return once every client has had a write acknowledged after that moment, by another node than
        `not_on`; whether they had in time."""
        deadline = time.monotonic() + within_s
        while True:
            self._look()
            acks = self.last.values()
            if len(acks) == WRITERS and all(a.at_s > after_s and a.server != not_on for a in acks):
                return True
            if time.monotonic() > deadline:
                return False
            if self._process is None or not self._process.alive:
                raise LabError(f"the clients have ended; see {self._folder}")
            await asyncio.sleep(LOOK_EVERY_S)

    def _look(self) -> None:
        if not self._log.exists():
            return
        with self._log.open("rb") as log:
            log.seek(self._read_to)
            new = log.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for line in whole.splitlines():
            # Most lines are no acknowledgements, and not worth the time of reading them.
            if b'"acknowledged"' in line and (event := from_line(line)).kind is Kind.ACKNOWLEDGED:
                self.last[event.client] = event

    def stop(self) -> None:
        self._processes.stop_all()
        self._look()

    def ack_log(self) -> AckLog:
        return ack_log(read_history(self._log))


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.rto.client")
    parser.add_argument("--server", action="append", default=[], help="node=address")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--password-file", type=Path, required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--pause-ms", type=float, required=True)
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    password = options.password_file.read_text().strip()
    target = Target("", options.port, options.user, options.database, password)
    servers = {address: node for node, _, address in (s.partition("=") for s in options.server)}
    finder, log, first_n = Finder(list(servers), target), append_to(options.log), time.time_ns() // 1000
    writers = [
        Writer(str(number), first_n, target, finder, servers, options.pause_ms / 1000, False, log)
        for number in range(options.clients)
    ]
    asyncio.run(run(writers))


if __name__ == "__main__":
    main()
