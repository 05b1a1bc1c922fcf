"""What a run meant for writes: how long none could be acknowledged, and what may be lost.

A run does not write by itself, so what clients saw is not in its record. These are the bounds that it has:
when the service is known to have ended on the old primary, and when it was promoted on the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from pydantic import ValidationError

from .evidence import ClusterEvidence, NodeEvidence
from .executor import OutcomeStatus
from .model import Model
from .outage import OUTAGE_MS, waited_for
from .report_timeline import EXECUTION, Bar
from .run import FailoverRequest, RunResult


class Writes(Model):
    moved: bool
    """Another node was promoted; otherwise nothing that follows was caused by the run."""
    gap_from: datetime | None
    """The first missed beat; of a switchover when the primary let no new writes in. None: not known."""
    gap_until: datetime | None
    """When the new primary was promoted. Clients also have to hear of its address."""
    gap_ms: float | None
    recovery_ms: float | None
    """As `Report.recovery_ms`."""
    released: bool
    """The old primary released its lease after the target had replayed its whole log: nothing is lost."""
    behind_bytes: int | None
    """By how much the target's log was behind the most advanced node that answered, when the evidence was
    taken; no loss by itself, because a target takes the rest from the others. None: not known."""


def writes_of(
    run: RunResult, request: FailoverRequest | None, evidence_before: str | None, timeline: Sequence[Bar]
) -> Writes:
    """`evidence_before`: the artefact's text."""
    facts = {name: value for outcome in run.outcomes for name, value in outcome.facts.items()}
    detection = request.detection if request is not None else None
    first_miss = detection.first_miss_at if detection is not None else None
    gap_from = first_miss or _time(facts.get("quiesced_at"))
    gap_until = _time(facts.get("promoted_at"))
    return Writes(
        moved=run.moved,
        gap_from=gap_from,
        gap_until=gap_until,
        gap_ms=_ms(gap_from, gap_until),
        recovery_ms=_recovery_ms(run, first_miss, timeline) if run.moved else None,
        released=handed_over(run),
        behind_bytes=_behind(run, evidence_before),
    )


def _recovery_ms(run: RunResult, first_miss: datetime | None, timeline: Sequence[Bar]) -> float | None:
    acting = next((bar for bar in timeline if bar.name == EXECUTION and not bar.action), None)
    if acting is None or acting.actual_ms is None:
        return None
    if first_miss is not None:
        return _ms(first_miss, run.started_at + timedelta(milliseconds=acting.until_ms))
    # Planned, or agreed to: nothing was down while people were asked.
    return acting.actual_ms if (waited_ms := _waited_ms(run)) is None else waited_ms


def _waited_ms(run: RunResult) -> float | None:
    """What the run measured, where it did something that the service did not wait for. None where it did not,
    and where it measured nothing, as older runs. Not what its actions took: each tells of its last attempt
    alone."""
    if run.plan is None or waited_for(run.plan) == run.plan.actions:
        return None
    measured = (outcome.facts.get(OUTAGE_MS) for outcome in run.outcomes)
    return next((float(ms) for ms in measured if isinstance(ms, int | float)), None)


def handed_over(run: RunResult) -> bool:
    """Whether the old primary released its lease after the target had replayed its whole log."""
    return any(o.status is OutcomeStatus.SUCCEEDED and "token" in o.facts for o in run.outcomes)


def _behind(run: RunResult, evidence_before: str | None) -> int | None:
    if run.plan is None or evidence_before is None:
        return None
    try:
        evidence = ClusterEvidence.model_validate_json(evidence_before)
    except ValidationError:
        return None
    known = {node.node_id: lsn for node in evidence.nodes if (lsn := _lsn(node)) is not None}
    target = known.get(run.plan.failover_target_id)
    return None if target is None else max(known.values()) - target


def _lsn(node: NodeEvidence) -> int | None:
    state = node.state
    if state is None:
        return None
    return state.write_lsn if state.write_lsn is not None else state.receive_lsn


def _ms(since: datetime | None, until: datetime | None) -> float | None:
    if since is None or until is None:
        return None
    # Two machines' clocks: what would be negative is none.
    return max(0.0, (until - since).total_seconds() * 1000)


def _time(value: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return time if time is not None and time.tzinfo is not None else None
