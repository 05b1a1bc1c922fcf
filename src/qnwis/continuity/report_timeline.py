"""A run's timeline: when each step and action began, how long it took, and how long it was expected to.

Progress has durations and no times of day; steps follow one another, and so do actions, so that sums give
the moments. What passes between two steps is not in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .executor import Outcome
from .model import Model
from .plan import Plan
from .run import StepProgress

EXECUTION = "execution"
"""The step under which a plan's actions stand."""


class Bar(Model):
    """One step of the runbook, or one action of the plan."""

    name: str
    title: str
    action: bool
    became: str
    """Status of the step or of the outcome; `pending` for an action that was not come to."""
    from_ms: float
    """Since the run's first step."""
    actual_ms: float | None
    """None where it did not run, or nobody measured it."""
    expected_ms: float | None
    note: str = ""

    @property
    def until_ms(self) -> float:
        return self.from_ms + (self.actual_ms or 0.0)


def bars(steps: Sequence[StepProgress], outcomes: Sequence[Outcome], plan: Plan | None) -> tuple[Bar, ...]:
    """In the order of the runbook, the actions below the step that carries them out."""
    return tuple(_bars(steps, outcomes, plan))


def _bars(steps: Sequence[StepProgress], outcomes: Sequence[Outcome], plan: Plan | None) -> Iterator[Bar]:
    at_ms = 0.0
    for step in steps:
        yield Bar(
            name=step.name,
            title=step.title,
            action=False,
            became=step.status.value,
            from_ms=at_ms,
            actual_ms=step.elapsed_ms,
            expected_ms=step.expected_ms,
            note=step.note,
        )
        if step.name == EXECUTION:
            yield from _actions(at_ms, outcomes, plan)
        at_ms += step.elapsed_ms or 0.0


def _actions(at_ms: float, outcomes: Sequence[Outcome], plan: Plan | None) -> Iterator[Bar]:
    known = {outcome.action_id: outcome for outcome in outcomes}
    expected = {a.action_id: a.estimate_ms for a in plan.actions} if plan is not None else {}
    for action_id in dict.fromkeys([*expected, *known]):
        outcome = known.get(action_id)
        took_ms = outcome.duration_ms if outcome is not None else None
        yield Bar(
            name=action_id,
            title=action_id,
            action=True,
            became=outcome.status.value if outcome is not None else "pending",
            from_ms=at_ms,
            actual_ms=took_ms,
            expected_ms=expected.get(action_id),
            note=outcome.detail if outcome is not None else "",
        )
        at_ms += took_ms or 0.0
