"""Runs as they are recorded, for the tests of reports."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from qnwis.continuity.access import ApprovalWorkflow
from qnwis.continuity.approvals import Vote, Window
from qnwis.continuity.audit import AuditRecord, chain, draft_of
from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.model import canonical_json
from qnwis.continuity.report import Report, report_of
from qnwis.continuity.run import (
    Detection,
    FailoverRequest,
    RunArtefacts,
    RunKind,
    RunOutcome,
    RunResult,
    StepProgress,
    StepStatus,
)

from .scenes import NOON, SPEC_CLUSTER, evidence, fenced, spec_plan, standby, with_dns
from .test_verifier import report as verified

KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
PLAN = spec_plan(with_dns(SPEC_CLUSTER))
TOOK_MS = (120.0, 60.0, 54.0, 8.0, None)
"""Of the plan's actions: fence, promote, repoint, flip, verify."""


def step(name: str, elapsed_ms: float | None, **fields: Any) -> StepProgress:
    status = StepStatus.PENDING if elapsed_ms is None else StepStatus.DONE
    known = {"title": name.capitalize(), "expected_ms": 200, "status": status}
    return StepProgress(**{**known, **fields}, name=name, elapsed_ms=elapsed_ms)


def outcomes() -> tuple[Outcome, ...]:
    facts: dict[str, dict[str, Any]] = {
        "promote_target": {"promoted_at": (NOON + timedelta(seconds=3)).isoformat()},
        "flip_dns": {"before": ["10.0.1.10"], "after": ["10.0.1.11"], "serial": 7},
    }
    return tuple(
        Outcome(
            action_id=action.action_id,
            status=OutcomeStatus.SKIPPED if action.kind == "repoint_standbys" else OutcomeStatus.SUCCEEDED,
            detail="node-3 follows already"
            if action.kind == "repoint_standbys"
            else f"{action.kind} is done",
            duration_ms=took_ms,
            facts=facts.get(action.kind, {}),
        )
        for action, took_ms in zip(PLAN.actions, TOOK_MS, strict=True)
    )


def failover(reason: str = "node-1 missed 3 beats", person: str = "ann", **fields: Any) -> RunArtefacts:
    """Detected at noon, promoted three seconds later; one person agreed."""
    window = Window(
        name="manual_failover",
        workflow=ApprovalWorkflow(required_approvers=1, allowed_roles=("sre_oncall",), timeout_sec=600),
        digest=PLAN.digest,
        initiator="bob",
        opened_at=NOON,
        votes=(Vote(person=person, roles=("sre_oncall",), approve=True, reason="go", at=NOON),),
    )
    known: dict[str, Any] = {
        "kind": RunKind.PRIMARY_FAILURE,
        "outcome": RunOutcome.COMPLETED,
        "reason": "all 5 actions of the plan are done",
        "cluster_id": "prod-cluster",
        "run_id": "run-1",
        "epoch": 1,
        "old_primary": "node-1",
        "new_primary": "node-2",
        "plan": PLAN,
        "plan_digest": PLAN.digest,
        "outcomes": outcomes(),
        "fencing": fenced(),
        "verification": verified(),
        "steps": (
            step("detection", 100.0),
            step("approval", 400.0),
            step("execution", 250.0, expected_ms=5000),
            step("notification", None, status=StepStatus.SKIPPED, note="by bob: they sit beside me"),
            step("verification", 40.0, expected_ms=1000),
        ),
        "approval": window,
        "started_at": NOON + timedelta(seconds=2),
        "ended_at": NOON + timedelta(seconds=4),
    }
    return RunArtefacts(
        request=FailoverRequest(
            cluster_id="prod-cluster",
            initiated_by="bob",
            reason=reason,
            detection=Detection(
                node_id="node-1",
                vantages=("site-a", "site-b"),
                misses=3,
                first_miss_at=NOON,
                detected_at=NOON + timedelta(seconds=2),
            ),
        ),
        evidence_before=evidence(SPEC_CLUSTER, standby("node-2", 990), standby("node-3", 1000)),
        evidence_after=None,
        result=RunResult(**{**known, **fields}),
    )


def texts_of(run: RunArtefacts) -> dict[str, str]:
    return {name: canonical_json(part) for name, part in run.parts().items()}


def record_of(run: RunArtefacts) -> AuditRecord:
    return chain(None, draft_of(run), texts_of(run), KEY.sign)


def reported(run: RunArtefacts) -> Report:
    return report_of(record_of(run), texts_of(run))
