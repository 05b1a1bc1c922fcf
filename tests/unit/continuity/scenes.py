"""The clusters and evidence that the domain's tests share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from qnwis.continuity.evidence import ClusterEvidence, NodeEvidence, NodeState
from qnwis.continuity.orders import FencingEvidence, FencingEvidenceType
from qnwis.continuity.plan import Plan
from qnwis.continuity.planner import make_plan
from qnwis.continuity.policy import Policy
from qnwis.continuity.topology import (
    Cluster,
    Node,
    NodeRole,
    NodeStatus,
    Replication,
    ReplicationMode,
)

NOON = datetime(2025, 1, 11, 12, 0, tzinfo=UTC)
HEALTHY, DEGRADED, FAILED, UNKNOWN = (
    NodeStatus.HEALTHY,
    NodeStatus.DEGRADED,
    NodeStatus.FAILED,
    NodeStatus.UNKNOWN,
)
SYNCHRONOUS = Replication(mode=ReplicationMode.SYNCHRONOUS)


def node(node_id: str, role: str = "secondary", region: str = "region-1", **fields: Any) -> Node:
    return Node(
        **{"hostname": f"{node_id}.example", "site": "site-a", "status": HEALTHY, **fields},
        node_id=node_id,
        role=NodeRole(role),
        region=region,
    )


def cluster(*nodes: Node, **fields: Any) -> Cluster:
    regions = tuple(dict.fromkeys(n.region for n in nodes))
    return Cluster(**{"cluster_id": "prod", "name": "Production", "regions": regions, **fields}, nodes=nodes)


def policy(**fields: Any) -> Policy:
    return Policy(**{"policy_id": "policy", "name": "Policy", **fields})


SPEC_CLUSTER = cluster(
    node("node-1", "primary", hostname="10.0.1.10", site="site-a", priority=100, capacity=100.0),
    node("node-2", hostname="10.0.1.11", site="site-b", priority=90, capacity=95.0),
    node("node-3", region="region-2", hostname="10.0.2.10", site="site-c", priority=80, capacity=90.0),
    cluster_id="prod-cluster",
    name="Production Cluster",
    quorum_size=2,
)
"""The specification's cluster.yaml."""
SPEC_POLICY = Policy(
    policy_id="auto-failover-policy",
    name="Automatic Failover Policy",
    max_failover_time_s=60,
    region_priority=("region-1", "region-2"),
    site_priority=("site-a", "site-b", "site-c"),
    min_healthy_nodes=2,
)
"""The specification's policy.yaml."""


def with_dns(topology: Cluster, **fields: Any) -> Cluster:
    dns = {"zone": "example.org", "name": "db", "ttl_s": 1, "servers": ("127.0.0.1:53",), **fields}
    return Cluster.model_validate({**topology.model_dump(), "dns": dns})


def changed(topology: Cluster, **fields: Any) -> Cluster:
    return Cluster.model_validate({**topology.model_dump(), **fields})


def standby(node_id: str, lsn: int = 1000, upstream: str = "node-1", **fields: Any) -> NodeState:
    known = {
        "role": NodeRole.SECONDARY,
        "database_up": True,
        "in_recovery": True,
        "system_identifier": "7001",
        "timeline": 1,
        "receive_lsn": lsn,
        "replay_lsn": lsn,
        "upstream": upstream,
        "streaming": True,
    }
    return NodeState(**{**known, **fields}, node_id=node_id)


def primary(node_id: str, lsn: int = 1000, **fields: Any) -> NodeState:
    known = {
        "role": NodeRole.PRIMARY,
        "database_up": True,
        "writable": True,
        "in_recovery": False,
        "system_identifier": "7001",
        "timeline": 1,
        "write_lsn": lsn,
    }
    return NodeState(**{**known, **fields}, node_id=node_id)


def witness(node_id: str) -> NodeState:
    return NodeState(node_id=node_id, role=NodeRole.WITNESS, database_up=False)


def evidence(
    topology: Cluster, *said: NodeState, statuses: dict[str, NodeStatus] | None = None, at: datetime = NOON
) -> ClusterEvidence:
    """Live: a node whose state is among `said` is healthy, another failed, unless `statuses` says."""
    states = {state.node_id: state for state in said}
    return ClusterEvidence(
        cluster_id=topology.cluster_id,
        taken_at=at,
        nodes=tuple(
            NodeEvidence(
                node_id=n.node_id,
                status=(statuses or {}).get(n.node_id, HEALTHY if n.node_id in states else FAILED),
                source=f"agent {n.agent_url}",
                observed_at=at + timedelta(milliseconds=20),
                state=states.get(n.node_id),
                error=None if n.node_id in states else "connection refused",
            )
            for n in topology.nodes
        ),
    )


def on_file(topology: Cluster, **statuses: NodeStatus) -> ClusterEvidence:
    """The topology's own statuses, some replaced; `node_2=FAILED` speaks of node-2."""
    said = {name.replace("_", "-"): status for name, status in statuses.items()}
    return ClusterEvidence(
        cluster_id=topology.cluster_id,
        nodes=tuple(
            NodeEvidence(node_id=n.node_id, status=said.get(n.node_id, n.status), source="file")
            for n in topology.nodes
        ),
    )


def spec_plan(topology: Cluster = SPEC_CLUSTER) -> Plan:
    plan = make_plan(topology, SPEC_POLICY, on_file(topology), trigger_reason="test").plan
    assert plan is not None
    return plan


def fenced(
    holder: str = "node-1", kind: FencingEvidenceType = FencingEvidenceType.HOOK, epoch: int = 1
) -> FencingEvidence:
    return FencingEvidence(
        type=kind, holder=holder, epoch=epoch, source="hook http://power", detail="off", at=NOON
    )


REGIONS, SITES = ("region-1", "region-2", "region-3"), ("site-a", "site-b", "site-c")


@st.composite
def clusters(draw: st.DrawFn, max_nodes: int = 9, replication: Replication | None = None) -> Cluster:
    """Active/passive clusters with any statuses, witnesses and preferences; node-1 is the primary."""
    roles = [
        "primary",
        *draw(st.lists(st.sampled_from(["secondary", "secondary", "witness"]), max_size=max_nodes - 1)),
    ]
    nodes = [
        node(
            f"node-{number}",
            role,
            draw(st.sampled_from(REGIONS)),
            site=draw(st.sampled_from(SITES)),
            status=draw(st.sampled_from(NodeStatus)),
            priority=draw(st.integers(0, 3)),
            capacity=draw(st.sampled_from([50.0, 100.0])),
        )
        for number, role in enumerate(roles, start=1)
    ]
    return cluster(
        *nodes,
        regions=REGIONS,
        replication=replication or Replication(mode=draw(st.sampled_from(ReplicationMode))),
    )


@st.composite
def live_evidence(draw: st.DrawFn, topology: Cluster) -> ClusterEvidence:
    """Any answers of the standbys of a dead node-1: silent, down, behind, on another timeline or database."""
    said = [
        standby(
            n.node_id,
            draw(st.integers(0, 3)) * 1000,
            database_up=draw(st.integers(0, 9)) > 0,
            in_recovery=draw(st.sampled_from([True, True, True, False, None])),
            timeline=draw(st.sampled_from([1, 1, 1, 2, None])),
            system_identifier=draw(st.sampled_from(["7001", "7001", "7001", "7002", None])),
        )
        for n in topology.nodes[1:]
        if n.holds_data and draw(st.integers(0, 9)) > 0
    ]
    statuses = {
        n.node_id: draw(st.sampled_from([HEALTHY, HEALTHY, HEALTHY, DEGRADED, FAILED, UNKNOWN]))
        for n in topology.nodes
    }
    return evidence(topology, *said, statuses=statuses)
