"""Collecting evidence: what every node's agent says now. Fetching only; deciding is the domain's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from time import monotonic

from qnwis.continuity.evidence import ClusterEvidence, NodeEvidence, NodeState, with_degraded
from qnwis.continuity.patroni import with_upstreams
from qnwis.continuity.topology import Cluster, Node, NodeStatus

from .errors import Unreachable
from .nodes import Nodes

STATE_TIMEOUT_S = 0.8
"""An agent on a healthy node answers in milliseconds; a run must not wait longer for a dead one."""


STALLED_S = 0.2
"""So long this process stood still while it waited: a silence may then be its own doing."""
TICK_S = 0.05


async def collect_evidence(nodes: Nodes, cluster: Cluster) -> ClusterEvidence:
    """What every agent says now, in the topology's order. Where some are silent and this process stood still
    meanwhile, as under the load of many runs, they are asked once more: a dead node stays silent."""
    stood_still = Stall()
    async with stood_still.watched():
        evidence = await _collect(nodes, cluster)
    silent = any(one.state is None for one in evidence.nodes)
    return await _collect(nodes, cluster) if silent and stood_still.longest_s > STALLED_S else evidence


class Stall:
    """For how long the event loop did nothing at a time."""

    longest_s = 0.0

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        self._ticked = monotonic()
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            self._note()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._note()

    def _note(self) -> None:
        now = monotonic()
        self.longest_s = max(self.longest_s, now - self._ticked - TICK_S)
        self._ticked = now


async def _collect(nodes: Nodes, cluster: Cluster) -> ClusterEvidence:
    taken_at = datetime.now(UTC)
    answers = await asyncio.gather(*(_ask(nodes, node) for node in cluster.nodes))
    evidence = ClusterEvidence(cluster_id=cluster.cluster_id, nodes=tuple(answers), taken_at=taken_at)
    return with_upstreams(cluster, evidence) if cluster.by_patroni else with_degraded(cluster, evidence)


async def _ask(nodes: Nodes, node: Node) -> NodeEvidence:
    started = monotonic()
    source = source_of(node)
    try:
        state = await nodes.state(node, timeout_s=STATE_TIMEOUT_S)
    except Unreachable as error:
        return NodeEvidence(
            node_id=node.node_id,
            status=NodeStatus.UNKNOWN,
            source=source,
            observed_at=datetime.now(UTC),
            error=str(error),
        )
    return NodeEvidence(
        node_id=node.node_id,
        status=status_of(node, state),
        source=source,
        observed_at=datetime.now(UTC),
        state=state,
        latency_ms=(monotonic() - started) * 1000,
    )


def source_of(node: Node) -> str:
    """Who speaks of the node."""
    if node.patroni is not None:
        return f"patroni {node.patroni.url}"
    if node.http is not None:
        return f"application {node.http.state.url_of(node.node_id, node.hostname)}"
    return f"agent {node.agent_url}"


def status_of(node: Node, state: NodeState) -> NodeStatus:
    """By its own word alone. Healthy: its database is up. Failed: its own agent says that it is down."""
    if not node.holds_data:
        return NodeStatus.HEALTHY
    if not state.database_up:
        return NodeStatus.FAILED
    return NodeStatus.HEALTHY
