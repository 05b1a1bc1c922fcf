"""The world of one story: every part wired, and every operation done to it."""

from __future__ import annotations

from dataclasses import dataclass

from qnwis.continuity.evidence import ClusterEvidence, current_primary
from qnwis.continuity.lease_messages import LeaseTerms
from qnwis.continuity.orders import RejoinOrder
from qnwis.continuity.topology import NodeRole, ReplicationMode
from tests.chaos.parties import VANTAGES, expand
from tests.chaos.story import (
    ClockJump,
    Cut,
    Disk,
    Execute,
    Link,
    Operation,
    Place,
    Slow,
    Story,
    Word,
)

from .agent_leases import first_records
from .clients import Clients
from .cluster import policy, topology
from .database import Database, Shared
from .guardian import Guardian
from .kernel import Flow, Kernel, Process
from .log import Branch, Rows
from .machine import Disk as StateDisk
from .nameserver import Nameserver
from .network import Network
from .node import Node
from .reach import Place as Reach
from .reach import collect
from .region_guardian import RegionGuardian
from .temporal import Temporal
from .vantage import Vantage

TERMS = LeaseTerms(duration_s=2.5, renew_every_s=0.9)
"""As in the lab, but renewed less often, which takes longer to be played."""
LOG_BEGINS = 1000
OPERATOR = "operator"
"""Where people sit: no story cuts them off."""


@dataclass(frozen=True)
class Mistakes:
    """What to break on purpose, to see whether the checker finds it."""

    no_guard: bool = False
    no_fence: bool = False
    any_target: bool = False
    receivers_go_on: bool = False


class World:
    def __init__(self, story: Story, seed: int, begin_s: float, mistakes: Mistakes) -> None:
        self.story = story
        self.kernel = kernel = Kernel(seed, begin_s)
        self.network = network = Network(kernel)
        self.cluster, self.policy = topology(story.cluster), policy(story.cluster)
        synchronous = story.cluster.replication is ReplicationMode.SYNCHRONOUS
        self.shared = Shared(kernel, network, Rows(), story.cluster.required_acks if synchronous else 0)
        self.nodes: dict[str, Node] = {}
        self._make_nodes(mistakes)
        self.nameserver = Nameserver(kernel, "node-1")
        self.temporal = Temporal(kernel, network)
        reach = Reach(
            kernel,
            network,
            self.nodes,
            self.nameserver,
            self.temporal.worker,
            self.cluster,
            self.policy,
            fences=not mistakes.no_fence,
            checks_target=not mistakes.any_target,
        )
        self._reach = reach
        self.guardian = Guardian(reach, self.temporal)
        self.vantages = {
            name: Vantage(
                kernel,
                network,
                name,
                self.nodes,
                self.cluster,
                self.temporal,
                self.guardian,
            )
            for name in VANTAGES
        }
        self.clients = Clients(kernel, network, self.shared.databases, self.nameserver)
        self._operator = Process(kernel, OPERATOR)
        self._operator.start()

    def _make_nodes(self, mistakes: Mistakes) -> None:
        members, origin = tuple(sorted(self.story.cluster.nodes)), Branch(1, "node-1")
        for node in self.cluster.nodes:
            database = Database(self.shared, node.node_id, origin, LOG_BEGINS) if node.holds_data else None
            if database is not None and node.role is not NodeRole.PRIMARY:
                database.standby, database.upstream = True, "node-1"
            self.nodes[node.node_id] = made = Node(
                self.kernel,
                self.network,
                node.node_id,
                node.role,
                TERMS,
                StateDisk(*first_records(node.node_id, members)),
                database,
                self.nodes,
            )
            made.on_event = self._agent_tells
            made.holds_receiver = not mistakes.receivers_go_on
            if mistakes.no_guard and database is not None:
                made.guard.end_all = lambda: None  # type: ignore[method-assign]

    def start(self) -> None:
        """Every part but the clients."""
        for node in self.nodes.values():
            node.start()
            if node.database is not None and node.database.standby:
                node.database.start()
        self.temporal.server.start()
        self.temporal.worker.start()
        for vantage in self.vantages.values():
            vantage.start()
        self.temporal.begin(self.guardian.flow())
        if (rules := self.story.cluster.region_guardian) is not None:
            self.temporal.begin(RegionGuardian(self._reach, rules, self.guardian).flow())

    def _agent_tells(self, node: Node) -> None:
        for vantage in self.vantages.values():
            vantage.hears(node)

    # Operations

    def do(self, operation: Operation) -> None:
        network, nodes = self.network, self.story.cluster.nodes
        match operation.verb, operation.what:
            case "kill" | "start" | "freeze" | "thaw" as verb, Place() as place:
                for party in expand([place.party], nodes):
                    self._to_process(verb, party, place)
            case "cut", Cut() as cut:
                network.cut(cut.directed(nodes), cut.how)
            case "heal", Link() as link:
                network.heal(link.directed(nodes))
            case "slow", Slow() as slow:
                network.slow(slow.directed(nodes), slow.kbit_s)
            case "fast", Link() as link:
                network.fast(link.directed(nodes))
            case "fill_disk" | "free_disk" as verb, Disk() as disk:
                self._disk(disk, full=verb == "fill_disk")
            case "jump_clock", ClockJump() as jump:
                self.vantages[jump.party].wall_ahead_s += jump.by_s
            case "refuse_updates" | "take_updates" as verb, _:
                self.nameserver.takes_updates = verb == "take_updates"
            case "rejoin", str() as node_id:
                self._operator.spawn(self._rejoin(node_id))
            case verb, Word() as word:
                self._people(verb, word)
            case verb, what:
                raise AssertionError((verb, what))

    def _to_process(self, verb: str, party: str, place: Place) -> None:
        if party in self.nodes:
            node = self.nodes[party]
            if verb == "start":
                node.start()
            else:
                getattr(node, verb)(place.part)
            return
        if party == "worker":
            self._to_process(verb, "vantage-1", place)  # stands in the worker
        process = self._process(party)
        match verb:
            case "start" if party in self.vantages and not process.alive:
                process.start()
            case "start" if party == "clients" and not process.alive:
                self.clients.start()
            case "start" if not process.alive:
                process.start()
            case "kill" | "freeze" | "thaw":
                getattr(process, verb)()
        self.kernel.after(0.001, self.temporal.resume)

    def _process(self, party: str) -> Process:
        match party:
            case "temporal":
                return self.temporal.server
            case "worker":
                return self.temporal.worker
            case "dns":
                return self.nameserver.process
            case "clients":
                return self.clients.process
        return self.vantages[party].process

    def _disk(self, disk: Disk, *, full: bool) -> None:
        for party in expand([disk.party], self.story.cluster.nodes):
            node = self.nodes[party]
            if disk.disk == "agent":
                node.disk.full = full
            elif node.database is not None:
                node.database.wal_full = full

    def _people(self, verb: str, word: Word) -> None:
        match verb:
            case "execute":
                healthy = isinstance(word, Execute) and word.even_if_healthy
                self.guardian.execute(word.by, word.reason, even_if_healthy=healthy)
            case "pause":
                self.guardian.pause(word.by, word.reason)
            case "resume":
                self.guardian.resume()
            case "approve":
                self.guardian.approve()

    def _rejoin(self, node_id: str) -> Flow:
        """As the command does it: to the primary that accepts writes now, under its epoch."""
        evidence: ClusterEvidence = yield from collect(self._reach, OPERATOR)
        primary = current_primary(self.cluster, evidence)
        state = evidence.of(primary).state if primary in self.nodes and primary else None
        if primary is None or state is None or not state.writable or primary == node_id:
            return
        node = self.nodes[node_id]
        name = node.disk.unused(f"rejoin-{node_id}")
        order = RejoinOrder(effect_id=name, run_id=name, epoch=state.epoch, upstream=primary)
        yield self.network.call(OPERATOR, node.agent_process, lambda: node.agent.orders.obey(order), 60.0)
