"""The records of what a guardian and Reprotect decide by themselves, and of what people say to a guardian.

What is proved by a signature has a record of its own before it counts (`decisions`); here is what nobody was
asked to prove, and what the guardian refused after that. A failover that starts has the record of its run.
"""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from .access import Deed
from .audit import SERVICE, Approval, AuditDraft, AuditResult, role_of
from .audit_layers import Citation, Layers, Step
from .decisions import operation_of
from .executor import Outcome, OutcomeStatus
from .model import Identifier, Model
from .refusal import Refusal

FAILOVER_REFUSED, REPROTECT = "failover_refused", "reprotect"
DECISION = "decision"
"""The artefact that has all of it."""


class GuardianDecision(Model):
    """One decision, as it is recorded. Recorded twice under one id, it is one."""

    decision_id: str = Field(min_length=1)
    cluster_id: Identifier
    operation: str
    by: str
    role: str
    reason: str
    at: AwareDatetime
    source_node: str | None = None
    """node_id of the primary."""
    target_node: str | None = None
    """node_id of who was to be brought back."""
    became: str
    success: bool
    refusal: Refusal | None = None


class GuardianDecisions(Model):
    """Some that are recorded together, in their order."""

    decisions: tuple[GuardianDecision, ...]


def refused_failover(
    cluster_id: str,
    guardian: str,
    primary: str | None,
    seen: str,
    refusal: Refusal,
    *,
    decision_id: str,
    at: AwareDatetime,
) -> GuardianDecision:
    """A failover that the guardian does not start. `seen`: what is known of the primary."""
    return GuardianDecision(
        decision_id=decision_id,
        cluster_id=cluster_id,
        operation=FAILOVER_REFUSED,
        by=guardian,
        role=SERVICE,
        reason=seen,
        at=at,
        source_node=primary,
        became=f"refused by {refusal.rule}",
        success=False,
        refusal=refusal,
    )


def said_by_a_person(
    cluster_id: str,
    deed: Deed,
    by: str,
    reason: str,
    refusal: Refusal | None,
    *,
    roles: tuple[str, ...],
    decision_id: str,
    at: AwareDatetime,
) -> GuardianDecision:
    """`roles`: that the person proved to have; none where they were taken at their word."""
    return GuardianDecision(
        decision_id=decision_id,
        cluster_id=cluster_id,
        operation=operation_of(deed),
        by=by,
        role=role_of(automatic=False, proved=roles),
        reason=reason,
        at=at,
        became="taken at their word" if refusal is None else f"refused by {refusal.rule}",
        success=refusal is None,
        refusal=refusal,
    )


def brought_back(
    cluster_id: str,
    by: str,
    primary: str | None,
    node_id: str,
    why: str,
    outcome: Outcome | str,
    *,
    decision_id: str,
    at: AwareDatetime,
) -> GuardianDecision:
    """A rejoin that Reprotect ordered. `why` the node was missing; `outcome`: a text where it failed."""
    done = isinstance(outcome, Outcome) and outcome.status is OutcomeStatus.SUCCEEDED
    said = outcome.detail if isinstance(outcome, Outcome) else outcome
    return GuardianDecision(
        decision_id=decision_id,
        cluster_id=cluster_id,
        operation=REPROTECT,
        by=by,
        role=SERVICE,
        reason=f"{node_id} {why}",
        at=at,
        source_node=primary,
        target_node=node_id,
        became=said or ("done" if done else "not done"),
        success=done,
    )


def draft_of_guardian(decision: GuardianDecision) -> AuditDraft:
    acted = decision.operation == REPROTECT and decision.success
    return AuditDraft(
        timestamp=decision.at,
        operation=decision.operation,
        cluster_id=decision.cluster_id,
        initiated_by=decision.by,
        role=decision.role,
        source_node=decision.source_node,
        target_node=decision.target_node,
        reason=decision.reason,
        approval=Approval(required=False),
        result=AuditResult(success=decision.success, duration_ms=0, actions_executed=int(acted)),
        run_id=decision.decision_id,
        refusal=decision.refusal,
        layers=Layers(
            l19_cited_evidence=(Citation(artefact=DECISION, says=decision.reason),),
            l20_verification=None,
            l21_trail=(Step(name=decision.operation, became=decision.became),),
            l22_confidence=None,
        ),
    )
