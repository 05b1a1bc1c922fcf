"""Clusters that Patroni manages: who may take over by Patroni's own rules, and what forbids to begin.

Within a region Patroni and its DCS keep a single primary, and they are asked to move it. Between regions
nobody does: there the order of a plan does (the old region is read-only, or fenced, before the new one is
promoted)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from .evidence import ClusterEvidence, NodeEvidence, NodeState
from .override import GiveUp
from .patroni_word import PatroniWord
from .refusal import Refusal
from .topology import Cluster, Node


def with_upstreams(cluster: Cluster, evidence: ClusterEvidence) -> ClusterEvidence:
    """The evidence with the node that each standby follows; Patroni says only names and addresses."""
    states = {n.node_id: n.state for n in evidence.nodes if n.state is not None}

    def resolved(seen: NodeEvidence) -> NodeEvidence:
        if seen.state is None or seen.state.patroni is None:
            return seen
        upstream = _upstream(cluster, states, seen.state, seen.state.patroni)
        return seen.model_copy(update={"state": seen.state.model_copy(update={"upstream": upstream})})

    return evidence.model_copy(update={"nodes": tuple(map(resolved, evidence.nodes))})


def _upstream(
    cluster: Cluster, states: Mapping[str, NodeState], state: NodeState, word: PatroniWord
) -> str | None:
    if state.writable or not state.database_up:
        return None
    if word.leader != state.node_id:
        return word.leader
    return None if word.standby_of is None else _node_at(cluster, states, word.standby_of)


def _node_at(cluster: Cluster, states: Mapping[str, NodeState], address: str) -> str:
    """Whose database an address leads to; behind an address that a region shares, its leader. An address that
    the topology does not have stands for itself, so that nobody takes it for a node of this cluster."""
    there = [node for node in cluster.nodes if address_of(node) == address]
    if not there:
        return address
    leaders = [
        state.patroni.leader
        for node in there
        if (state := states.get(node.node_id)) is not None and state.patroni is not None
    ]
    shared = [leader for leader in leaders if leader is not None and len(there) > 1]
    return shared[0] if shared else there[0].node_id


def address_of(node: Node) -> str | None:
    """`host:port` of its database."""
    return None if node.database is None else f"{node.database.host}:{node.database.port}"


# --- Who may take over --------------------------------------------------------------------------------------


def reason_against(
    cluster: Cluster, primary: NodeEvidence, node: Node, seen: NodeEvidence, lag_bytes: int | None
) -> str | None:
    """Why Patroni, which manages the cluster, would not, or must not, make this node the leader.

    `lag_bytes`: behind the primary's end of the log, else behind the most advanced standby; None where not
    known.
    """
    word = seen.state.patroni if seen.state is not None else None
    if word is None:
        return "is known to no Patroni: that does not say who its leader is"
    if word.nofailover:
        return "is tagged nofailover"
    if node.region != cluster.node(primary.node_id).region:
        return _against_leading_the_region(node, word)
    if word.standby_of is not None:
        return f"is in a standby cluster of {word.standby_of}, and so is the primary {primary.node_id}"
    if word.synchronous and not word.sync_standby:
        return "is no synchronous standby, and synchronous_mode is on"
    most = word.max_lag_bytes
    if most is not None and (lag_bytes is None or lag_bytes > most):
        return f"is {lag_bytes} bytes behind, maximum_lag_on_failover is {most}"
    return None


def _against_leading_the_region(node: Node, word: PatroniWord) -> str | None:
    if word.standby_of is None:
        return f"is in {node.region}, whose cluster is no standby cluster"
    if word.leader != node.node_id:
        return f"is not the standby leader of {node.region}, {word.leader or 'nobody'} is"
    return None


# --- What forbids to begin ----------------------------------------------------------------------------------


def refusal_to_move(
    cluster: Cluster, seen: Mapping[str, NodeEvidence], primary_id: str, target_id: str
) -> Refusal | None:
    """Why the service must not be moved to that target now, whoever asks. None without Patroni."""
    if not cluster.by_patroni:
        return None
    regions = {cluster.node(node_id).region for node_id in (primary_id, target_id)}
    for node in cluster.nodes:
        state = seen[node.node_id].state
        if node.region in regions and state is not None and state.patroni is not None:
            refusal = _paused(node, state.patroni) or _strangers(cluster, node, state.patroni)
            if refusal is not None:
                return refusal
    return _another_writes(cluster, seen, primary_id)


def _paused(node: Node, word: PatroniWord) -> Refusal | None:
    if not word.paused:
        return None
    return Refusal(
        rule="patroni_paused",
        message=f"Patroni in {node.region} is paused, says {node.node_id}: it stops no old primary by itself",
        values={"node_id": node.node_id, "region": node.region},
        remedy="End the maintenance mode: `patronictl resume`.",
    )


def _strangers(cluster: Cluster, node: Node, word: PatroniWord) -> Refusal | None:
    known = [one.node_id for one in cluster.in_region(node.region)]
    strangers: list[JsonValue] = [name for name in word.members if name not in known]
    if not strangers:
        return None
    return Refusal(
        rule="patroni_members_differ",
        message=f"Patroni in {node.region} has the members {', '.join(word.members)}, the topology has"
        f" {', '.join(known)} there",
        values={"region": node.region, "not_in_topology": strangers, "in_topology": [*known]},
        remedy="List every member in cluster.yaml, its name as node_id, in its Patroni cluster's region.",
    )


def _another_writes(cluster: Cluster, seen: Mapping[str, NodeEvidence], primary_id: str) -> Refusal | None:
    """An old region that came back as it was: nobody's DCS keeps two regions apart."""
    found = list(writing(cluster.nodes, seen))
    others: list[JsonValue] = [node_id for node_id in found if node_id != primary_id]
    if not others:
        return None
    if found == others and len(others) == 1:
        return Refusal(
            rule="leader_moved",
            message=f"{others[0]} accepts writes, and no longer {primary_id}: Patroni has moved its leader",
            values={"primary": primary_id, "writable": others},
            remedy="Plan again: the service has a primary.",
        )
    return Refusal(
        rule="two_primaries",
        message=f"Besides {primary_id}, {', '.join(map(str, others))} accepts writes",
        values={"primary": primary_id, "writable": others},
        remedy="Make the cluster of the older timeline a standby cluster:"
        " `patronictl edit-config -s standby_cluster.host=… -s standby_cluster.port=…` there.",
    )


def writing(nodes: Sequence[Node], seen: Mapping[str, NodeEvidence]) -> Iterator[str]:
    for node in nodes:
        state = seen[node.node_id].state
        if state is not None and state.writable:
            yield node.node_id


def fencing_refusal(
    cluster: Cluster, primary_id: str, target_id: str, give_up: GiveUp | None
) -> Refusal | None:
    """Whether the old region can be fenced, where a failover leaves it; Patroni there may live, unheard."""
    if not cluster.by_patroni:
        return None
    old, new = cluster.node(primary_id).region, cluster.node(target_id).region
    members = [node.node_id for node in cluster.in_region(old)]
    if old == new:
        return None if give_up is None else _nothing_to_give_up(old)
    if give_up is None:
        return None if cluster.fencing is not None else _cannot_fence(cluster, old, new)
    kept: list[JsonValue] = [node_id for node_id in members if node_id not in give_up.node_ids]
    if not kept and give_up.attested_by is not None:
        return None
    return Refusal(
        rule="region_not_attested",
        message=f"To leave {old} without a fencing hook, a person states that {', '.join(members)} are off;"
        f" given up are {', '.join(give_up.node_ids)}, attested by {give_up.attested_by or 'nobody'}",
        values={"members": [*members], "not_given_up": kept, "attested_by": give_up.attested_by},
        remedy="See that all of them are off, and say so: --override --lost … for each, with --attest-off.",
    )


def _nothing_to_give_up(region: str) -> Refusal:
    return Refusal(
        rule="patroni_needs_no_override",
        message=f"The target is in {region} too, where Patroni's DCS keeps a single primary",
        values={"region": region},
        remedy="Fail over without --lost.",
    )


def _cannot_fence(cluster: Cluster, old: str, new: str) -> Refusal:
    return Refusal(
        rule="region_cannot_be_fenced",
        message=f"{old} does not answer; nothing can switch its nodes off before {new} is promoted, and its"
        " Patroni may still have a primary",
        values={"region": old, "target_region": new, "cluster_id": cluster.cluster_id},
        remedy="Give the topology a fencing hook (`fencing.url`); or state that all nodes there are off:"
        " --override --lost … for each, with --attest-off.",
    )


# --- While a plan is carried out ----------------------------------------------------------------------------


def demoted_refusal(
    evidence: ClusterEvidence, *, old: str, region: Sequence[str], target: str
) -> Refusal | None:
    """Why the old region does not count as handed over yet: it is read-only, and the target has its log."""
    seen = {n.node_id: n.state for n in evidence.nodes}
    was, to = seen.get(old), seen.get(target)
    writable: list[JsonValue] = [
        node_id for node_id in region if (state := seen.get(node_id)) is not None and state.writable
    ]
    if writable:
        return _not_yet(f"{', '.join(map(str, writable))} accepts writes", writable=writable)
    if was is None or not was.database_up or was.in_recovery is not True:
        return _not_yet(f"{old} is not seen to be in recovery")
    if was.patroni is None or was.patroni.standby_of is None:
        return _not_yet(f"Patroni of {old} is not seen to be that of a standby cluster")
    if to is None or to.replay_lsn is None or was.replay_lsn is None:
        return _not_yet(f"the log positions of {old} and {target} are not known")
    if to.timeline != was.timeline or to.replay_lsn < was.replay_lsn:
        return _not_yet(
            f"{target} has replayed to {to.replay_lsn} of timeline {to.timeline}, {old} ended at"
            f" {was.replay_lsn} of timeline {was.timeline}",
            target_lsn=to.replay_lsn,
            end_lsn=was.replay_lsn,
        )
    return None


def _not_yet(why: str, **values: JsonValue) -> Refusal:
    return Refusal(
        rule="region_not_handed_over",
        message=f"The old region is not handed over: {why}",
        values=values,
        remedy="Look at its Patroni (`patronictl list`); the run undoes what it began.",
    )


def old_region_writes(evidence: ClusterEvidence, *, left: Sequence[str]) -> Refusal | None:
    """No member of the old region may write when the new one is promoted; who is silent is fenced."""
    seen = {n.node_id: n.state for n in evidence.nodes}
    writable: list[JsonValue] = [
        node_id for node_id in left if (state := seen.get(node_id)) is not None and state.writable
    ]
    if not writable:
        return None
    return Refusal(
        rule="old_region_writes",
        message=f"{', '.join(map(str, writable))} of the old region accepts writes",
        values={"writable": writable},
        remedy="Fence it before another region is promoted.",
    )


def patroni_automatic_refusal(cluster: Cluster) -> Refusal | None:
    """Within a region Patroni fails over by itself, and no automaton promotes another region."""
    if not cluster.by_patroni:
        return None
    return Refusal(
        rule="patroni_fails_over",
        message=f"Patroni manages {cluster.cluster_id}: within a region it fails over by itself, and leaving"
        " one is for a person to decide",
        values={"manager": cluster.manager.value},
        remedy="Nothing to do within the region. To leave it: `qnwis-continuity execute`, or"
        " `qnwis-continuity region evacuate`.",
    )


def patroni_agents_only_refusal(cluster: Cluster, what: str) -> Refusal | None:
    """What speaks to agents has nobody to speak to where Patroni manages the nodes."""
    if not cluster.by_patroni:
        return None
    return Refusal(
        rule="managed_by_patroni",
        message=f"Patroni manages {cluster.cluster_id}; {what} is for nodes that have agents",
        values={"manager": cluster.manager.value},
        remedy="By hand, `patronictl` speaks to Patroni; `plan --live` shows what a run would have it do.",
    )
