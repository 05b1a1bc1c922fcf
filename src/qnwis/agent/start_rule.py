"""When a data directory that would come up writable may be started. Pure.

The invariant: an agent whose cluster went on without it does not find a majority that knows no higher
epoch than its own, because each failover raises the epoch of every node that takes part in it.
"""

from __future__ import annotations

from collections.abc import Mapping

from qnwis.continuity.evidence import NodeState
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import majority


def refuse_writable_start(
    node_id: str, epoch: int, answers: Mapping[str, NodeState | None]
) -> Refusal | None:
    """Why `node_id` must not start as a primary now, or None when it may.

    `answers` holds every peer; None means that it did not answer, which never counts for a start.
    """
    known = {peer: state for peer, state in answers.items() if state is not None}
    higher = {peer: state.epoch for peer, state in known.items() if state.epoch > epoch}
    if higher:
        return Refusal(
            rule="epoch_superseded",
            message=f"{node_id} would come up writable under epoch {epoch}; peers know a higher: {higher}",
            values={"epoch": epoch, "higher": dict(higher)},
            remedy="Order a rejoin to the new primary",
        )
    writable = sorted(peer for peer, state in known.items() if state.writable)
    if writable:
        return Refusal(
            rule="another_primary",
            message=f"{node_id} would come up writable, but {', '.join(writable)} accepts writes already",
            values={"writable": list(writable)},
            remedy="Order a rejoin to the primary",
        )
    votes, needed = 1 + len(known), majority(1 + len(answers))
    if votes < needed:
        silent = sorted(set(answers) - set(known))
        return Refusal(
            rule="no_majority",
            message=(
                f"{node_id} would come up writable, but only {votes} of {1 + len(answers)} agents answered,"
                f" itself included; {needed} are needed"
            ),
            values={"answered": sorted(known), "silent": list(silent), "votes": votes, "needed": needed},
            remedy=f"Start the agents of {', '.join(silent)}, or order a rejoin to the primary",
        )
    return None
