"""The report of a run: its audit record and what that rests on, put together for people.

One model with several readers: the bundle's `report.md`, and Markdown, HTML and JSON of `qnwis-continuity
report`. Everything in it is read from the record and its artefacts. An artefact that this version cannot read
(a later one wrote it) leaves a note, never an error: the record still says what it says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import TypeVar

from pydantic import ValidationError

from .approvals import Vote
from .audit import AuditRecord
from .audit_layers import Citation, Rated, Step
from .executor import Outcome, OutcomeStatus
from .model import Model
from .orders import FencingEvidence
from .override import Suspension
from .plan import Plan
from .refusal import Refusal
from .region_run import OPERATIONS, RegionResult
from .regions import Moved
from .report_timeline import Bar, bars
from .report_writes import Writes, writes_of
from .run import FailoverRequest, RunKind, RunResult, StepStatus
from .verifier import VerificationReport

M = TypeVar("M", bound=Model)

NOT_EXECUTED = frozenset({StepStatus.PENDING.value, StepStatus.SKIPPED.value, OutcomeStatus.FAILED.value})
"""How a step or action stands that had no effect."""


class PlannedAction(Model):
    action_id: str
    kind: str
    estimate_ms: int


class DnsMove(Model):
    """What the service's name answered, as the authoritative servers had it."""

    action_id: str
    before: tuple[str, ...]
    after: tuple[str, ...]


class NotExecuted(Model):
    """A step of the runbook or an action of the plan that had no effect."""

    name: str
    became: str
    why: str
    """Empty where nothing is known."""


class Checked(Model):
    """One question of the verifier, and its answer."""

    name: str
    ok: bool
    detail: str = ""


class Proof(Model):
    """Where the record stands in its log. `audit verify` proves it; a report only repeats it."""

    sequence: int
    record_hash: str
    previous_hash: str
    manifest_hash: str
    signature: str
    manifest: dict[str, str]
    """Name of each artefact to its SHA-256."""


class Report(Model):
    audit_id: str
    run_id: str
    operation: str
    runbook: RunKind | None = None
    """By which the service was moved; None for what is no run of a single cluster."""
    cluster_id: str
    """Of an evacuation: the region."""
    success: bool
    """What the verifier said."""
    outcome: str
    """How it ended, a sentence."""
    started_at: datetime
    ended_at: datetime
    duration_ms: int
    recovery_ms: float | None = None
    """From the first missed beat, where there was one, else from when the run began to act, until its last
    action ended; of a switchover only the actions that the service waited for. None where nothing was moved.
    """
    old_primary: str | None
    new_primary: str | None
    """None where the service did not move, or nobody knows."""
    initiated_by: str
    role: str
    reason: str
    detected: str | None = None
    """Who found the primary failed."""
    refusal: Refusal | None = None
    evidence: tuple[Citation, ...] = ()
    plan_digest: str | None = None
    target: str | None = None
    plan: tuple[PlannedAction, ...] = ()
    approval_required: bool
    approved_by: str | None = None
    votes: tuple[Vote, ...] = ()
    timeline: tuple[Bar, ...] = ()
    fencing: FencingEvidence | None = None
    suspension: Suspension | None = None
    """Of an override: since when the guarantee of a single primary is suspended."""
    writes: Writes | None = None
    """None for what moves no service by itself: an evacuation, a review, an erasure."""
    dns: tuple[DnsMove, ...] = ()
    clusters: tuple[Moved, ...] = ()
    """Of an evacuation: how each cluster's run ended; each has a report of its own."""
    not_executed: tuple[NotExecuted, ...] = ()
    checks: tuple[Checked, ...] = ()
    verified: bool | None = None
    """None where nothing was verified."""
    confidence: Rated | None = None
    trail: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    proof: Proof


def report_of(record: AuditRecord, artefacts: Mapping[str, str]) -> Report:
    """`artefacts`: texts by their names in the record's manifest. Persons stay as both have them."""
    read = _Reader(artefacts)
    region = record.operation.removesuffix("_dry_run") in OPERATIONS.values()
    run = None if region else read.one(RunResult, "result")
    evacuation = read.one(RegionResult, "result") if region else None
    request = None if region else read.one(FailoverRequest, "request")
    plan = None if region else read.one(Plan, "plan")
    verification = read.one(VerificationReport, "verification")
    outcomes = run.outcomes if run is not None else ()
    ended = run or evacuation
    steps = ended.steps if ended is not None else ()
    timeline = bars(steps, outcomes, plan)
    began_at = record.timestamp - timedelta(milliseconds=record.result.duration_ms)
    writes = None if run is None else writes_of(run, request, artefacts.get("evidence_before"), timeline)
    layers = record.layers
    return Report(
        audit_id=record.audit_id,
        run_id=record.run_id,
        operation=record.operation,
        runbook=run.kind if run is not None else None,
        cluster_id=record.cluster_id,
        success=record.result.success,
        outcome=_outcome(record, run, evacuation),
        started_at=run.started_at if run is not None else began_at,
        ended_at=record.timestamp,
        duration_ms=record.result.duration_ms,
        recovery_ms=writes.recovery_ms if writes is not None else None,
        old_primary=record.source_node,
        new_primary=run.new_primary if run is not None else None,
        initiated_by=record.initiated_by,
        role=record.role,
        reason=record.reason,
        detected=_detected(request),
        refusal=record.refusal,
        evidence=layers.l19_cited_evidence if layers is not None else (),
        plan_digest=record.plan_digest,
        target=record.target_node,
        plan=tuple(_planned(plan)),
        approval_required=record.approval.required,
        approved_by=record.approval.approved_by,
        votes=record.approvals or (),
        timeline=timeline,
        fencing=read.one(FencingEvidence, "fencing"),
        suspension=read.one(Suspension, "suspension"),
        writes=writes,
        dns=tuple(_dns(outcomes)),
        clusters=evacuation.moved if evacuation is not None else (),
        not_executed=tuple(_not_executed(timeline, evacuation)),
        checks=tuple(_checked(record, verification)),
        verified=layers.l20_verification.passed
        if layers is not None and layers.l20_verification is not None
        else None,
        confidence=layers.l22_confidence if layers is not None else None,
        trail=layers.l21_trail if layers is not None else (),
        notes=(*(ended.notes if ended is not None else ()), *read.notes),
        proof=Proof(
            sequence=record.sequence,
            record_hash=record.record_hash,
            previous_hash=record.previous_hash,
            manifest_hash=record.manifest_hash,
            signature=record.signature,
            manifest=record.manifest,
        ),
    )


class _Reader:
    """Reads artefacts into models, and notes which it could not."""

    def __init__(self, artefacts: Mapping[str, str]) -> None:
        self._artefacts = artefacts
        self.notes: list[str] = []

    def one(self, kind: type[M], name: str) -> M | None:
        if (text := self._artefacts.get(name)) is None:
            return None
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "its text"
            self.notes.append(f"artefact {name} is not read by this version: {where}: {first['msg']}")
            return None


def _outcome(record: AuditRecord, run: RunResult | None, evacuation: RegionResult | None) -> str:
    ended = run or evacuation
    if ended is not None:
        return f"{ended.outcome.value}: {ended.reason}"
    if record.refusal is not None:
        return f"refused: {record.refusal.message}"
    return "success" if record.result.success else "no success"


def _detected(request: FailoverRequest | None) -> str | None:
    found = request.detection if request is not None else None
    if found is None:
        return None
    since = f", first at {found.first_miss_at:%T}" if found.first_miss_at is not None else ""
    return f"{found.node_id} missed {found.misses} beats{since}, say {', '.join(found.vantages)}"


def _planned(plan: Plan | None) -> Iterator[PlannedAction]:
    for action in plan.actions if plan is not None else ():
        yield PlannedAction(action_id=action.action_id, kind=action.kind, estimate_ms=action.estimate_ms)


def _checked(record: AuditRecord, verification: VerificationReport | None) -> Iterator[Checked]:
    """As the verifier put it; of what it wrote nothing else of, as the record sums it up."""
    if verification is not None:
        for check in verification.checks:
            yield Checked(name=check.name, ok=check.ok, detail=check.detail)
    elif record.layers is not None and (summed_up := record.layers.l20_verification) is not None:
        for name, ok in summed_up.checks.items():
            yield Checked(name=name, ok=ok)


def _dns(outcomes: tuple[Outcome, ...]) -> Iterator[DnsMove]:
    for outcome in outcomes:
        before, after = outcome.facts.get("before"), outcome.facts.get("after")
        if isinstance(before, list) and isinstance(after, list):
            yield DnsMove(
                action_id=outcome.action_id, before=tuple(map(str, before)), after=tuple(map(str, after))
            )


def _not_executed(timeline: tuple[Bar, ...], evacuation: RegionResult | None) -> Iterator[NotExecuted]:
    for bar in timeline:
        # A failed step ran; a failed action is certain to have had no effect.
        if bar.became in NOT_EXECUTED and (bar.action or bar.became != StepStatus.FAILED.value):
            yield NotExecuted(name=bar.name, became=bar.became, why=bar.note)
    for name in evacuation.not_begun if evacuation is not None else ():
        yield NotExecuted(name=name, became="not begun", why="")
