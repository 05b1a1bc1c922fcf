"""How one cluster leaves a region: by a switchover while its primary serves, else by a failover. And back."""

from __future__ import annotations

from .detection import contradiction
from .evidence import ClusterEvidence, current_primary
from .http_service import http_region_refusal
from .planner import Planning, make_plan
from .policy import Policy
from .region_plan import Direction, Move
from .regions import Candidate
from .run import Maintenance
from .switchover import make_switchover
from .targets import rank, survey
from .topology import Cluster, NodeRole


def leave(
    cluster: Cluster, policy: Policy, evidence: ClusterEvidence, region: str, *, reason: str
) -> Candidate | None:
    """The cluster's move out of the region, or why it cannot go; None where its primary is elsewhere.

    A cluster of whose primary nobody knows where it is cannot go.
    """
    primary = current_primary(cluster, evidence)
    inside = {node.node_id for node in cluster.nodes if node.region == region}
    if not inside or (primary is not None and primary not in inside):
        return None
    state = evidence.of(primary).state if primary is not None else None
    serves = state is not None and state.writable
    if (refusal := http_region_refusal(cluster)) is not None:
        return Candidate(
            cluster_id=cluster.cluster_id,
            priority=policy.evacuation_priority,
            how=Move.SWITCHOVER if serves else Move.FAILOVER,
            plan=None,
            refusal=refusal,
        )
    planning = (
        _switchover(cluster, policy, evidence, region, primary or "", reason)
        if serves
        else make_plan(cluster, policy, evidence, trigger_reason=reason, leaving=region)
    )
    return Candidate(
        cluster_id=cluster.cluster_id,
        priority=policy.evacuation_priority,
        how=Move.SWITCHOVER if serves else Move.FAILOVER,
        plan=planning.plan,
        refusal=planning.refusal,
        predicted_loss_bytes=planning.predicted_loss_bytes,
    )


def come_back(
    cluster: Cluster, policy: Policy, evidence: ClusterEvidence, region: str, *, reason: str
) -> Candidate | None:
    """The cluster's way back to the node that its topology names as the primary, or why it cannot go now; of
    a region by Patroni, to whichever member leads it. None where that is in another region, or its service is
    in this one already."""
    home = next((node for node in cluster.nodes if node.role is NodeRole.PRIMARY), None)
    primary = current_primary(cluster, evidence)
    inside = {node.node_id for node in cluster.nodes if node.region == region}
    heard = any(one.state is not None for one in evidence.nodes)  # else the topology's word is no evidence
    if home is None or home.region != region or (heard and primary in inside):
        return None
    if (refusal := http_region_refusal(cluster)) is not None:
        return Candidate(
            cluster_id=cluster.cluster_id,
            priority=policy.evacuation_priority,
            how=Move.SWITCHOVER,
            plan=None,
            refusal=refusal,
        )
    leads = _leader_of(cluster, evidence, region) if cluster.by_patroni else None
    wanted = Maintenance(target_node_id=leads or home.node_id)
    planning = make_switchover(cluster, policy, evidence, wanted, trigger_reason=reason)
    return Candidate(
        cluster_id=cluster.cluster_id,
        priority=policy.evacuation_priority,
        how=Move.SWITCHOVER,
        plan=planning.plan,
        refusal=planning.refusal,
        predicted_loss_bytes=planning.predicted_loss_bytes,
    )


def answering_in(cluster: Cluster, evidence: ClusterEvidence, region: str) -> tuple[str, ...]:
    """The cluster's nodes in the region whose agents answer now, or that a standby still hears, each as
    `<cluster_id>/<node_id>`."""
    return tuple(
        f"{cluster.cluster_id}/{node.node_id}"
        for node in cluster.nodes
        if node.region == region
        and (evidence.of(node.node_id).state is not None or contradiction(node, evidence) is not None)
    )


def unmoved(
    cluster: Cluster, evidence: ClusterEvidence, region: str, direction: Direction = Direction.OUT
) -> str | None:
    """Why the cluster is not where it was to go; None once one node alone accepts writes, and is there."""
    writable = [e.node_id for e in evidence.nodes if e.state is not None and e.state.writable]
    if len(writable) != 1:
        return f"writable are {writable}, expected exactly one node"
    region_now = cluster.node(writable[0]).region
    there = (region_now == region) is (direction is Direction.BACK)
    return None if there else f"{writable[0]} serves, and is in {region_now}"


def _leader_of(cluster: Cluster, evidence: ClusterEvidence, region: str) -> str | None:
    states = [evidence.of(node.node_id).state for node in cluster.in_region(region)]
    words = [state.patroni for state in states if state is not None and state.patroni is not None]
    return next((word.leader for word in words if word.leader is not None), None)


def _switchover(
    cluster: Cluster, policy: Policy, evidence: ClusterEvidence, region: str, primary: str, reason: str
) -> Planning:
    """To the best node elsewhere; where there is none, planning for any says why."""
    candidates = rank(survey(cluster, policy, evidence, primary, leaving=region))
    best = next((candidate.node_id for candidate in candidates if candidate.eligible), None)
    if best is None:
        return make_plan(cluster, policy, evidence, trigger_reason=reason, leaving=region)
    return make_switchover(cluster, policy, evidence, Maintenance(target_node_id=best), trigger_reason=reason)
