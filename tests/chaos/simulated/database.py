"""A node's database: a log that grows, standbys that receive it, commits that wait for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from qnwis.lab.history import Kind
from tests.chaos.facts import Promotion, Write

from .kernel import Flow, Future, Kernel, Process
from .log import Branch, Position, Rows
from .network import Network

RECOVERY_S = (0.1, 0.4)
PROMOTION_S = (0.03, 0.2)
RECONNECT_S = 0.2
PING_EVERY_S = 1.0
RECEIVER_TIMEOUT_S = 4.0
ROW_BYTES = (80, 300)

Answer = Callable[[Kind, int, int], None]
"""How a write ended, on which timeline, with the end of the log."""


@dataclass(eq=False)
class Stream:
    """One connection of a standby to its upstream, as both ends know it."""

    upstream: Database
    standby: str
    flushed: int = 0
    """What the standby confirmed of the upstream's own branch."""


@dataclass
class Shared:
    """What all databases of a cluster have in common."""

    kernel: Kernel
    network: Network
    rows: Rows
    required_acks: int
    """0: asynchronous."""
    databases: dict[str, Database] = field(default_factory=dict)
    promotions: list[Promotion] = field(default_factory=list)
    served: list[str] = field(default_factory=list)
    """node_id of each database that began to accept writes, in that order."""
    most_writable: int = 0
    """Databases that were ready to acknowledge writes at one instant, at most."""


class Database:
    def __init__(self, shared: Shared, node_id: str, origin: Branch, lsn: int) -> None:
        self.node_id = node_id
        self._shared = shared
        self._kernel = shared.kernel
        self.backends = Process(shared.kernel, node_id)
        self.receiver = Process(shared.kernel, node_id)
        shared.databases[node_id] = self
        shared.network.on_cut.append(self._links_changed)
        # On disk.
        self.position = Position(origin, lsn)
        self.standby = False
        self.upstream: str | None = None
        self.wal_full = False
        # In memory.
        self.ready = False
        """Recovery is over, or a standby answers."""
        self.in_recovery = True
        self.postmaster_frozen = False
        self.hung_since_s: float | None = None
        """When it stopped to answer whoever asks anew."""
        self.stream: Stream | None = None
        self.streams: dict[str, Stream] = {}
        self.last_message_s = 0.0
        self._waiting: list[tuple[int, Branch, Answer]] = []
        self._woken = Future()
        self.on_change: Callable[[], None] = lambda: None
        """Called when it can be asked, and when it ends."""

    # Processes

    @property
    def alive(self) -> bool:
        return self.backends.alive

    @property
    def answers(self) -> bool:
        """Within the time that anybody waits."""
        return self.ready and self.backends.runs

    @property
    def writable(self) -> bool:
        """Ready to acknowledge, were it not frozen."""
        return self.backends.alive and self.ready and not self.in_recovery

    @property
    def streaming(self) -> bool:
        return self.stream is not None and self.stream.upstream.node_id == self.upstream

    def start(self) -> None:
        self.kill()
        self.backends.start()
        self.on_change()
        self.backends.after(self._kernel.rng.uniform(*RECOVERY_S), self._recovered)

    def kill(self) -> None:
        """SIGKILL every process."""
        if not self.alive:
            return
        self.backends.kill()
        self.receiver.kill()
        self.ready, self.postmaster_frozen, self.hung_since_s = False, False, None
        waiting, self._waiting = self._waiting, []
        for _, _, answer in waiting:
            answer(Kind.UNKNOWN, 0, 0)
        for stream in self.streams.values():
            self._reset(stream)
        self.streams, self.stream = {}, None
        self.on_change()

    def freeze(self) -> None:
        self.backends.freeze()
        self.receiver.freeze()
        self._hangs()

    def freeze_postmaster(self) -> None:
        """Backends that are there go on."""
        self.postmaster_frozen = self.alive
        self._hangs()

    def thaw(self, lag_s: float = 0.0) -> None:
        self.backends.thaw(lag_s)
        self.receiver.thaw(lag_s)
        self.postmaster_frozen, self.hung_since_s = False, None
        self._reload()

    def _hangs(self) -> None:
        if self.alive and self.hung_since_s is None:
            self.hung_since_s = self._kernel.now_s

    def _recovered(self) -> None:
        if self.wal_full and not self.standby:
            self.kill()
            return
        self.ready, self.in_recovery = True, self.standby
        if self.standby:
            self.receiver.start()
            self.receiver.spawn(self._receive())
        else:
            self._begins_to_serve()
        self.on_change()

    def _begins_to_serve(self) -> None:
        shared = self._shared
        shared.served.append(self.node_id)
        ready = sum(
            database.writable and not database.backends.frozen for database in shared.databases.values()
        )
        shared.most_writable = max(shared.most_writable, ready)

    # Writing

    def accepts_connections(self) -> bool:
        return self.answers and self.hung_since_s is None

    def write(self, row: Write, local: bool, answer: Answer) -> None:
        """In the process of a backend."""
        if not self.writable:
            answer(Kind.FAILED, 0, 0)
            return
        if self.wal_full:
            answer(Kind.UNKNOWN, 0, 0)
            self.kill()
            return
        branch = self.position.branch
        lsn = self.position.lsn + self._kernel.rng.randint(*ROW_BYTES)
        self.position = Position(branch, lsn)
        self._shared.rows.add(row, branch, lsn)
        if local:
            # It travels with the next write or ping: nobody waits for it, and it saves events.
            answer(Kind.ACKNOWLEDGED, branch.timeline, lsn)
            return
        if self._shared.required_acks:
            self._waiting.append((lsn, branch, answer))
        else:
            answer(Kind.ACKNOWLEDGED, branch.timeline, lsn)
        self._push_all()

    def _confirmed(self, stream: Stream, position: Position) -> None:
        if self.streams.get(stream.standby) is not stream or position.branch is not self.position.branch:
            return
        stream.flushed = max(stream.flushed, position.lsn)
        if not self._waiting:
            return
        needed = self._shared.required_acks
        flushed = sorted((s.flushed for s in self.streams.values()), reverse=True)
        safe = flushed[needed - 1] if len(flushed) >= needed else 0
        waiting, self._waiting = self._waiting, []
        for lsn, branch, answer in waiting:
            if lsn <= safe:
                answer(Kind.ACKNOWLEDGED, branch.timeline, lsn)
            else:
                self._waiting.append((lsn, branch, answer))

    # Sending the log

    def _accept_standby(self, standby: str, position: Position) -> Flow:
        if self.postmaster_frozen:
            yield Future()
        if not self.ready or not self.position.contains(position.branch, position.lsn):
            return None
        stream = self.streams[standby] = Stream(self, standby)
        self._push(stream)
        return stream

    def _push_all(self) -> None:
        for stream in self.streams.values():
            self._push(stream)

    def _push(self, stream: Stream) -> None:
        standby, position = self._shared.databases[stream.standby], self.position
        size = 100 + max(0, min(position.lsn - stream.flushed, 100_000)) if stream.flushed else 200
        self._shared.network.send(
            self.node_id,
            stream.standby,
            standby.receiver.do,
            standby.received,
            stream,
            position,
            size=size,
        )

    def _reset(self, stream: Stream) -> None:
        """The standby's end of the connection learns that this end is gone, unless nothing gets through."""
        standby = self._shared.databases[stream.standby]
        if self._shared.network.how_cut(self.node_id, stream.standby) != "drop":
            self._kernel.after(0.001, standby.receiver.do, standby.disconnected, stream)

    # Receiving it

    def _receive(self) -> Flow:
        while True:
            if self.stream is None and not (yield from self._connect()):
                yield RECONNECT_S
                continue
            self._woken = woken = Future()
            self.receiver.after(PING_EVERY_S, woken.resolve)
            yield woken
            stream = self.stream
            if stream is None:
                continue
            if self._kernel.now_s - self.last_message_s > RECEIVER_TIMEOUT_S:
                self.disconnected(stream)
                continue
            upstream = stream.upstream
            self._shared.network.send(
                self.node_id,
                upstream.node_id,
                upstream.backends.do,
                upstream._pinged,
                stream,
            )

    def _connect(self) -> Flow:
        upstream = self._shared.databases.get(self.upstream or "")
        if upstream is None or self.wal_full:
            return False
        stream = yield self._shared.network.call(
            self.node_id,
            upstream.backends,
            lambda: upstream._accept_standby(self.node_id, self.position),
            2.0,
        )
        if stream is None or self.upstream != upstream.node_id or not self.in_recovery:
            return False
        self.stream, self.last_message_s = stream, self._kernel.now_s
        return True

    def _pinged(self, stream: Stream) -> None:
        if self.streams.get(stream.standby) is stream:
            self._push(stream)

    def received(self, stream: Stream, position: Position) -> None:
        """In the process of the receiver: what came of the log is on disk, and confirmed."""
        if stream is not self.stream:
            return
        self.last_message_s = self._kernel.now_s
        if self.wal_full:
            self.disconnected(stream)
            return
        own = self.position
        if position.contains(own.branch, own.lsn) and position != own:
            self.position = position
            self._push_all()
        upstream = stream.upstream
        self._shared.network.send(
            self.node_id,
            upstream.node_id,
            upstream.backends.do,
            upstream._confirmed,
            stream,
            self.position,
            size=100,
        )

    def disconnected(self, stream: Stream) -> None:
        if stream is self.stream:
            self.stream = None
            self._woken.resolve()

    def _links_changed(self) -> None:
        stream, network = self.stream, self._shared.network
        if stream is None:
            return
        ends = (self.node_id, stream.upstream.node_id)
        if "refuse" in (network.how_cut(*ends), network.how_cut(*ends[::-1])):
            self.receiver.do(self.disconnected, stream)

    # What the agent does to it

    def follow(self, upstream: str | None) -> None:
        """None: receive from nobody."""
        self.upstream = upstream
        self._reload()

    def _reload(self) -> None:
        """The postmaster tells the backends' recovery, which stops the receiver; each once it runs."""
        if not self.postmaster_frozen:
            self.backends.do(self.receiver.do, self._leave_former)

    def _leave_former(self) -> None:
        if self.stream is not None and self.stream.upstream.node_id != self.upstream:
            self.disconnected(self.stream)

    def promote(self) -> None:
        if not self.answers or not self.in_recovery:
            return
        old = self.position
        branch = Branch(old.branch.timeline + 1, self.node_id, parent=old.branch, fork_lsn=old.lsn)
        self.position = Position(branch, old.lsn)
        self.in_recovery = self.standby = False
        self.upstream = self.stream = None
        self.receiver.kill()
        self._shared.promotions.append(
            Promotion(node_id=self.node_id, timeline=branch.timeline, lsn=branch.fork_lsn)
        )
        self._begins_to_serve()
        self._push_all()
        self.on_change()

    def rewind_to(self, upstream: Database) -> None:
        """As pg_rewind leaves it: the upstream's history, kept as a standby."""
        self.position = upstream.position
        self.standby = True


Databases = Mapping[str, Database]
