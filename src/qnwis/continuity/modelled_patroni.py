"""What the actions of a plan by Patroni would do to a cluster on paper. Effects succeed where the node that
they speak to is alive."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from .evidence import NodeState
from .executor import Outcome, OutcomeStatus
from .orders import FencingEvidence, FencingEvidenceType
from .patroni_actions import (
    PatroniAction,
    PatroniDemoteCluster,
    PatroniFailover,
    PatroniFenceCluster,
    PatroniPromoteCluster,
    PatroniSwitchover,
)
from .topology import Cluster, NodeRole

SOURCE = "model"
"""Who speaks in modelled evidence."""


def carry_out(
    action: PatroniAction, cluster: Cluster, states: dict[str, NodeState], *, epoch: int, at: datetime
) -> Outcome:
    """The outcome; `states` (by node_id, without nodes that are gone) is changed."""
    match action:
        case PatroniSwitchover():
            return _hand_over(action, cluster, states, FencingEvidenceType.RELEASED, epoch, at)
        case PatroniFailover():
            return _hand_over(action, cluster, states, FencingEvidenceType.LEASE_EXPIRED, epoch, at)
        case PatroniDemoteCluster():
            return _demote(action, states, epoch, at)
        case PatroniFenceCluster():
            _lose(states, action.node_ids)
            attested = action.attested_by is not None
            kind = FencingEvidenceType.ATTESTED if attested else FencingEvidenceType.HOOK
            return _fenced(action, kind, f"{', '.join(action.node_ids)} are off", epoch, at)
        case PatroniPromoteCluster():
            if action.node_id not in states:
                return _failed(action, f"{action.node_id} is gone")
            _lead(states, action.node_id, cluster)
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.SUCCEEDED,
                changed=True,
                detail=f"{action.node_id} accepts writes",
            )


def _hand_over(
    action: PatroniSwitchover | PatroniFailover,
    cluster: Cluster,
    states: dict[str, NodeState],
    kind: FencingEvidenceType,
    epoch: int,
    at: datetime,
) -> Outcome:
    if action.node_id not in states:
        return _failed(action, f"{action.node_id} is gone")
    _stop_writing(states, (action.leader,))
    _lead(states, action.node_id, cluster)
    return _fenced(action, kind, f"{action.node_id} has the leader lock", epoch, at)


def _demote(action: PatroniDemoteCluster, states: dict[str, NodeState], epoch: int, at: datetime) -> Outcome:
    if action.node_id not in states:
        return _failed(action, f"{action.node_id} is gone")
    _stop_writing(states, action.node_ids)
    told = f"{action.node_id} is in recovery and follows {action.target}"
    return _fenced(action, FencingEvidenceType.RELEASED, told, epoch, at)


def _lead(states: dict[str, NodeState], leader: str, cluster: Cluster) -> None:
    """The leader is the primary of a new timeline, and all others alive follow it."""
    state = states[leader]
    timeline = 1 + max(other.timeline or 0 for other in states.values())
    end = state.write_lsn or state.receive_lsn or 0
    states[leader] = state.model_copy(
        update={
            "role": NodeRole.PRIMARY,
            "writable": True,
            "in_recovery": False,
            "timeline": timeline,
            "write_lsn": end,
            "upstream": None,
            "streaming": False,
            "epoch": timeline,
        }
    )
    follow = {
        "in_recovery": True,
        "upstream": leader,
        "streaming": True,
        "timeline": timeline,
        "write_lsn": None,
        "receive_lsn": end,
        "replay_lsn": end,
        "epoch": timeline,
    }
    for node in cluster.nodes:
        other = states.get(node.node_id)
        if other is not None and node.node_id != leader and other.database_up and not other.writable:
            states[node.node_id] = other.model_copy(update=follow)


def _stop_writing(states: dict[str, NodeState], node_ids: Iterable[str]) -> None:
    for node_id in node_ids:
        if (state := states.get(node_id)) is not None and state.writable:
            states[node_id] = state.model_copy(
                update={"role": NodeRole.SECONDARY, "writable": False, "in_recovery": True}
            )


def _lose(states: dict[str, NodeState], node_ids: Collection[str]) -> None:
    for node_id in node_ids:
        states.pop(node_id, None)


def _fenced(
    action: PatroniAction, kind: FencingEvidenceType, detail: str, epoch: int, at: datetime
) -> Outcome:
    holder = action.leader if isinstance(action, PatroniSwitchover | PatroniFailover) else action.node_id
    return Outcome(
        action_id=action.action_id,
        status=OutcomeStatus.SUCCEEDED,
        changed=True,
        detail=detail,
        fencing=FencingEvidence(
            type=kind, holder=holder, epoch=epoch, source=SOURCE, detail=f"{detail}, modelled", at=at
        ),
    )


def _failed(action: PatroniAction, why: str) -> Outcome:
    return Outcome(action_id=action.action_id, status=OutcomeStatus.FAILED, changed=False, detail=why)
