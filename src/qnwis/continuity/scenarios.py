"""What the simulator lets happen: the cluster before, and which nodes fall silent when."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random

from .evidence import NodeState
from .modelled import SOURCE, ModelledCluster
from .policy import Policy
from .topology import Cluster, Node, NodeRole, NodeStatus, ReplicationMode

LAG_BYTES = 64 * 1024
"""An asynchronous standby is up to this far behind, or up to `max_lag_bytes` if that is less."""
HEAD_LSN = 16 * 1024**3
"""Where the modelled log ends."""


class Scenario(StrEnum):
    PRIMARY_FAILURE = "primary_failure"  # the primary's node is gone
    REGION_FAILURE = "region_failure"  # every node of the primary's region is gone
    NETWORK_PARTITION = "network_partition"  # the watchers lose the primary, its standbys do not
    QUORUM_LOSS = "quorum_loss"  # the primary and so many others are gone that the quorum is lost
    FLAPPING = "flapping"  # the primary misses beats, never enough in a row to count as failed
    CASCADING = "cascading"  # the primary is gone, and soon after its successor as well


@dataclass(frozen=True)
class Fault:
    """Some nodes fall silent."""

    node_ids: frozenset[str]
    from_ms: float
    until_ms: float | None = None
    """None: for good."""
    alive: bool = False
    """Only cut off from the watchers."""

    def silences(self, node_id: str, at_ms: float) -> bool:
        begun = self.from_ms <= at_ms and (self.until_ms is None or at_ms < self.until_ms)
        return begun and node_id in self.node_ids


def first_primary(cluster: Cluster) -> Node:
    """The primary that the scenarios strike: the only one, or the first in the topology."""
    return next(node for node in cluster.nodes if node.role is NodeRole.PRIMARY)


def faults(scenario: Scenario, cluster: Cluster, primary: Node, rng: Random) -> list[Fault]:
    """What befalls the cluster, in the order of time; seeded."""
    interval_ms = cluster.heartbeat.interval_sec * 1000
    begin_ms = (2 + rng.random()) * interval_ms
    just_it = frozenset({primary.node_id})
    match scenario:
        case Scenario.PRIMARY_FAILURE | Scenario.CASCADING:
            return [Fault(just_it, begin_ms)]
        case Scenario.REGION_FAILURE:
            region = frozenset(n.node_id for n in cluster.nodes if n.region == primary.region)
            return [Fault(region, begin_ms)]
        case Scenario.NETWORK_PARTITION:
            return [Fault(just_it, begin_ms, alive=True)]
        case Scenario.QUORUM_LOSS:
            others = [n.node_id for n in cluster.nodes if n is not primary]
            return [Fault(just_it | set(rng.sample(others, len(cluster.nodes) - cluster.quorum)), begin_ms)]
        case Scenario.FLAPPING:
            return _flaps(just_it, cluster, rng)


def _flaps(who: frozenset[str], cluster: Cluster, rng: Random) -> list[Fault]:
    interval_ms = cluster.heartbeat.interval_sec * 1000
    flaps = []
    # Silences begin and end three quarters into an interval: no jitter moves a beat across that.
    beat = 2.75
    for _ in range(rng.randint(3, 6)):
        missed = rng.randint(1, max(1, cluster.heartbeat.failure_threshold - 1))
        flaps.append(Fault(who, beat * interval_ms, (beat + missed) * interval_ms))
        beat += missed + rng.randint(1, 3)
    return flaps


def at_rest(cluster: Cluster, policy: Policy, rng: Random) -> ModelledCluster:
    """The cluster before anything happens: all runs but what the file calls failed; the primary always."""
    synchronous = cluster.replication.mode is ReplicationMode.SYNCHRONOUS
    most_lag = 0 if synchronous else min(LAG_BYTES, policy.max_lag_bytes)
    primary_id = first_primary(cluster).node_id
    of_role = {role: _state_of(role, primary_id) for role in NodeRole}
    return ModelledCluster(
        cluster,
        states={
            node.node_id: _state(node, of_role[node.role], rng.randint(0, most_lag))
            for node in cluster.nodes
            if node.status is not NodeStatus.FAILED or node.node_id == primary_id
        },
        statuses={
            node.node_id: node.status if node.status is NodeStatus.DEGRADED else NodeStatus.HEALTHY
            for node in cluster.nodes
        },
    )


def _state(node: Node, of_role: NodeState, lag_bytes: int) -> NodeState:
    """A copy of what its role says: a cluster may have a thousand nodes, and a copy is not validated."""
    own: dict[str, object] = {"node_id": node.node_id}
    if node.role is NodeRole.SECONDARY:
        own["receive_lsn"] = own["replay_lsn"] = HEAD_LSN - lag_bytes
    return of_role.model_copy(update=own)


def _state_of(role: NodeRole, primary_id: str) -> NodeState:
    """Of any node of that role, without lag."""
    match role:
        case NodeRole.WITNESS:
            return NodeState(node_id="", role=role, database_up=False, epoch=1)
        case NodeRole.PRIMARY:
            return NodeState(
                node_id="",
                role=role,
                database_up=True,
                writable=True,
                in_recovery=False,
                system_identifier=SOURCE,
                timeline=1,
                write_lsn=HEAD_LSN,
                epoch=1,
            )
        case NodeRole.SECONDARY:
            return NodeState(
                node_id="",
                role=role,
                database_up=True,
                in_recovery=True,
                system_identifier=SOURCE,
                timeline=1,
                receive_lsn=HEAD_LSN,
                replay_lsn=HEAD_LSN,
                upstream=primary_id,
                streaming=True,
                last_message_age_s=0.0,
                epoch=1,
            )
