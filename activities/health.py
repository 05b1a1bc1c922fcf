"""Watching a cluster from one vantage: one long activity that returns only when a node's status changes.

So a guardian's history grows with events and not with probes. The counters live in heartbeat details: an
attempt that follows a worker's death goes on from them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from time import monotonic

from temporalio import activity

from qnwis.config.registry import Registry
from qnwis.continuity.heartbeat import NodeDetector, next_beat_s, observe
from qnwis.continuity.model import Identifier, Model
from qnwis.continuity.topology import Cluster, Node, NodeStatus
from qnwis.providers.errors import Unreachable
from qnwis.providers.nodes import Nodes

LIVE, READY, DEEP = "/health/live", "/health/ready", "/health/deep"
BUDGET_MS = {LIVE: 100.0, READY: 200.0, DEEP: 500.0}
"""In what time each health question is expected to be answered. Late is reported, and never a miss."""
READY_EVERY = 2
"""Beats between two readiness checks."""
DEEP_EVERY = 6
"""Beats between two deep checks."""
STALL_FACTOR = 2.0
"""A beat that comes later than this many intervals says that the watcher itself was stalled."""


class WatchRequest(Model):
    cluster_id: Identifier
    vantage: Identifier
    detectors: Mapping[str, NodeDetector] = {}
    """What this vantage knew when its last watch returned."""


class Answer(Model):
    """The last answer to one health question."""

    ok: bool
    latency_ms: float
    within_budget: bool
    error: str | None = None


class NodeVote(Model):
    """What one vantage says of one node."""

    detector: NodeDetector
    first_miss_at: datetime | None = None
    health: Mapping[str, Answer] = {}
    """By health path. For people: the detector alone decides."""


class WatchReport(Model):
    vantage: str
    votes: dict[str, NodeVote]
    at: datetime
    cluster_changed: bool = False
    """The registered topology is another one than at the start of this watch."""


class Health:
    def __init__(self, registry: Registry, nodes: Nodes) -> None:
        self._registry = registry
        self._nodes = nodes

    @activity.defn
    async def watch(self, request: WatchRequest) -> WatchReport:
        """Beat until a node's status differs from the request's, or the registered topology changes."""
        cluster = self._registry.load(request.cluster_id).cluster
        watch = _Watch(request, cluster, self._nodes)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(watch.node(node)) for node in cluster.nodes]
            running.append(tasks.create_task(watch.heartbeat()))
            running.append(tasks.create_task(self._topology_changes(cluster, watch)))
            await watch.changed.wait()
            for task in running:
                task.cancel()
        return watch.report()

    async def _topology_changes(self, cluster: Cluster, watch: _Watch) -> None:
        while True:
            await asyncio.sleep(cluster.heartbeat.interval_sec)
            if (await asyncio.to_thread(self._registry.load, cluster.cluster_id)).cluster != cluster:
                watch.cluster_changed = True
                watch.changed.set()


class _Watch:
    """One attempt of one watch: a task per node, a detector per node, one event that ends it."""

    def __init__(self, request: WatchRequest, cluster: Cluster, nodes: Nodes) -> None:
        self._request = request
        self._config = cluster.heartbeat
        self._nodes = nodes
        self.changed = asyncio.Event()
        self.cluster_changed = False
        carried = _carried_over(request)
        self._votes = {
            n.node_id: carried.get(n.node_id, NodeVote(detector=NodeDetector())) for n in cluster.nodes
        }
        self._told = {node_id: d.status for node_id, d in request.detectors.items()}

    def report(self) -> WatchReport:
        return WatchReport(
            vantage=self._request.vantage,
            votes=self._votes,
            at=datetime.now(UTC),
            cluster_changed=self.cluster_changed,
        )

    async def heartbeat(self) -> None:
        while True:
            activity.heartbeat({name: vote.model_dump(mode="json") for name, vote in self._votes.items()})
            await asyncio.sleep(1.0)

    async def node(self, node: Node) -> None:
        """Beat one node. When its event stream breaks, the next beat is sent at once."""
        poked = asyncio.Event()
        tripwire = asyncio.create_task(self._tripwire(node, poked))
        started, beat = monotonic(), 0
        try:
            while True:
                await self._beat(node, beat)
                beat += 1
                due = started + next_beat_s(self._config, f"{self._request.vantage}/{node.node_id}", beat)
                late_s = monotonic() - due
                if late_s > STALL_FACTOR * self._config.interval_sec:
                    # This process was stalled, and so would be every miss it counts now: begin a new count.
                    started, beat = monotonic(), 0
                    continue
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(poked.wait(), timeout=max(0.0, -late_s))
                if poked.is_set():
                    poked.clear()
                    started, beat = monotonic(), 0
        finally:
            tripwire.cancel()

    async def _beat(self, node: Node, beat: int) -> None:
        ok = await self._ask(node, LIVE)
        if ok and beat % READY_EVERY == 0:
            ok = await self._ask(node, READY) or not await self._database_is_down(node)
        if ok and beat % DEEP_EVERY == 0:
            await self._ask(node, DEEP)
        self._observe(node.node_id, ok)

    async def _ask(self, node: Node, path: str) -> bool:
        probe = await self._nodes.probe(node, path, timeout_s=self._config.timeout_sec)
        answer = Answer(
            ok=probe.ok,
            latency_ms=round(probe.latency_ms, 1),
            within_budget=probe.latency_ms <= BUDGET_MS[path],
            error=probe.error,
        )
        vote = self._votes[node.node_id]
        self._votes[node.node_id] = vote.model_copy(update={"health": {**vote.health, path: answer}})
        return probe.ok

    async def _database_is_down(self, node: Node) -> bool:
        """Not ready is not down (connections may be exhausted); only the agent's own word for it is."""
        try:
            state = await self._nodes.state(node, timeout_s=self._config.timeout_sec)
        except Unreachable:
            return False
        return node.holds_data and not state.database_up

    def _observe(self, node_id: str, ok: bool) -> None:
        vote = self._votes[node_id]
        detector = observe(vote.detector, ok, self._config)
        first_miss_at = None if ok else vote.first_miss_at or datetime.now(UTC)
        changes = {"detector": detector, "first_miss_at": first_miss_at}
        self._votes[node_id] = vote.model_copy(update=changes)
        if detector.status is not self._told.get(node_id, NodeStatus.UNKNOWN):
            self.changed.set()

    async def _tripwire(self, node: Node, poked: asyncio.Event) -> None:
        """Hold the agent's event stream open; when it breaks, or tells of a database gone, poke the beat.

        A stream that cannot be opened pokes nothing: each poke is one more beat, and a node's misses must
        not come faster than its detector's interval.
        """
        while True:
            opened = False
            with contextlib.suppress(Unreachable):
                async for event in self._nodes.events(node):
                    if opened and not event.database_up and node.holds_data:
                        poked.set()
                    opened = True
            if opened:
                poked.set()
            await asyncio.sleep(self._config.interval_sec)


def _carried_over(request: WatchRequest) -> dict[str, NodeVote]:
    """Counters of an earlier attempt of this watch, else of the watch before."""
    details = activity.info().heartbeat_details
    if details:
        return {node_id: NodeVote.model_validate(vote) for node_id, vote in details[0].items()}
    return {node_id: NodeVote(detector=detector) for node_id, detector in request.detectors.items()}
