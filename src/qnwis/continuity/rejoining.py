"""Which order brings a node back as a standby of the present primary."""

from __future__ import annotations

from .evidence import ClusterEvidence, current_primary
from .orders import RejoinOrder
from .refusal import Refusal
from .topology import Cluster


def no_such_node(cluster: Cluster, node_id: str) -> Refusal | None:
    """Why a node cannot be brought back that the topology does not have, or has no more."""
    known = [node.node_id for node in cluster.nodes]
    if node_id in known:
        return None
    return Refusal(
        rule="node_to_rejoin_unknown",
        message=f"{node_id} is no node of {cluster.cluster_id} as it is registered now",
        values={"node_id": node_id, "known": known},
        remedy=f"Name one of {', '.join(known)}, or add the node to cluster.yaml",
    )


def rejoin_order(
    cluster: Cluster, evidence: ClusterEvidence, node_id: str, by: str, *, above_promises: bool = True
) -> RejoinOrder | Refusal:
    """The order, in the name of `by` (an id of this request), or why there is nobody to follow.

    Its epoch is the primary's; above what the node itself has promised where that is higher, as it is on one
    that an old primary asked in vain while both were cut off: it would obey nothing else any more. Without
    `above_promises` it is left alone then: the promise may be to a run that has only begun.

    Another primary, or the same one under a later epoch, is another effect: the receipt of the order to
    follow the one before says nothing of it.
    """
    primary = current_primary(cluster, evidence)
    state = evidence.of(primary).state if primary is not None else None
    if state is None or not state.writable:
        return Refusal(
            rule="no_primary_to_follow",
            message=f"No primary of {cluster.cluster_id} accepts writes now; there is nothing to follow",
            values={"primary": primary},
            remedy="Wait for the failover, or order one",
        )
    if state.node_id == node_id:
        return Refusal(
            rule="is_primary",
            message=f"{node_id} is the primary of {cluster.cluster_id}; a rejoin would drop its data",
            values={"primary": node_id},
            remedy="Name a node that is to follow it",
        )
    own = evidence.of(node_id).state
    promised = 0 if own is None else own.epoch
    if promised > state.epoch and not above_promises:
        return Refusal(
            rule="promised_to_a_run",
            message=f"{node_id} promised epoch {promised}, and {state.node_id} serves under {state.epoch}:"
            " a run may have begun",
            values={"promised": promised, "epoch": state.epoch},
            remedy=f"Wait for the run; if there is none, qnwis-continuity rejoin {node_id}",
        )
    return RejoinOrder(
        effect_id=f"rejoin-{node_id}-to-{state.node_id}-{state.epoch}-{by}",
        run_id=by,
        epoch=promised + 1 if promised > state.epoch else state.epoch,
        upstream=state.node_id,
    )
