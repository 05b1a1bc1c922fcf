"""Evidence: what the world said, when, and who said it. Absent values mean "not known", never "no"."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from .model import Model
from .patroni_word import PatroniWord
from .topology import Cluster, Manager, NodeRole, NodeStatus


class StandbyConnection(Model):
    """One row of a primary's pg_stat_replication."""

    application_name: str
    state: str
    sync_state: str
    flush_lag_bytes: int | None = None


class NodeState(Model):
    """What a node's agent says of its database. LSNs are bytes since the start of the log."""

    node_id: str
    role: NodeRole
    database_up: bool
    writable: bool = False
    """True only if the database accepts writes now (up, not in recovery, not read-only)."""
    why_down: str | None = None
    """Why the database is not up, for a person."""
    database_ended: bool = False
    """The agent saw every process of its database end and released its lease, or, where its disk takes
    nothing, renews it no more; it does not start it again for now."""
    restarting: bool = False
    """The agent starts its database (again), within a time of its own."""
    quiesced: bool = False
    """The agent lets no new writes in, by a run's order and for a limited time."""
    handed_over: bool = False
    """The agent stopped its database and released its lease by a run's order; unless another takes over, it
    comes back by itself."""
    in_recovery: bool | None = None
    system_identifier: str | None = None
    timeline: int | None = None
    write_lsn: int | None = None
    """Primary: end of the written log."""
    receive_lsn: int | None = None
    """Standby: end of the log received and flushed; None while a restarted one still reads its own log."""
    replay_lsn: int | None = None
    upstream: str | None = None
    """Standby: node_id that it follows, or followed until it promised an epoch to a run."""
    streaming: bool = False
    """Standby: its WAL receiver is streaming from the upstream now."""
    last_message_age_s: float | None = None
    """Standby: seconds since the upstream's last message; tells a live stream from a dead one."""
    standbys: tuple[StandbyConnection, ...] = ()
    epoch: int = 0
    """Highest epoch this agent has obeyed or promised; on its disk."""
    member: bool = True
    """Whether the agent takes part in leases; one that is new or lost its disk has to be added first."""
    position: int | None = None
    """Of an application (`manager: http`) that tells it: how far its data reach, in a unit of its own."""
    patroni: PatroniWord | None = None
    """What Patroni says, where it manages the node: then `epoch` is the timeline, and there is no agent."""


class NodeEvent(Model):
    """What an agent pushes at each change, so that a watcher looks at once; never evidence by itself."""

    node_id: str
    database_up: bool
    writable: bool
    epoch: int
    in_hand: bool = False
    """The database is down, and why is known: it was handed over, or is being started again. There is no more
    to be seen at once."""


class NodeEvidence(Model):
    """One node as seen by one collector."""

    node_id: str
    status: NodeStatus
    source: str
    """Who says so: `agent http://…` or `file cluster.yaml`."""
    observed_at: datetime | None = None
    state: NodeState | None = None
    """None when the agent did not answer."""
    error: str | None = None
    """Why the agent did not answer."""
    latency_ms: float | None = None


class ClusterEvidence(Model):
    """All nodes of a cluster, in the topology's order. What planner and verifier decide on."""

    cluster_id: str
    nodes: tuple[NodeEvidence, ...]
    taken_at: datetime | None = None

    def of(self, node_id: str) -> NodeEvidence:
        """Evidence of one node. Raises KeyError for an unknown id."""
        for node in self.nodes:
            if node.node_id == node_id:
                return node
        raise KeyError(node_id)

    def within(self, cluster: Cluster) -> ClusterEvidence:
        """Of this cluster's nodes alone, one of the lease groups for example."""
        inside = {node.node_id for node in cluster.nodes}
        nodes = tuple(node for node in self.nodes if node.node_id in inside)
        return self.model_copy(update={"cluster_id": cluster.cluster_id, "nodes": nodes})


def evidence_from_file(cluster: Cluster) -> ClusterEvidence:
    """The statuses written in the topology itself, for planning offline."""
    return ClusterEvidence(
        cluster_id=cluster.cluster_id,
        nodes=tuple(NodeEvidence(node_id=n.node_id, status=n.status, source="file") for n in cluster.nodes),
    )


def with_degraded(cluster: Cluster, evidence: ClusterEvidence) -> ClusterEvidence:
    """The same; where a primary accepts writes, a standby that answers and streams from nobody is degraded.

    Where none does, nobody can stream, and who is left may have to take over. Nor is one degraded that has
    obeyed a later epoch than that primary's: by a promise to a run a standby stops to receive. Patroni and an
    application say of their nodes themselves what they are.
    """
    if cluster.manager is not Manager.AGENTS:
        return evidence
    cut_off = {n for group in cluster.lease_groups for n in _cut_off(evidence.within(group))}

    def judged(node: NodeEvidence) -> NodeEvidence:
        degraded = node.node_id in cut_off
        return node.model_copy(update={"status": NodeStatus.DEGRADED}) if degraded else node

    return evidence.model_copy(update={"nodes": tuple(judged(node) for node in evidence.nodes)})


def _cut_off(evidence: ClusterEvidence) -> Iterator[str]:
    """Of one lease group, the standbys that its primary's writes do not reach."""
    epochs = [node.state.epoch for node in evidence.nodes if node.state is not None and node.state.writable]
    for node in evidence.nodes if epochs else ():
        state = node.state
        if node.status is not NodeStatus.HEALTHY or state is None or not state.in_recovery:
            continue
        if not state.streaming and state.epoch <= max(epochs):
            yield node.node_id


def current_primary(cluster: Cluster, evidence: ClusterEvidence) -> str | None:
    """Which node is the primary now, from the best evidence there is.

    In this order: the writable node of the highest epoch; else the upstream that the reachable
    standbys of the highest epoch follow, if they agree; else the topology's own word.
    None when standbys of the highest epoch disagree.
    """
    states = [n.state for n in evidence.nodes if n.state is not None]
    writable = [s for s in states if s.writable]
    if writable:
        top = max(s.epoch for s in writable)
        holders = {s.node_id for s in writable if s.epoch == top}
        return holders.pop() if len(holders) == 1 else None
    if cluster.by_http and states:
        return _primary_of_application(cluster, evidence)
    followers = [s for s in states if s.upstream is not None]
    if followers:
        top = max(s.epoch for s in followers)
        upstreams = {root_of(cluster, evidence, s) for s in followers if s.epoch == top}
        return upstreams.pop() if len(upstreams) == 1 else None
    return next((n.node_id for n in cluster.nodes if n.role is NodeRole.PRIMARY), None)


def _primary_of_application(cluster: Cluster, evidence: ClusterEvidence) -> str | None:
    """Where no node says that it accepts writes: the only one that is silent, because it alone may; else, as
    none does, the topology's own word. None when several are silent."""
    silent = [seen.node_id for seen in evidence.nodes if seen.state is None]
    if len(silent) > 1:
        return None
    return silent[0] if silent else next(n.node_id for n in cluster.nodes if n.role is NodeRole.PRIMARY)


def root_of(cluster: Cluster, evidence: ClusterEvidence, state: NodeState) -> str | None:
    """Whom a standby follows in the end. Where Patroni manages the nodes, a region's members follow its
    standby leader, and that the other region's primary. None for a circle."""
    upstream = state.upstream
    if not cluster.by_patroni:
        return upstream
    seen, states = {state.node_id}, {n.node_id: n.state for n in evidence.nodes}
    while upstream is not None and upstream not in seen:
        above = states.get(upstream)
        if above is None or above.upstream is None:
            return upstream
        seen.add(upstream)
        upstream = above.upstream
    return None
