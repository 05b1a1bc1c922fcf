"""The topology and the policy of a story, as the lab has them."""

from __future__ import annotations

from functools import cache

from qnwis.continuity.heartbeat import HeartbeatConfig
from qnwis.continuity.policy import Policy, StepEstimates, Strategy
from qnwis.continuity.topology import (
    Cluster,
    DnsService,
    Node,
    NodeRole,
    NodeStatus,
    Replication,
)
from tests.chaos.parties import VANTAGES, region_of
from tests.chaos.story import StoryCluster

REGIONS = ("region-1", "region-2", "region-3")
HEARTBEAT = HeartbeatConfig(interval_sec=1.0, timeout_sec=0.8, failure_threshold=3)


@cache
def topology(story: StoryCluster) -> Cluster:
    return Cluster(
        cluster_id="chaos",
        name="A story's cluster",
        regions=REGIONS,
        nodes=tuple(
            Node(
                node_id=node_id,
                hostname=node_id,
                role=_role(node_id),
                region=region_of(node_id),
                site=f"site-{number}",
                status=NodeStatus.HEALTHY,
                priority=100 - 10 * number,
            )
            for number, node_id in enumerate(story.nodes)
        ),
        replication=Replication(mode=story.replication, required_acks=story.required_acks),
        heartbeat=HEARTBEAT,
        vantages=VANTAGES,
        dns=DnsService(zone="lab.test", name="db", ttl_s=1, servers=("dns:53",)),
    )


def _role(node_id: str) -> NodeRole:
    if node_id.startswith("witness-"):
        return NodeRole.WITNESS
    return NodeRole.PRIMARY if node_id == "node-1" else NodeRole.SECONDARY


@cache
def policy(story: StoryCluster) -> Policy:
    lab = Policy(
        policy_id="chaos-policy",
        name="A story's policy",
        strategy=Strategy.AUTOMATIC,
        region_priority=REGIONS,
        min_healthy_nodes=1,
        cooldown_s=30,
        startup_grace_s=2,
        estimates_ms=StepEstimates(
            fence_primary=300, promote_target=500, repoint_standbys=500, flip_dns=200, verify_service=500
        ),
    )
    return Policy.model_validate({**lab.model_dump(), **story.policy.model_dump(exclude_none=True)})
