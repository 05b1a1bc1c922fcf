"""A vantage: beats every node with the real detector, and reports when a status changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qnwis.continuity.heartbeat import HeartbeatConfig, NodeDetector, NodeStatus, next_beat_s, observe

from .kernel import Flow, Kernel, Process
from .network import Network
from .node import Node
from .temporal import Temporal

READY_EVERY = 2
REPORT_AGAIN_S = 0.3
HEARD_S = 0.003


@dataclass
class Watched:
    """What this vantage knows of one node."""

    detector: NodeDetector
    first_miss_s: float | None = None
    """By the vantage's wall clock."""
    began_s: float = 0.0
    """When beat 0 was due."""
    turn: int = 0
    """Grows when the beats begin anew."""


Votes = dict[str, Watched]
Take = Callable[[str, Votes], None]


class Vantage:
    def __init__(
        self,
        kernel: Kernel,
        network: Network,
        name: str,
        nodes: Mapping[str, Node],
        config: HeartbeatConfig,
        temporal: Temporal,
        take: Take,
    ) -> None:
        self.process = Process(kernel, name)
        self.name = name
        self.wall_ahead_s = 0.0
        self._kernel = kernel
        self._network = network
        self._nodes = nodes
        self._config = config
        self._temporal = temporal
        self._take = take
        self._watched: Votes = {}
        self._reporting = False

    def start(self) -> None:
        self.process.start()
        self._reporting = False
        for node_id in self._nodes:
            known = self._watched.get(node_id)
            self._watched[node_id] = Watched(known.detector if known else NodeDetector())
            self._begin(node_id)

    def hears(self, node: Node) -> None:
        """The agent's event stream breaks, or tells that the database is gone: the next beat is sent at once."""
        if self._network.open(node.node_id, self.name):
            self.process.after(HEARD_S, self._begin, node.node_id)

    def _begin(self, node_id: str) -> None:
        watched = self._watched[node_id]
        watched.began_s, watched.turn = self._kernel.now_s, watched.turn + 1
        self._beat(node_id, 0, watched.turn)

    def _beat(self, node_id: str, beat: int, turn: int) -> None:
        watched = self._watched[node_id]
        if turn != watched.turn:
            return
        node = self._nodes[node_id]
        refused = not node.agent_process.alive and self._network.how_cut(node_id, self.name) != "drop"
        if self._answers(node, ready=beat % READY_EVERY == 0):
            self._observe(node_id, True)
        elif refused:
            self._observe(node_id, False)
        else:
            self.process.after(self._config.timeout_sec, self._observe, node_id, False)
        due_s = watched.began_s + next_beat_s(self._config, f"{self.name}/{node_id}", beat + 1)
        late_s = self._kernel.now_s - due_s
        if late_s > 2 * self._config.interval_sec:
            watched.began_s, beat = self._kernel.now_s, -1
            due_s = self._kernel.now_s + self._config.interval_sec
        self.process.after(max(0.0, due_s - self._kernel.now_s), self._beat, node_id, beat + 1, turn)

    def _answers(self, node: Node, *, ready: bool) -> bool:
        if not (node.agent_process.runs and self._network.open(self.name, node.node_id)):
            return False
        database = node.database
        if database is None or not ready:
            return True
        # One that hangs keeps its agent from answering, and is not known to be down.
        return database.answers or database.backends.frozen

    def _observe(self, node_id: str, ok: bool) -> None:
        watched = self._watched[node_id]
        was = watched.detector
        if ok and was.status is NodeStatus.HEALTHY and not was.consecutive_misses:
            return
        watched.detector = observe(was, ok, self._config)
        if ok:
            watched.first_miss_s = None
        elif watched.first_miss_s is None:
            watched.first_miss_s = self._kernel.now_s + self.wall_ahead_s
        if watched.detector.status is not was.status and not self._reporting:
            self._reporting = True
            self.process.spawn(self._report())

    def _report(self) -> Flow:
        while not self._temporal.reachable_from(self.name):
            yield REPORT_AGAIN_S
        self._reporting = False
        self._take(self.name, {n: Watched(w.detector, w.first_miss_s) for n, w in self._watched.items()})
