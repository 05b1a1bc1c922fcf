"""What a cluster survives: for each node and each region, what its loss would leave.

Counted on the topology alone, with every other node healthy: what cannot work then never will.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

from .model import Model
from .refusal import Refusal
from .topology import Cluster, Manager, Node, NodeRole, ReplicationMode, majority
from .weights import without


class Effect(StrEnum):
    GOES_ON = "goes on"  # the primary keeps serving
    FAILS_OVER = "fails over"  # the primary is lost, another can take over
    SHIFTS = "shifts"  # active/active: the region's weight goes to the others
    STOPS = "stops"  # no writes until something comes back


class Loss(Model):
    """What the loss of some nodes at once would do."""

    what: str
    """`node-1` or `region region-1`"""
    node_ids: tuple[str, ...]
    left: int
    """Members that are left."""
    quorum: int
    effect: Effect
    why: str = ""
    """Where it stops: the rule, with its numbers."""

    @property
    def quorum_left(self) -> bool:
        return self.left >= self.quorum


def losses(cluster: Cluster) -> tuple[Loss, ...]:
    """The loss of each node, then of each region that has nodes and is not all of the cluster. None of a
    cluster that Patroni manages: its DCS, which is not in the topology, decides what it survives; and none of
    an application, which is failed over wherever the old node can be fenced."""
    if cluster.manager is not Manager.AGENTS:
        return ()
    if cluster.is_active_active:
        return tuple(loss for region in cluster.regions for loss in _in_region(cluster, region))
    found = [_loss(cluster, node.node_id, [node.node_id]) for node in cluster.nodes]
    for region in cluster.regions:
        inside = [node.node_id for node in cluster.nodes if node.region == region]
        if inside and len(inside) < len(cluster.nodes):
            found.append(_loss(cluster, f"region {region}", inside))
    return tuple(found)


def unsurvivable(cluster: Cluster) -> str | None:
    """Why no failover can ever happen here, with what would change it."""
    members = len(cluster.nodes)
    if members >= 3 or cluster.manager is not Manager.AGENTS or cluster.is_active_active:
        return None
    return (
        f"at least 3 nodes: of {members} a majority is {majority(members)}, so the loss of any one stops the"
        " cluster, and none can fail over; add a witness (role: witness) at a third place"
    )


def _in_region(cluster: Cluster, region: str) -> list[Loss]:
    """Of an active/active cluster: the loss of each node of a region, which is that of the region where the
    region does not survive it; and of the whole region."""
    nodes = [node.node_id for node in cluster.nodes if node.region == region]
    if not nodes:
        return []
    group, moved = cluster.lease_group(region), without(cluster.shares, region)
    if isinstance(moved, Refusal):
        effect, why = Effect.STOPS, moved.message
    else:
        given = ", ".join(f"{name} {weight}" for name, weight in sorted(moved.items()))
        effect, why = Effect.SHIFTS, f"weights: {given}"
    whole = Loss(
        what=f"region {region}",
        node_ids=tuple(nodes),
        left=0,
        quorum=group.quorum,
        effect=effect,
        why=why,
    )
    each = []
    for node_id in nodes:
        loss = _loss(group, node_id, [node_id])
        if loss.effect is Effect.STOPS:
            loss = loss.model_copy(update={"effect": whole.effect, "why": f"{loss.why}; {whole.why}"})
        each.append(loss)
    return [*each, whole]


def advice(cluster: Cluster, found: Iterable[Loss]) -> tuple[str, ...]:
    """What would let the cluster survive the losses of regions that now stop it."""
    if cluster.by_patroni:
        return _advice_for_patroni(cluster)
    if cluster.by_http:
        return _advice_for_an_application(cluster)
    if cluster.is_active_active:
        return ()
    stopping = [loss for loss in found if loss.effect is Effect.STOPS and len(loss.node_ids) > 1]
    return tuple(
        line
        for loss in stopping
        for line in (_more_members(cluster, loss), _more_acks(cluster, loss))
        if line
    )


def _advice_for_an_application(cluster: Cluster) -> tuple[str, ...]:
    if cluster.fencing is not None:
        return ()
    return (
        "the loss of the node that writes: give the topology a fencing hook (fencing.url); without one"
        " nothing fails over by itself, and a person has to state that the node is off",
    )


def _advice_for_patroni(cluster: Cluster) -> tuple[str, ...]:
    regions = {node.region for node in cluster.nodes}
    if len(regions) < 2 or cluster.fencing is not None:
        return ()
    return (
        "the loss of the primary's region: give the topology a fencing hook (fencing.url); without one, a"
        " person has to state that all nodes there are off before the other region is promoted",
    )


def _more_members(cluster: Cluster, loss: Loss) -> str | None:
    if loss.quorum_left:
        return None
    others = {node.region for node in cluster.nodes if node.node_id not in loss.node_ids}
    where = "in a third region" if len(others) < 2 else "in another region"
    number = _witnesses_needed(len(cluster.nodes), len(loss.node_ids))
    return (
        f"{loss.what}: place {'a witness' if number == 1 else f'{number} witnesses'} (role: witness) {where};"
        f" {loss.left + number} of {len(cluster.nodes) + number} members would be left"
    )


def _more_acks(cluster: Cluster, loss: Loss) -> str | None:
    data = [node.node_id for node in cluster.nodes if node.holds_data]
    left = len(set(data) - set(loss.node_ids))
    wanted = len(data) - left
    synchronous = cluster.replication.mode is ReplicationMode.SYNCHRONOUS
    if not synchronous or not left or wanted <= cluster.replication.required_acks:
        return None
    return (
        f"{loss.what}: let commits wait for {wanted} standbys (replication.required_acks: {wanted}), so that"
        " every acknowledged write is on a node elsewhere too; or accept that a person decides"
    )


def _loss(cluster: Cluster, what: str, node_ids: list[str]) -> Loss:
    left = [node for node in cluster.nodes if node.node_id not in node_ids]
    primary = next(node for node in cluster.nodes if node.role is NodeRole.PRIMARY)
    lost_primary = primary.node_id in node_ids
    reasons = [*_no_quorum(cluster, left), *(_no_target if lost_primary else _no_commits)(cluster, left)]
    good = Effect.FAILS_OVER if lost_primary else Effect.GOES_ON
    return Loss(
        what=what,
        node_ids=tuple(node_ids),
        left=len(left),
        quorum=cluster.quorum,
        effect=Effect.STOPS if reasons else good,
        why="; ".join(reasons),
    )


def _no_quorum(cluster: Cluster, left: Sequence[Node]) -> Iterator[str]:
    if len(left) < cluster.quorum:
        yield f"{len(left)} of {len(cluster.nodes)} members are left, the quorum is {cluster.quorum}"


def _no_commits(cluster: Cluster, left: Sequence[Node]) -> Iterator[str]:
    standbys, acks = sum(node.holds_data for node in left) - 1, cluster.replication.required_acks
    if cluster.replication.mode is ReplicationMode.SYNCHRONOUS and standbys < acks:
        yield f"a commit waits for {acks} standbys, {standbys} are left"


def _no_target(cluster: Cluster, left: Sequence[Node]) -> Iterator[str]:
    answering = sum(node.holds_data for node in left)
    standbys = sum(node.holds_data for node in cluster.nodes) - 1
    needed = standbys - cluster.replication.required_acks + 1
    if not answering:
        yield "no other node holds data"
    elif cluster.replication.mode is ReplicationMode.SYNCHRONOUS and answering < needed:
        yield (
            f"to be certain of every acknowledged write {needed} of {standbys} standbys must answer,"
            f" {answering} are left"
        )


def _witnesses_needed(members: int, lost: int) -> int:
    """The fewest further members elsewhere that keep a majority when `lost` of the present ones are gone."""
    witnesses = 1
    while members - lost + witnesses < majority(members + witnesses):
        witnesses += 1
    return witnesses
