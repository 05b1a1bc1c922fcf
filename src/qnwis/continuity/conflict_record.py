"""The audit records of what a person does to the conflicts of an active/active cluster by command."""

from __future__ import annotations

from pydantic import AwareDatetime

from .audit import Approval, AuditDraft, AuditResult, role_of
from .conflicts import Conflict, Undo
from .model import Identifier, Model, canonical_json
from .tokens import Token
from .tombstones import Pruned

UNDO = "conflict_undo"
PRUNE = "conflict_prune"


class ByCommand(Model):
    """Who did it, when and why."""

    cluster_id: Identifier
    by: str
    roles: tuple[str, ...]
    """That the person proved to have; empty where the name is only a claim."""
    reason: str
    began_at: AwareDatetime
    ended_at: AwareDatetime
    token: Token | None = None


def run_of_undo(conflict_id: str) -> str:
    """Each conflict is undone at most once, and so is its record."""
    return f"conflict-{conflict_id}"


def draft_of_undo(done: ByCommand, conflict: Conflict) -> AuditDraft:
    return _draft(done, UNDO, run_of_undo(conflict.conflict_id), success=True)


def artefacts_of_undo(done: ByCommand, conflict: Conflict, undo: Undo, *, where: str) -> dict[str, str]:
    """`where`: the region in which it was written back; all others receive it."""
    return {
        "recorded": canonical_json(done),
        "conflict": canonical_json(conflict),
        "undo": canonical_json({**undo.model_dump(mode="json"), "written_in": where}),
    }


def draft_of_prune(done: ByCommand, pruned: Pruned) -> AuditDraft:
    """Successful where every region has forgotten all that was found."""
    everywhere = not pruned.left and all(count == pruned.found for count in pruned.by_region.values())
    return _draft(done, PRUNE, f"prune-{done.began_at:%Y%m%dT%H%M%S.%fZ}", success=everywhere)


def artefacts_of_prune(done: ByCommand, pruned: Pruned) -> dict[str, str]:
    return {"recorded": canonical_json(done), "pruned": canonical_json(pruned)}


def _draft(done: ByCommand, operation: str, run_id: str, *, success: bool) -> AuditDraft:
    return AuditDraft(
        timestamp=done.ended_at,
        operation=operation,
        cluster_id=done.cluster_id,
        initiated_by=done.by,
        role=role_of(automatic=False, proved=done.roles),
        source_node=None,
        target_node=None,
        reason=done.reason,
        approval=Approval(required=False),
        result=AuditResult(
            success=success,
            duration_ms=round((done.ended_at - done.began_at).total_seconds() * 1000),
            actions_executed=1,
        ),
        run_id=run_id,
    )
