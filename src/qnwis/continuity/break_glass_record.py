"""The audit record of a break-glass plan that a person has carried out: written afterwards, and says so.

What it calls verified is what the verifier found when it read the world again; the rest is the person's word,
and the answers that the agents gave to the pasted commands.

A record is final. Whoever has more to say of the same run, or gave the wrong folder, adds a supplement: a
record of its own, which names the first one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

from pydantic import AwareDatetime, JsonValue, ValidationError

from .audit import UNAUTHENTICATED, Approval, AuditDraft, AuditResult
from .audit_layers import Citation, Layers, Step, rated_of, verified_of
from .break_glass import BreakGlass
from .break_glass_hands import PROMISE, PROMOTED
from .evidence import ClusterEvidence
from .lease_messages import Promised, PromiseRequest
from .model import Model, canonical_json
from .orders import FencingEvidence, FencingEvidenceType, Receipt
from .promises import lease_evidence, promotion_gate
from .refusal import Refusal
from .tokens import Token
from .verifier import VerificationReport

M = TypeVar("M", bound=Model)

OPERATION = "break_glass"

Answers = Mapping[str, str]
"""What the agents answered, by the name under which the steps kept it."""


class Recorded(Model):
    """Who says so, and what was verified."""

    by: str
    roles: tuple[str, ...]
    """That the person proved to have; empty where the name is only a claim."""
    recorded_at: AwareDatetime
    recorded_afterwards: bool = True
    reason: str
    attested: str | None
    """The person's word that the old primary was off; None where promises were kept or nobody says so."""
    read_again_and_found: tuple[str, ...]
    """Checks of the verifier that passed."""
    read_again_and_missed: tuple[str, ...]
    """Those that did not."""
    token: Token | None = None
    supplements: str | None = None
    """Of a supplement: audit_id of the first record of this run."""


def fencing_of(
    paper: BreakGlass, answers: Answers, *, attested: str | None, by: str, at: datetime
) -> FencingEvidence | None:
    """What keeps the old primary from writing: a majority's kept promises, else a person's word."""
    asked = PromiseRequest(
        epoch=paper.epoch, run_id=paper.run_id, membership_version=paper.membership.version
    )
    kept = [
        promised
        for name, text in answers.items()
        if name.startswith(f"{PROMISE}-") and (promised := _read(Promised, text)) is not None
    ]
    gate = promotion_gate(paper.membership, asked, kept, paper.plan.failover_target_id)
    primary = paper.plan.primary_node_id
    proven = None if isinstance(gate, Refusal) else lease_evidence(gate, primary, epoch=paper.epoch, at=at)
    if proven is not None or attested is None:
        return proven
    return FencingEvidence(
        type=FencingEvidenceType.ATTESTED,
        holder=primary,
        epoch=paper.epoch,
        source=by,
        detail=attested,
        at=at,
    )


def elapsed_ms(paper: BreakGlass, answers: Answers, *, now: datetime) -> float:
    """From when the steps were printed to the promotion; to `now` where its receipt was not kept."""
    receipt = _read(Receipt, answers.get(PROMOTED, ""))
    ended, began = now if receipt is None else receipt.at, paper.before.taken_at
    return 0.0 if began is None else max(0.0, (ended - began).total_seconds() * 1000)


def says_the_same(stored: Mapping[str, str], texts: Mapping[str, str]) -> bool:
    """Whether the artefacts of two records are of the same person, words and answers, whatever was found when
    the world was read again."""
    one, other = (_read(Recorded, found.get("recorded", "")) for found in (stored, texts))
    if one is None or other is None:
        return False
    typed = all(getattr(one, name) == getattr(other, name) for name in ("by", "roles", "reason", "attested"))
    return typed and _json(stored.get("answers", "")) == _json(texts["answers"])


def draft_of(
    paper: BreakGlass, answers: Answers, recorded: Recorded, report: VerificationReport, *, number: int = 1
) -> AuditDraft:
    """`number`: of the run's records; each from the second on is a supplement, with a run id of its own."""
    plan = paper.plan
    how = f"carried out by hand, and recorded afterwards by {recorded.by}"
    if recorded.supplements is not None:
        how += f"; a supplement to {recorded.supplements}"
    obeyed = [text for text in answers.values() if _read(Receipt, text) is not None]
    return AuditDraft(
        timestamp=recorded.recorded_at,
        operation=OPERATION,
        cluster_id=plan.cluster_id,
        initiated_by=recorded.by,
        role=", ".join(recorded.roles) or UNAUTHENTICATED,
        source_node=plan.primary_node_id,
        target_node=plan.failover_target_id,
        reason=f"{recorded.reason} ({how})",
        approval=Approval(required=paper.policy.approvals),  # which nobody could give
        result=AuditResult(
            success=report.passed,
            duration_ms=round(elapsed_ms(paper, answers, now=recorded.recorded_at)),
            actions_executed=len(obeyed),
        ),
        run_id=paper.run_id if number == 1 else f"{paper.run_id}-{number}",
        plan_digest=paper.digest,
        layers=_layers(report, answers),
    )


def _layers(report: VerificationReport, answers: Answers) -> Layers:
    return Layers(
        l19_cited_evidence=tuple(
            Citation(
                artefact=name, says="read before the steps were printed" if "before" in name else "read again"
            )
            for name in ("evidence_before", "evidence_after")
        ),
        l20_verification=verified_of(report),
        l21_trail=tuple(Step(name=name, became="answered") for name in sorted(answers)),
        l22_confidence=rated_of(report),
    )


def artefacts_of(
    paper: BreakGlass,
    answers: Answers,
    recorded: Recorded,
    report: VerificationReport,
    *,
    fencing: FencingEvidence | None,
    after: ClusterEvidence,
) -> dict[str, str]:
    """The texts that the record's manifest names."""
    named: dict[str, Model | None] = {
        "plan": paper.plan,
        "steps": paper,
        "evidence_before": paper.before,
        "evidence_after": after,
        "fencing": fencing,
        "verification": report,
        "recorded": recorded,
    }
    texts = {name: canonical_json(value) for name, value in named.items() if value is not None}
    return {**texts, "answers": canonical_json({name: _json(text) for name, text in answers.items()})}


def _read(kind: type[M], text: str) -> M | None:
    try:
        return kind.model_validate_json(text)
    except ValidationError:
        return None


def _json(text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(text)
    except ValueError:
        return text
    return value
