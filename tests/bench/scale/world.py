"""The clusters that are held: where their nodes are, and what is registered of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from qnwis.continuity.heartbeat import HeartbeatConfig
from qnwis.continuity.policy import Policy
from qnwis.continuity.topology import (
    Cluster,
    Database,
    DnsService,
    Node,
    NodeRole,
    NodeStatus,
    Replication,
    ReplicationMode,
)
from qnwis.lab.layout import DNS_PORT

VANTAGE = "vantage-1"
HEARTBEAT = HeartbeatConfig(interval_sec=5.0, watch_timeout_sec=30.0)
NODES = 5
AGENT_PORT = 19443
"""Of every agent; no lab has it."""
MOST_CLUSTERS = 1 << 16
ZONE, TTL_S = "scale.test", 1

ONE, WAVE, MANY = "one", "wave", "many"
"""Regions that are lost, by how many clusters have their primary there."""
ELSEWHERE, SECOND, THIRD = "elsewhere", "second", "third"
MOST_IN_MANY = 100


def cluster_id(number: int) -> str:
    return f"cluster-{number:04}"


def node_id(index: int) -> str:
    return f"node-{index + 1}"


def address(number: int, index: int) -> str:
    """Each node has one of its own on the loopback interface: connections are pooled by it, as in life. Nodes
    of the same index lie side by side, so that a region's are a few ranges."""
    return f"127.{100 + index}.{number >> 8}.{number & 255}"


def every_node(clusters: int) -> Iterator[tuple[int, int]]:
    """Cluster's number and node's index."""
    return ((number, index) for number in range(clusters) for index in range(NODES))


def home_region(number: int, wave_size: int) -> str:
    """Where a cluster's primary and one more of its nodes stand. One cluster is alone in its region, then
    follow a wave's worth, then a hundred."""
    if number == 0:
        return ONE
    if number <= wave_size:
        return WAVE
    return MANY if number <= wave_size + MOST_IN_MANY else ELSEWHERE


def at_home_in(region: str, clusters: int, wave_size: int) -> tuple[int, ...]:
    return tuple(number for number in range(clusters) if home_region(number, wave_size) == region)


def topology(number: int, *, wave_size: int, dns: str, key_file: Path) -> Cluster:
    """Five data nodes in three regions; a commit waits for two standbys, so that a region's loss loses
    nothing. `dns`: address of the nameserver."""
    regions = (home_region(number, wave_size), SECOND, THIRD)
    return Cluster(
        cluster_id=cluster_id(number),
        name=f"Cluster {number}",
        regions=regions,
        nodes=tuple(_node(number, index, regions[index // 2]) for index in range(NODES)),
        replication=Replication(mode=ReplicationMode.SYNCHRONOUS, required_acks=2),
        heartbeat=HEARTBEAT,
        vantages=(VANTAGE,),
        dns=DnsService(
            zone=ZONE,
            name=cluster_id(number),
            ttl_s=TTL_S,
            servers=(f"{dns}:{DNS_PORT}",),
            tsig_key_file=str(key_file),
        ),
    )


def _node(number: int, index: int, region: str) -> Node:
    at = address(number, index)
    return Node(
        node_id=node_id(index),
        hostname=at,
        role=NodeRole.PRIMARY if index == 0 else NodeRole.SECONDARY,
        region=region,
        site=f"site-{'abcde'[index]}",
        status=NodeStatus.HEALTHY,
        priority=100 - 10 * index,
        endpoint=f"http://{at}:{AGENT_PORT}",
        database=Database(host=at),
    )


def policy(cluster: Cluster) -> Policy:
    """The defaults, but that nobody is asked: nothing here waits for people."""
    return Policy(
        policy_id="scale-policy", name="Scale policy", region_priority=cluster.regions, approvals=False
    )


def register(directory: Path, clusters: int, *, wave_size: int, dns: str, key_file: Path) -> None:
    """Write the registry that a worker reads: a folder for each cluster."""
    (directory / "regions.yaml").write_text(yaml.safe_dump({"wave_size": wave_size}))
    for number in range(clusters):
        cluster = topology(number, wave_size=wave_size, dns=dns, key_file=key_file)
        folder = directory / "clusters" / cluster.cluster_id
        folder.mkdir(parents=True)
        for name, model in (("cluster", cluster), ("policy", policy(cluster))):
            data = model.model_dump(mode="json", exclude_none=True)
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
