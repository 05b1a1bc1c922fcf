"""A cluster, a policy and a world that the tests of the simulator at scale share."""

from __future__ import annotations

from qnwis.continuity.access import ApprovalWorkflow
from qnwis.continuity.heartbeat import HeartbeatConfig
from qnwis.continuity.policy import Policy
from qnwis.continuity.topology import (
    Cluster,
    DnsService,
    Node,
    NodeRole,
    NodeStatus,
    Replication,
    ReplicationMode,
)
from qnwis.montecarlo.study import Settings
from qnwis.montecarlo.world import World, load_world

APPROVAL = ApprovalWorkflow(required_approvers=1, allowed_roles=("continuity_admin",), timeout_sec=600)
POLICY = Policy(policy_id="p", name="P", region_priority=("r-1", "r-2"))


def cluster(
    *,
    data_nodes: int = 3,
    vantages: int = 3,
    asynchronous: bool = True,
    heartbeat: HeartbeatConfig | None = None,
) -> Cluster:
    mode = ReplicationMode.ASYNCHRONOUS if asynchronous else ReplicationMode.SYNCHRONOUS
    return Cluster(
        cluster_id="c",
        name="C",
        regions=("r-1", "r-2"),
        nodes=tuple(
            Node(
                node_id=f"node-{n}",
                hostname=f"10.0.0.{n}",
                role=NodeRole.PRIMARY if n == 1 else NodeRole.SECONDARY,
                region="r-1" if n < 3 else "r-2",
                site=f"site-{n}",
                status=NodeStatus.HEALTHY,
                priority=n % 3,
            )
            for n in range(1, data_nodes + 1)
        ),
        replication=Replication(mode=mode),
        vantages=tuple(f"v-{n}" for n in range(1, vantages + 1)),
        heartbeat=heartbeat or HeartbeatConfig(),
        dns=DnsService(zone="example.com", name="db", ttl_s=10, servers=("10.0.0.53:53",)),
    )


def settings(world: World | None = None, **changed: object) -> Settings:
    parts = {"cluster": cluster(), "policy": POLICY, "world": world or load_world("cloud"), **changed}
    return Settings(approval=APPROVAL, **parts)  # type: ignore[arg-type]
