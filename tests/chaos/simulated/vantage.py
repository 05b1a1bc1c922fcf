"""A vantage: beats every node with the real detector, and reports when a status changes.

As `activities/beats.py` has it, and the server's part: a vantage that is not heard from for a while loses its
say, and watches anew when it is back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Protocol

from qnwis.continuity.detection import Word, own_word
from qnwis.continuity.evidence import NodeState
from qnwis.continuity.heartbeat import (
    NodeDetector,
    NodeStatus,
    next_beat_s,
    observe,
    observe_end,
)
from qnwis.continuity.topology import Cluster

from .cluster import HEARTBEAT
from .kernel import Flow, Kernel, Process
from .network import Network
from .node import Node
from .temporal import Temporal

READY_EVERY = 2
SETTLED_WITHIN_S, SETTLE_EVERY_S = 0.5, 0.05
SILENT_S = 4.0
HEARD_EVERY_S = 1.5
REPORT_AGAIN_S = 0.3
HEARD_S = 0.003
UNKNOWN = NodeDetector()


@cache
def _next_beat_s(vantage: str, node_id: str, beat: int) -> float:
    """The same in each story."""
    return next_beat_s(HEARTBEAT, f"{vantage}/{node_id}", beat)


class Sight(Enum):
    ANSWER = "answer"
    MISS = "miss"
    END = "end"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Vote:
    detector: NodeDetector
    missing_since_s: float | None = None
    """By the vantage's wall clock."""


Votes = Mapping[str, Vote]


class Hearer(Protocol):
    """The guardian."""

    def take(self, vantage: str, votes: Votes) -> None: ...

    def lost(self, vantage: str) -> None: ...


class Vantage:
    def __init__(
        self,
        kernel: Kernel,
        network: Network,
        name: str,
        nodes: Mapping[str, Node],
        cluster: Cluster,
        temporal: Temporal,
        hearer: Hearer,
    ) -> None:
        self.process = Process(kernel, name)
        self.process.on_kill.append(self._ended)
        self.name = name
        self.wall_ahead_s = 0.0
        self._kernel = kernel
        self._network = network
        self._nodes = nodes
        self._cluster = cluster
        self._temporal = temporal
        self._hearer = hearer
        self._watching = False
        self._heard_s = kernel.now_s
        self._votes: dict[str, Vote] = {}
        self._said: dict[str, NodeStatus] | None = None
        """Status of each node as it was last reported; None without a say."""
        self._began_s: dict[str, float] = {}
        """When beat 0 of each node was due."""
        self._turns: dict[str, int] = {}
        """Grows when the beats of a node begin anew."""
        self._reporting = False

    def start(self) -> None:
        self.process.start()
        self._watch_anew()
        self._kernel.after(HEARD_EVERY_S, self._listen)

    def hears(self, node: Node) -> None:
        """The agent's event stream breaks, or tells of a database gone: the next beat is sent at once."""
        if self._watching and self._network.open(node.node_id, self.name):
            self.process.after(HEARD_S, self._begin, node.node_id, True)

    # The server's part

    def _listen(self) -> None:
        """At the server: whether the watch is still heard from."""
        now_s, server = self._kernel.now_s, self._temporal.server
        if self._watching and self.process.runs and self._temporal.reachable_from(self.name):
            late = now_s - self._heard_s > SILENT_S
            self._heard_s = now_s
        else:
            late = server.runs and now_s - self._heard_s > SILENT_S
        if late:
            if self._said is not None:
                self._said = None
                self._hearer.lost(self.name)
            if self.process.runs and self._temporal.able and self._temporal.reachable_from(self.name):
                self._watch_anew()
        self._kernel.after(HEARD_EVERY_S, self._listen)

    def _watch_anew(self) -> None:
        self._watching, self._reporting, self._said = True, False, None
        self._heard_s = self._kernel.now_s
        self._votes = {}
        for node_id in self._nodes:
            self._begin(node_id, False)

    def _ended(self) -> None:
        self._watching = False

    # Beats

    def _begin(self, node_id: str, hurried: bool) -> None:
        self._began_s[node_id] = self._kernel.now_s
        self._turns[node_id] = self._turns.get(node_id, 0) + 1
        self.process.do(self._beat, node_id, 0, self._turns[node_id], hurried)

    def _beat(self, node_id: str, beat: int, turn: int, hurried: bool) -> None:
        if turn != self._turns[node_id] or not self._watching:
            return
        node, now_s = self._nodes[node_id], self._kernel.now_s
        if node.agent_process.runs and self._network.open(self.name, node_id):
            self._heard_from(node, beat, now_s, hurried)
        elif not node.agent_process.alive and self._network.how_cut(node_id, self.name) != "drop":
            self._observe(node_id, Sight.MISS, now_s)
        else:
            self.process.after(HEARTBEAT.timeout_sec, self._observe, node_id, Sight.MISS, now_s)
        began_s, beat = self._began_s[node_id], beat + 1
        due_s = began_s + _next_beat_s(self.name, node_id, beat)
        if due_s < now_s:  # of the beats that it slept through, only the next is made up for
            beat = int((now_s - began_s) / HEARTBEAT.interval_sec) + 1
            due_s = began_s + _next_beat_s(self.name, node_id, beat)
        self.process.after(max(0.0, due_s - now_s), self._beat, node_id, beat, turn, False)

    def _heard_from(self, node: Node, beat: int, began_s: float, hurried: bool) -> None:
        """The agent answers that it lives: is that enough?"""
        database, sure = node.database, self._is_sure_of(node.node_id)
        ready = database is None or database.accepts_connections()
        if sure and (ready or beat % READY_EVERY):
            return
        if ready:
            self._observe(node.node_id, Sight.ANSWER, began_s)
        else:
            self.process.spawn(self._ask_for_its_word(node, began_s, hurried))

    def _ask_for_its_word(self, node: Node, began_s: float, hurried: bool) -> Flow:
        patient_until_s = self._kernel.now_s + (SETTLED_WITHIN_S if hurried else 0.0)
        while True:
            state = yield self._network.call(
                self.name, node.agent_process, lambda: node.agent.state(), HEARTBEAT.timeout_sec
            )
            sight = Sight.ANSWER  # it answered that it lives; slow is not down
            if isinstance(state, NodeState):
                match own_word(self._cluster.node(node.node_id), state):
                    case Word.ENDED:
                        sight = Sight.END
                    case Word.RESTARTING:
                        sight = Sight.NOTHING
                    case Word.DOWN:
                        sight = Sight.MISS
                    case Word.UP:
                        pass
            if sight is not Sight.MISS or self._kernel.now_s >= patient_until_s:
                self._observe(node.node_id, sight, began_s)
                return
            yield SETTLE_EVERY_S

    def _is_sure_of(self, node_id: str) -> bool:
        """Whether it holds the node for healthy, and one more answer would change only the count of beats."""
        vote = self._votes.get(node_id)
        if vote is None:
            return False
        return vote.detector.status is NodeStatus.HEALTHY and not vote.detector.consecutive_misses

    def _observe(self, node_id: str, sight: Sight, began_s: float) -> None:
        """Of a beat during which this vantage itself stood still, nothing is said."""
        if sight is Sight.ANSWER and self._is_sure_of(node_id):
            return
        took_s = self._kernel.now_s - began_s
        if not self._watching or took_s > HEARTBEAT.timeout_sec * 2 + HEARTBEAT.stall_limit_s:
            return
        known = self._votes.get(node_id)
        was = known.detector if known is not None else UNKNOWN
        missing_s = known.missing_since_s if known is not None else None
        match sight:
            case Sight.ANSWER:
                self._votes[node_id] = Vote(observe(was, True, HEARTBEAT))
            case Sight.MISS | Sight.END:
                if sight is Sight.END:
                    seen = observe_end(was, HEARTBEAT, "ended")
                else:
                    seen = observe(was, False, HEARTBEAT, "no answer")
                since_s = self._kernel.now_s + self.wall_ahead_s if missing_s is None else missing_s
                self._votes[node_id] = Vote(seen, since_s)
            case Sight.NOTHING:
                self._votes.setdefault(node_id, Vote(was))
        self._report_if_due(node_id)

    def _report_if_due(self, node_id: str) -> None:
        if self._said is None:
            due = self._votes.keys() == self._nodes.keys()
        else:
            due = self._votes[node_id].detector.status is not self._said.get(node_id)
        if due and not self._reporting:
            self._reporting = True
            self.process.spawn(self._report())

    def _report(self) -> Flow:
        while not self._temporal.reachable_from(self.name):
            yield REPORT_AGAIN_S
        self._reporting = False
        self._said = {node_id: vote.detector.status for node_id, vote in self._votes.items()}
        self._hearer.take(self.name, dict(self._votes))
