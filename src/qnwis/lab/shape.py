"""A lab's cluster: how many nodes, where they stand, how they replicate, under which policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, JsonValue

from qnwis.continuity.heartbeat import HeartbeatConfig
from qnwis.continuity.lease_messages import LeaseTerms
from qnwis.continuity.model import Identifier, Model
from qnwis.continuity.policy import Policy, StepEstimates, Strategy, SwitchoverLimits
from qnwis.continuity.topology import (
    Cluster,
    Database,
    Deployment,
    DnsService,
    Node,
    NodeRole,
    NodeStatus,
    Replication,
    ReplicationMode,
)

from .layout import AGENT_PORT, DATABASE_PORT, DNS_PORT, Block, Folder
from .postgres import APP_DATABASE

ZONE, SERVICE = "lab.test", "db"
SERVICE_NAME = f"{SERVICE}.{ZONE}"
SRV = "_postgresql._tcp"
TTL_S = 1
LEASE = LeaseTerms(duration_s=2.5, renew_every_s=0.5)
"""So that it runs out before a killed node's third missed beat is acted on."""
HEARTBEAT = HeartbeatConfig(interval_sec=1.0, timeout_sec=0.8, failure_threshold=3)

VANTAGES = ("vantage-1", "vantage-2", "vantage-3")
"""The first stands in the worker, each other in a process of its own and of that name."""

Disk = Literal["agent", "wal"]
"""A node's disk: of the agent's records, or of the database's write-ahead log."""

MOST_NODES = 9
"""Of each kind."""


class Shape(Model):
    """What may differ between labs."""

    data_nodes: int = Field(default=3, ge=1, le=MOST_NODES)
    witnesses: int = Field(default=0, ge=0, le=MOST_NODES)
    asynchronous: bool = False
    regions: tuple[Identifier, ...] = ("region-1", "region-1", "region-2")
    """Of the data nodes, the first of them the primary's; further nodes stand in the last one."""
    required_acks: int = 1
    """Synchronous: standbys that confirm a commit."""
    lease: LeaseTerms = LEASE
    local_restart_s: float = 0.0
    """For how long an agent tries to have a crashed database back before it leaves that to a failover."""
    parameters: Mapping[str, str] = {}
    """Of PostgreSQL, in postgresql.conf."""
    heartbeat: HeartbeatConfig = HEARTBEAT
    policy: Mapping[str, JsonValue] = {}
    """Fields of the policy that differ from the lab's."""
    small_disks: tuple[tuple[Identifier, Disk], ...] = ()
    """Disks so small that they can be filled; only root can make them."""
    power_switch: bool = True
    """Leases fence without one; a lab that has none starts sooner."""
    agent_module: str = "qnwis.agent"
    """The program that runs as each node's agent."""
    weights: tuple[int, ...] = ()
    """Active/active: the percent of the traffic of each of `regions`, which have a data node each; witnesses
    are dealt out to them in turn."""

    @property
    def members(self) -> int:
        return self.data_nodes + self.witnesses


THREE_NODES = Shape()
"""Three data nodes in two regions, synchronous."""


def lab_cluster(shape: Shape, folder: Folder, block: Block, *, cluster_id: str) -> Cluster:
    """The lab's topology: the data nodes in the shape's regions, witnesses apart."""
    nodes = tuple(
        _data_node(index, block, region=shape.regions[min(index, len(shape.regions) - 1)])
        for index in range(shape.data_nodes)
    )
    witnesses = tuple(
        _witness(index, block.node(shape.data_nodes + index)) for index in range(shape.witnesses)
    )
    if shape.weights:
        nodes = tuple(_weighted(node, weight) for node, weight in zip(nodes, shape.weights, strict=True))
        witnesses = tuple(
            witness.model_copy(update={"region": shape.regions[index % len(shape.regions)]})
            for index, witness in enumerate(witnesses)
        )
    mode = ReplicationMode.ASYNCHRONOUS if shape.asynchronous else ReplicationMode.SYNCHRONOUS
    return Cluster(
        cluster_id=cluster_id,
        name="Lab cluster",
        deployment=Deployment.ACTIVE_ACTIVE if shape.weights else Deployment.ACTIVE_PASSIVE,
        active_database=APP_DATABASE if shape.weights else None,
        regions=tuple(sorted({node.region for node in (*nodes, *witnesses)})),
        nodes=(*nodes, *witnesses),
        replication=Replication(mode=mode, required_acks=shape.required_acks),
        heartbeat=shape.heartbeat,
        vantages=VANTAGES,
        dns=DnsService(
            zone=ZONE,
            name=SERVICE,
            srv=SRV if shape.weights else None,
            ttl_s=TTL_S,
            servers=(f"{block.nameserver}:{DNS_PORT}",),
            tsig_key_file=str(folder.tsig_key_file),
        ),
    )


def _data_node(index: int, block: Block, *, region: str) -> Node:
    address = block.node(index)
    return Node(
        node_id=f"node-{index + 1}",
        hostname=address,
        role=NodeRole.PRIMARY if index == 0 else NodeRole.SECONDARY,
        region=region,
        site=_site(index),
        status=NodeStatus.HEALTHY,
        priority=100 - 10 * index,
        endpoint=f"https://{address}:{AGENT_PORT}",
        database=Database(host=address, port=DATABASE_PORT),
    )


def _weighted(node: Node, weight: int) -> Node:
    """The primary of its region; each could take all of the traffic."""
    return node.model_copy(update={"role": NodeRole.PRIMARY, "weight": weight})


def _site(index: int) -> str:
    return f"site-{'abcdefghi'[index]}"


def _witness(index: int, address: str) -> Node:
    return Node(
        node_id=f"witness-{index + 1}",
        hostname=address,
        role=NodeRole.WITNESS,
        region="region-3",
        site=f"site-w{index + 1}",
        status=NodeStatus.HEALTHY,
        endpoint=f"https://{address}:{AGENT_PORT}",
    )


def lab_policy(shape: Shape) -> Policy:
    """The lab's policy: automatic, with what a failover takes here. Raises pydantic.ValidationError for a
    field of `shape.policy` that no policy has."""
    ours: dict[str, object] = {
        "policy_id": "lab-policy",
        "name": "Lab policy",
        "strategy": Strategy.AUTOMATIC,
        "max_failover_time_s": 60,
        "region_priority": ("region-1", "region-2"),
        "site_priority": tuple(_site(index) for index in range(shape.data_nodes)),
        "min_healthy_nodes": min(2, shape.members - 1),
        "cooldown_s": 30,
        "startup_grace_s": 2,
        "estimates_ms": StepEstimates(
            fence_primary=300,
            promote_target=500,
            repoint_standbys=500,
            flip_dns=200,
            verify_service=500,
            prepare_nodes=500,
            release_primary=500,
            rejoin_old_primary=3_000,
        ),
        # The lab's clients ask again at once; some resolvers on the way would not.
        "switchover": SwitchoverLimits(ttl_s=0),
    }
    return Policy.model_validate({**ours, **shape.policy})
