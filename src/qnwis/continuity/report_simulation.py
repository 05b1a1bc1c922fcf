"""What a simulation came to, as a report for people. Its JSON is the result itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .report_text import Document, Section, ms, refused
from .report_timeline import Bar
from .simulation import Event, SimulationResult

SIMULATED = "simulated"


def document_of_simulation(result: SimulationResult) -> Document:
    sections = (
        Section("Summary", tuple(_summary(result))),
        Section("Why", tuple(refused(result.refusal)) if result.refusal is not None else ()),
        Section(
            "Timeline",
            tuple((ms(event.t_ms), event.what) for event in result.timeline),
            ("simulated time", "what happened"),
            timeline=True,
        ),
        Section("Verification", tuple(_verification(result))),
        Section("Assumptions", tuple((one,) for one in result.assumptions)),
    )
    return Document(
        title=f"simulation of {result.scenario.value} on {result.cluster_id}",
        id=f"seed {result.seed}, policy {result.policy_id}; nothing real was read or changed",
        good=result.success,
        verdict="succeeded and verified" if result.success else "no verified failover",
        sections=tuple(section for section in sections if section.rows),
        bars=tuple(_bars(result.timeline)),
    )


def _bars(timeline: Sequence[Event]) -> Iterator[Bar]:
    """What the time went by with, until each event that comes later than the one before it."""
    before_ms = 0
    for event in timeline:
        if event.t_ms > before_ms:
            yield Bar(
                name=event.what,
                title=event.what,
                action=False,
                became=SIMULATED,
                from_ms=before_ms,
                actual_ms=event.t_ms - before_ms,
                expected_ms=None,
            )
        before_ms = event.t_ms


def _summary(result: SimulationResult) -> Iterator[tuple[str, ...]]:
    if result.detection_ms is not None:
        yield "detected after", ms(result.detection_ms)
    if (moved := result.failover) is not None:
        yield "service", f"from {moved.source_node} to {moved.target_node}"
        yield "took", f"{ms(moved.total_duration_ms)}, {moved.actions_executed} actions"
        yield "plan", moved.plan_digest
    if result.weights is not None:
        yield "weights", result.weights.told()


def _verification(result: SimulationResult) -> Iterator[tuple[str, ...]]:
    if (found := result.verification) is not None:
        yield "passed", "yes" if found.passed else "NO"
        yield from (("failed", failure) for failure in found.failures)
