"""The record of a change of what is registered: of a cluster, or of the policy that governs it.

It is made before the change, when nothing is left to do but to rename a file: no change is in force without a
record. A process that is killed between the two leaves a record of a change that was not made. Its request,
sent again, makes it; otherwise what the next record has as `before` shows it.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from .audit import Approval, AuditDraft, AuditResult
from .audit_layers import Citation, Layers, Step
from .identity import Identity

BEFORE, AFTER = "before", "after"
"""The artefacts: what was registered, and what is from this record on."""


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
    deed_id: str,
    at: datetime,
) -> AuditDraft:
    """`before` and `after`: the digests; None where nothing was registered. `deed_id`: of this one change,
    which is recorded once however often its request is sent; a store takes one with the same id for it."""
    what = change.value.replace("_", " ")
    cited = [Citation(artefact=AFTER, says=f"what is registered from here on: {after}")]
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
        run_id=f"{change.value}-{cluster_id}-{deed_id}",
        layers=Layers(
            l19_cited_evidence=tuple(cited),
            l20_verification=None,
            l21_trail=(Step(name=what, became="recorded, then made"),),
            l22_confidence=None,
        ),
    )
