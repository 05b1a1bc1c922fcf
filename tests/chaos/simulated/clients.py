"""The clients: some find the database by its name, one is pinned to each node's own address."""

from __future__ import annotations

from collections.abc import Mapping

from qnwis.lab.history import Event, Kind

from .database import Database
from .kernel import Flow, Future, Kernel, Process
from .nameserver import TTL_S, Nameserver
from .network import Network

PARTY = "clients"
NAMED_PAUSES_S = (0.2, 0.6)
"""One client each, about so long between two of its writes."""
PINNED_PAUSE_S = 0.4
AGAIN_S = 0.3
"""After a write that came to nothing."""
NO_ANSWER_S = 1.0
RESOLVED_WITHIN_S = 0.5


class Clients:
    def __init__(
        self,
        kernel: Kernel,
        network: Network,
        databases: Mapping[str, Database],
        nameserver: Nameserver,
    ) -> None:
        self.process = Process(kernel, PARTY)
        self.events: list[Event] = []
        self._kernel = kernel
        self._network = network
        self._databases = databases
        self._nameserver = nameserver
        self._n = 0
        self._known: tuple[str, float] | None = None
        """The address of the name, and until when it may be used."""

    def start(self) -> None:
        self.process.start()
        for number, pause_s in enumerate(NAMED_PAUSES_S, start=1):
            self.process.spawn(self._write_by_name(f"name-{number}", pause_s))
        for node_id in self._databases:
            self.process.spawn(self._write_pinned(f"pinned-{node_id}", node_id))

    def _write_by_name(self, client: str, pause_s: float) -> Flow:
        connection: tuple[str, int] | None = None
        while True:
            address = connection[0] if connection else (yield from self._resolve())
            if address is None:
                self._n += 1
                self._note(Kind.INVOKED, client)
                self._note(Kind.FAILED, client)
            else:
                connection = yield from self._write(client, address, connection, pinned=False)
            yield self._about(pause_s if connection else AGAIN_S)

    def _write_pinned(self, client: str, node_id: str) -> Flow:
        """Attempts on a database that takes no writes would tell nothing, and are left out."""
        connection: tuple[str, int] | None = None
        while True:
            if self._databases[node_id].writable:
                connection = yield from self._write(client, node_id, connection, pinned=True)
            yield self._about(PINNED_PAUSE_S)

    def _resolve(self) -> Flow:
        now_s = self._kernel.now_s
        if self._known is not None and now_s < self._known[1]:
            return self._known[0]
        nameserver = self._nameserver
        address = yield self._network.call(
            PARTY, nameserver.process, lambda: nameserver.address, RESOLVED_WITHIN_S
        )
        if address is not None:
            self._known = (address, now_s + TTL_S)
        return address

    def _write(self, client: str, node_id: str, connection: tuple[str, int] | None, *, pinned: bool) -> Flow:
        """One write; returns the connection (node and life of its database) if it may be used again."""
        database = self._databases[node_id]
        self._n += 1
        n = self._n
        self._note(Kind.INVOKED, client, pinned=pinned, server=node_id)

        def handle() -> Future:
            ended = Future()
            if connection != (node_id, database.backends.life) and not database.accepts_connections():
                if not database.postmaster_frozen:
                    ended.resolve((Kind.FAILED, 0, 0))
                return ended
            database.write((client, n), pinned, lambda *how: ended.resolve(how))
            return ended

        life = database.backends.life
        answer = yield self._network.call(PARTY, database.backends, handle, NO_ANSWER_S)
        kind, timeline, lsn = answer or (Kind.UNKNOWN, 0, 0)
        acknowledged = kind is Kind.ACKNOWLEDGED
        self.events.append(
            Event(
                self._kernel.now_s,
                kind,
                client,
                n,
                pinned,
                node_id,
                timeline if acknowledged else None,
                lsn if acknowledged else None,
            )
        )
        return (node_id, life) if acknowledged else None

    def _about(self, pause_s: float) -> float:
        return pause_s * self._kernel.rng.uniform(0.5, 1.5)

    def _note(self, kind: Kind, client: str, *, pinned: bool = False, server: str | None = None) -> None:
        self.events.append(Event(self._kernel.now_s, kind, client, self._n, pinned, server))
