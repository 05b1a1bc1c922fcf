"""Clusters of an application that brings its own promote and demote: what forbids to begin, and when the old
node counts as one that does not write.

An application gives no lease and nobody votes, so the rule is one: before a node is promoted, each other node
is seen not to accept writes, or is fenced. A node that is silent may write."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from .evidence import ClusterEvidence, NodeEvidence
from .override import GiveUp
from .refusal import Refusal
from .run import FailoverRequest
from .topology import Cluster


def keeps_position(cluster: Cluster, *node_ids: str) -> bool:
    """Whether all these nodes tell how far their data reach."""
    applications = [cluster.node(node_id).http for node_id in node_ids]
    return all(one is not None and one.state.position is not None for one in applications)


# --- What forbids to begin ----------------------------------------------------------------------------------


def http_request_refusal(request: FailoverRequest, cluster: Cluster) -> Refusal | None:
    """What is not done to such a cluster, whatever the evidence."""
    if not cluster.by_http:
        return None
    if request.maintenance is not None and request.maintenance.back_after_s is not None:
        return not_with_http(
            cluster,
            "a drill or maintenance with its own way back",
            "Move the service (`maintenance run --target`), look, and move it back with a second run.",
        )
    attested = request.give_up is not None and request.give_up.attested_by is not None
    if request.override and not attested:
        return not_with_http(
            cluster,
            "an override on nobody's word",
            "State that the old node is off: --override --lost NODE --attest-off; or give the topology a"
            " fencing hook (`fencing.url`).",
        )
    return None


def http_refusal_to_move(
    cluster: Cluster, seen: Mapping[str, NodeEvidence], primary_id: str, target_id: str
) -> Refusal | None:
    """Besides the primary and the target, each node is seen not to accept writes."""
    if not cluster.by_http:
        return None
    rest = [node.node_id for node in cluster.nodes if node.node_id not in (primary_id, target_id)]
    return _may_write({node_id: seen[node_id] for node_id in rest})


def http_fencing_refusal(
    cluster: Cluster, seen: Mapping[str, NodeEvidence], primary_id: str, give_up: GiveUp | None
) -> Refusal | None:
    """Whether a failover can have evidence that the old node does not write."""
    if not cluster.by_http:
        return None
    if give_up is None:
        answers = seen[primary_id].state is not None
        return None if answers or cluster.fencing is not None else _cannot_fence(cluster, primary_id)
    if give_up.node_ids == (primary_id,) and give_up.attested_by is not None:
        return None
    return Refusal(
        rule="http_node_not_attested",
        message=f"A person states that {primary_id} is off, and no other node is given up; given up are"
        f" {', '.join(give_up.node_ids)}, attested by {give_up.attested_by or 'nobody'}",
        values={"primary": primary_id, "lost": [*give_up.node_ids], "attested_by": give_up.attested_by},
        remedy=f"See that {primary_id} is off, and say so: --override --lost {primary_id} --attest-off.",
    )


def _cannot_fence(cluster: Cluster, primary_id: str) -> Refusal:
    return Refusal(
        rule="http_node_cannot_be_fenced",
        message=f"{primary_id} does not answer: it may still accept writes, and nothing can switch it off",
        values={"node_id": primary_id, "cluster_id": cluster.cluster_id},
        remedy="Give the topology a fencing hook (`fencing.url`); or see that the node is off, and say so:"
        f" --override --lost {primary_id} --attest-off.",
    )


def _may_write(rest: Mapping[str, NodeEvidence]) -> Refusal | None:
    writable: list[JsonValue] = [n for n, e in rest.items() if e.state is not None and e.state.writable]
    silent: list[JsonValue] = [n for n, e in rest.items() if e.state is None or e.state.node_id != n]
    if not writable and not silent:
        return None
    told = [f"{n} accepts writes" for n in writable] + [f"{n} does not answer" for n in silent]
    return Refusal(
        rule="http_node_may_write",
        message=f"{', '.join(told)}: before another node is promoted, each is seen not to accept writes",
        values={"writable": writable, "silent": silent},
        remedy="Demote what accepts writes; bring back what is silent, or take it out of the topology once it"
        " is off for good.",
    )


def http_automatic_refusal(cluster: Cluster) -> Refusal | None:
    """Nothing fails over by itself where nothing can fence: a silent application may still write."""
    if not cluster.by_http or cluster.fencing is not None:
        return None
    return Refusal(
        rule="http_needs_fencing_hook",
        message=f"{cluster.cluster_id} is an application without a lease, and has no fencing hook: whether a"
        " silent node still writes is not known, so a failover is for a person to begin",
        values={"manager": cluster.manager.value},
        remedy="Give the topology a fencing hook (`fencing.url`); or `qnwis-continuity execute --override"
        " --lost NODE --attest-off` once the node is off.",
    )


def not_with_http(cluster: Cluster, what: str, remedy: str) -> Refusal:
    """`what`: as the subject of a sentence."""
    return Refusal(
        rule="managed_by_http",
        message=f"{cluster.cluster_id} is an application with manager: http; {what} is not for those",
        values={"manager": cluster.manager.value},
        remedy=remedy,
    )


def http_agents_only_refusal(cluster: Cluster, what: str) -> Refusal | None:
    """What speaks to agents, or models their leases, has nobody to speak to."""
    if not cluster.by_http:
        return None
    return not_with_http(
        cluster,
        what,
        "By hand, ask the application's own demote and promote; `plan --live` shows what a run would do.",
    )


def http_region_refusal(cluster: Cluster) -> Refusal | None:
    if not cluster.by_http:
        return None
    return not_with_http(
        cluster,
        "the evacuation of a region",
        "Move this service by itself: `qnwis-continuity maintenance run`, or `execute` where it is down.",
    )


# --- While a plan is carried out ----------------------------------------------------------------------------


def not_demoted(cluster: Cluster, evidence: ClusterEvidence, *, old: str, target: str) -> Refusal | None:
    """Why the old node does not count as demoted yet. That it answered the demote counts for nothing: it has
    to be seen not to accept writes; and where both tell a position, the target has all."""
    was, to = evidence.of(old).state, evidence.of(target).state
    if was is None or was.node_id != old:
        return _not_yet(f"{old} does not answer for its state")
    if was.writable:
        return _not_yet(f"{old} still accepts writes")
    if not keeps_position(cluster, old, target):
        return None
    if to is None or to.position is None or was.position is None:
        return _not_yet(f"the positions of {old} and {target} are not known")
    if to.position < was.position:
        return _not_yet(
            f"{target} is at position {to.position}, {old} ended at {was.position}",
            target_position=to.position,
            end_position=was.position,
        )
    return None


def _not_yet(why: str, **values: JsonValue) -> Refusal:
    return Refusal(
        rule="http_node_not_demoted",
        message=f"The old node is not demoted: {why}",
        values=values,
        remedy="Look at the application there; the run undoes what it began.",
    )


def others_write(cluster: Cluster, evidence: ClusterEvidence, *, target: str, left: str) -> Refusal | None:
    """Why the target must not be promoted: a node besides it may accept writes. Of `left`, the old node,
    there is evidence already, so it may be silent."""
    rest = {
        node.node_id: evidence.of(node.node_id)
        for node in cluster.nodes
        if node.node_id != target and not (node.node_id == left and evidence.of(node.node_id).state is None)
    }
    return _may_write(rest)
