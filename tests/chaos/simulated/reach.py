"""What runs and the guardian can reach of the world, and how they ask every agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from qnwis.continuity.evidence import ClusterEvidence, NodeEvidence, NodeState, with_degraded
from qnwis.continuity.policy import Policy
from qnwis.continuity.topology import Cluster, NodeStatus
from qnwis.providers.evidence import STATE_TIMEOUT_S, status_of

from .kernel import Flow, Kernel, Process
from .machine import moment
from .nameserver import Nameserver
from .network import Network
from .node import Node


@dataclass(frozen=True)
class Place:
    """What a run can reach, and what it is told of it."""

    kernel: Kernel
    network: Network
    nodes: Mapping[str, Node]
    nameserver: Nameserver
    worker: Process
    cluster: Cluster
    policy: Policy
    fences: bool = True
    """False: the mistake of taking the old primary for fenced without asking anybody."""
    checks_target: bool = True
    """False: the mistake of promoting whoever was chosen, whatever its log lacks by then."""

    def now(self) -> float:
        return self.kernel.now_s


def collect(place: Place, party: str) -> Flow:
    """What every agent says now, asked from that party."""
    taken_at = moment(place.now())
    calls = [
        place.network.call(party, node.agent_process, partial(_state, node), STATE_TIMEOUT_S)
        for node in place.nodes.values()
    ]
    seen = []
    for node, call in zip(place.cluster.nodes, calls, strict=True):
        state = yield call
        known = isinstance(state, NodeState)
        seen.append(
            NodeEvidence(
                node_id=node.node_id,
                status=status_of(node, state) if known else NodeStatus.UNKNOWN,
                source=f"agent {node.node_id}",
                observed_at=moment(place.now()),
                state=state if known else None,
                error=None if known else "no answer",
            )
        )
    evidence = ClusterEvidence(cluster_id=place.cluster.cluster_id, nodes=tuple(seen), taken_at=taken_at)
    return with_degraded(place.cluster, evidence)


def _state(node: Node) -> object:
    return node.agent.state()
