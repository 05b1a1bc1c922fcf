"""A client that knows the nodes' addresses and writes to the one that takes writes, every 20 ms.

That is `target_session_attrs=read-write`, as those use it by which other failover managers are measured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import psycopg

EVERY_S = 0.02


@dataclass
class HostsClient:
    """Runs in a thread of its own. The table is `rows (client text, n bigint)`."""

    dsn: str
    name: str = "hosts"
    acknowledged: list[tuple[float, int]] = field(default_factory=list)
    """When (monotonic seconds), and the number of the row."""
    _ended: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self.dsn, autocommit=True, connect_timeout=2) as connection:
                    while not self._stop.is_set():
                        n = time.time_ns()
                        connection.execute("INSERT INTO rows (client, n) VALUES (%s, %s)", (self.name, n))
                        self.acknowledged.append((time.monotonic(), n))
                        self._stop.wait(EVERY_S)
            except psycopg.Error:
                self._stop.wait(EVERY_S)
        self._ended = time.monotonic()

    def stop(self) -> None:
        self._stop.set()

    @property
    def gap_ms(self) -> float:
        """The longest time without an acknowledged write, up to its end."""
        times = [at for at, _ in self.acknowledged]
        return 1000 * max(b - a for a, b in pairwise([*times, self._ended]))

    @property
    def rows(self) -> set[tuple[str, int]]:
        """What it was told is written."""
        return {(self.name, n) for _, n in self.acknowledged}


@contextmanager
def writing(clients: Sequence[HostsClient]) -> Iterator[None]:
    """While these write; they have stopped afterwards."""
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for client in clients:
            client.stop()
        for thread in threads:
            thread.join()


def dsn_of(hosts: Sequence[str], port: int, *, user: str, password: str, database: str) -> str:
    """The nodes' addresses, for whoever looks for the one that takes writes."""
    return psycopg.conninfo.make_conninfo(
        host=",".join(hosts),
        port=",".join([str(port)] * len(hosts)),
        dbname=database,
        user=user,
        password=password,
        target_session_attrs="read-write",
    )
