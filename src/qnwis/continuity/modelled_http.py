"""What the actions of a plan for an application would do on paper. Effects succeed where the node that they
speak to is alive."""

from __future__ import annotations

from datetime import datetime

from .evidence import NodeState
from .executor import Outcome, OutcomeStatus
from .http_actions import HttpAction, HttpDemote, HttpFence, HttpPromote
from .modelled_patroni import SOURCE
from .orders import FencingEvidence, FencingEvidenceType
from .topology import NodeRole


def carry_out(action: HttpAction, states: dict[str, NodeState], *, epoch: int, at: datetime) -> Outcome:
    """The outcome; `states` (by node_id, without nodes that are gone) is changed."""
    match action:
        case HttpDemote():
            state = states.get(action.node_id)
            if state is None:
                return _failed(action, f"{action.node_id} is gone")
            states[action.node_id] = state.model_copy(update={"role": NodeRole.SECONDARY, "writable": False})
            return _fenced(action, FencingEvidenceType.RELEASED, "does not accept writes", epoch, at)
        case HttpFence():
            states.pop(action.node_id, None)
            by_word = action.attested_by is not None
            kind = FencingEvidenceType.ATTESTED if by_word else FencingEvidenceType.HOOK
            return _fenced(action, kind, "is off", epoch, at)
        case HttpPromote():
            state = states.get(action.node_id)
            if state is None:
                return _failed(action, f"{action.node_id} is gone")
            states[action.node_id] = state.model_copy(update={"role": NodeRole.PRIMARY, "writable": True})
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.SUCCEEDED,
                changed=True,
                detail=f"{action.node_id} accepts writes",
            )


def _fenced(
    action: HttpDemote | HttpFence, kind: FencingEvidenceType, told: str, epoch: int, at: datetime
) -> Outcome:
    return Outcome(
        action_id=action.action_id,
        status=OutcomeStatus.SUCCEEDED,
        changed=True,
        detail=f"{action.node_id} {told}",
        fencing=FencingEvidence(
            type=kind,
            holder=action.node_id,
            epoch=epoch,
            source=SOURCE,
            detail=f"{action.node_id} {told}, modelled",
            at=at,
        ),
    )


def _failed(action: HttpAction, why: str) -> Outcome:
    return Outcome(action_id=action.action_id, status=OutcomeStatus.FAILED, changed=False, detail=why)
