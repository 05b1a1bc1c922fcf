"""The layers of an audit record: L19 cited evidence, L20 verification, L21 trail, L22 confidence.

Source: specification, "Continuity Auditor". Each is a summary to read; the whole of it is an artefact of the
record, whose hash stands in the record's manifest under the name that is cited.
"""

from __future__ import annotations

from collections.abc import Iterator

from .evidence import ClusterEvidence
from .model import Model
from .run import RunArtefacts
from .verifier import VerificationReport


class Citation(Model):
    """Something that the decision rests on."""

    artefact: str
    """Its name in the record's manifest."""
    says: str


class Verified(Model):
    """What the verifier found when it read the world again."""

    passed: bool
    checks: dict[str, bool]
    """By the check's name, whether it passed wherever it was made."""


class Step(Model):
    """One step of the runbook, or one action of the plan, and what became of it."""

    name: str
    became: str


class Rated(Model):
    score: int
    """0 to 100."""
    band: str


class Layers(Model):
    l19_cited_evidence: tuple[Citation, ...]
    l20_verification: Verified | None
    """None where nothing was changed that could be verified, or it was not come to."""
    l21_trail: tuple[Step, ...]
    """In the order of the runbook, then of the plan."""
    l22_confidence: Rated | None
    """None without verification: of what was not read again nobody is sure."""


def layers_of(artefacts: RunArtefacts) -> Layers:
    """Of a run that has ended."""
    result, report = artefacts.result, artefacts.result.verification
    steps = [Step(name=step.name, became=step.status.value) for step in result.steps]
    actions = [Step(name=one.action_id, became=one.status.value) for one in result.outcomes]
    return Layers(
        l19_cited_evidence=tuple(_cited(artefacts)),
        l20_verification=verified_of(report),
        l21_trail=(*steps, *actions),
        l22_confidence=rated_of(report),
    )


def verified_of(report: VerificationReport | None) -> Verified | None:
    if report is None:
        return None
    checks: dict[str, bool] = {}
    for check in report.checks:  # several may ask the same of several nodes
        checks[check.name] = checks.get(check.name, True) and check.ok
    return Verified(passed=report.passed, checks=checks)


def rated_of(report: VerificationReport | None) -> Rated | None:
    if report is None:
        return None
    return Rated(score=report.confidence.score, band=report.confidence.band.value)


def _cited(artefacts: RunArtefacts) -> Iterator[Citation]:
    request, result = artefacts.request, artefacts.result
    if (found := request.detection) is not None:
        seen = f"{found.node_id} failed, say {', '.join(found.vantages)} after {found.misses} misses"
        yield Citation(artefact="request", says=seen)
    for name, evidence in (
        ("evidence_before", artefacts.evidence_before),
        ("evidence_after", artefacts.evidence_after),
    ):
        if evidence is not None:
            yield Citation(artefact=name, says=_read(evidence))
    if (fencing := result.fencing) is not None:
        yield Citation(artefact="fencing", says=f"{fencing.type.value} of {fencing.holder}")
    if (refusal := result.refusal) is not None:
        yield Citation(artefact="refusal", says=refusal.rule)


def _read(evidence: ClusterEvidence) -> str:
    nodes = ", ".join(node.node_id for node in evidence.nodes)
    return f"read of {nodes or 'no node'}" + (f" at {evidence.taken_at:%FT%TZ}" if evidence.taken_at else "")
