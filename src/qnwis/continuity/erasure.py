"""The record that a person was erased: by whom and why, and of whom only the commitment."""

from __future__ import annotations

from datetime import datetime

from .audit import UNAUTHENTICATED, Approval, AuditDraft, AuditResult

OPERATION = "erase_person"


def draft_of_erasure(alias: str, reason: str, *, by: str, at: datetime) -> AuditDraft:
    """`alias`: what stands for the person; `by`: whose name nobody proved."""
    return AuditDraft(
        timestamp=at,
        operation=OPERATION,
        cluster_id="audit",
        initiated_by=by,
        role=UNAUTHENTICATED,
        source_node=None,
        target_node=None,
        reason=f"{alias}: {reason}",
        approval=Approval(required=False),
        result=AuditResult(success=True, duration_ms=0, actions_executed=1),
        run_id=f"erase-{alias}",
    )
