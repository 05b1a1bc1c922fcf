"""The record of a decision about a person: whether somebody may do what they ask for, and by which proof.

Votes, starts, pauses, aborts and the like each have one of their own, refused ones too, besides the record of
the run that they are about.
"""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256

from .access import Deed, Person
from .audit import UNAUTHENTICATED, Approval, AuditDraft, AuditResult
from .audit_layers import Citation, Layers, Step
from .refusal import Refusal
from .tokens import Expected, Token

PREFIX = "decide_"
"""Begins the operation of such a record: `decide_approve`."""
ASKED = "asked"
"""The artefact that has what was asked for, with the token."""


def operation_of(deed: Deed) -> str:
    return f"{PREFIX}{deed.value}"


def draft_of_decision(
    token: Token | None,
    expected: Expected,
    found: Person | Refusal,
    *,
    claimed: str,
    used_by: str,
    at: datetime,
) -> AuditDraft:
    """Of one request: decided anew after a crash, it has the same `run_id` and so the same record.

    `claimed`: whom the request names, which is all that is known of who it was where it is refused.
    """
    refusal = found if isinstance(found, Refusal) else None
    about = f"run {expected.run_id}" if expected.run_id is not None else used_by
    said = token.claim.reason if token is not None else ""
    seed = f"{claimed} {token.claim.nonce if token is not None else ''} {used_by}"
    return AuditDraft(
        timestamp=at,
        operation=operation_of(expected.deed),
        cluster_id=expected.cluster_id,
        initiated_by=claimed,
        role=", ".join(found.roles) if isinstance(found, Person) else UNAUTHENTICATED,
        source_node=None,
        target_node=None,
        reason=said,
        approval=Approval(required=False),
        result=AuditResult(success=refusal is None, duration_ms=0, actions_executed=0),
        run_id=f"decision-{sha256(seed.encode()).hexdigest()[:32]}",
        plan_digest=expected.digest if expected.deed in {Deed.APPROVE, Deed.REJECT} else None,
        refusal=refusal,
        layers=Layers(
            l19_cited_evidence=(Citation(artefact=ASKED, says=f"about {about}"),),
            l20_verification=None,
            l21_trail=(
                Step(name=expected.deed.value, became="refused" if refusal is not None else "proved"),
            ),
            l22_confidence=None,
        ),
    )
