"""The record that what is registered was changed: a cluster, or the policy that governs it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from .audit import Approval, AuditDraft, AuditResult
from .audit_layers import Citation, Layers, Step
from .identity import Identity

BEFORE, AFTER = "before", "after"
"""The artefacts: what was registered, and what is now."""


class Change(StrEnum):
    """The operation of such a record."""

    REGISTER_CLUSTER = "register_cluster"
    SET_CLUSTER = "set_cluster"
    SET_POLICY = "set_policy"


def draft_of_change(
    change: Change,
    cluster_id: str,
    *,
    by: Identity,
    before: str | None,
    after: str,
    key: str,
    at: datetime,
) -> AuditDraft:
    """`before` and `after`: the digests; None where nothing was registered. `key`: of the request, which is
    recorded once however often it is sent."""
    what = change.value.replace("_", " ")
    cited = [Citation(artefact=AFTER, says=f"what is registered now: {after}")]
    if before is not None:
        cited.insert(0, Citation(artefact=BEFORE, says=f"what was registered: {before}"))
    return AuditDraft(
        timestamp=at,
        operation=change.value,
        cluster_id=cluster_id,
        initiated_by=by.name,
        role=", ".join(by.roles),
        source_node=None,
        target_node=None,
        reason=f"{what}: {before or 'nothing'} → {after}",
        approval=Approval(required=False),
        result=AuditResult(success=True, duration_ms=0, actions_executed=1),
        run_id=f"{change.value}-{cluster_id}-{key}",
        layers=Layers(
            l19_cited_evidence=tuple(cited),
            l20_verification=None,
            l21_trail=(Step(name=what, became="done"),),
            l22_confidence=None,
        ),
    )
