"""Quorum: whether enough nodes answer for the cluster to decide anything, and the state that follows.

Source: specification, "Quorum Calculation" and "Cluster State Machine". The size, floor(N / 2) + 1 or the
topology's own, is `Cluster.quorum`.
"""

from __future__ import annotations

from enum import StrEnum

from .evidence import ClusterEvidence
from .model import Model
from .policy import Policy, Strategy
from .topology import Cluster, NodeStatus

VOTING = frozenset({NodeStatus.HEALTHY, NodeStatus.DEGRADED})
"""A degraded node is operational and votes; a failed or unknown one does not."""


class ClusterState(StrEnum):
    HEALTHY = "healthy"  # every node is healthy
    DEGRADED = "degraded"  # some are not, the quorum is there
    CRITICAL = "critical"  # no quorum: no writes


class QuorumView(Model):
    """The count of a cluster's votes, from one evidence."""

    total_nodes: int
    healthy_nodes: int
    voting_nodes: int
    """Healthy and degraded nodes, witnesses included."""
    quorum_size: int
    has_quorum: bool
    state: ClusterState
    ratio: float
    """Share of the nodes that vote, 0 to 1."""

    @property
    def margin(self) -> int:
        """Votes beyond the quorum; negative when they are missing."""
        return self.voting_nodes - self.quorum_size


def assess(cluster: Cluster, evidence: ClusterEvidence) -> QuorumView:
    """Count the votes of the cluster's nodes. A node without evidence is unknown and does not vote."""
    seen = {e.node_id: e.status for e in evidence.nodes}
    statuses = [seen.get(node.node_id, NodeStatus.UNKNOWN) for node in cluster.nodes]
    total = len(statuses)
    healthy = statuses.count(NodeStatus.HEALTHY)
    voting = sum(status in VOTING for status in statuses)
    has_quorum = voting >= cluster.quorum
    if not has_quorum:
        state = ClusterState.CRITICAL
    elif healthy == total:
        state = ClusterState.HEALTHY
    else:
        state = ClusterState.DEGRADED
    return QuorumView(
        total_nodes=total,
        healthy_nodes=healthy,
        voting_nodes=voting,
        quorum_size=cluster.quorum,
        has_quorum=has_quorum,
        state=state,
        ratio=voting / total if total else 0.0,
    )


def demands_quorum(policy: Policy) -> bool:
    """Whether the policy lets nothing happen without quorum; `quorum_based` always does."""
    return policy.require_quorum or policy.strategy is Strategy.QUORUM_BASED
