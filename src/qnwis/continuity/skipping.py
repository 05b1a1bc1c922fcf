"""Skipping: whether a person may have a step of a run left out."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .refusal import Refusal
from .run import StepProgress, StepStatus


def skip_refusal(name: str, steps: Sequence[StepProgress], may_be_skipped: Collection[str]) -> Refusal | None:
    """Why this step is not left out; None when it may be. `may_be_skipped` is what the runbook allows.

    A step that has begun is not cut off in the middle: that would be an abort.
    """
    step = next((step for step in steps if step.name == name), None)
    values = {"step": name, "may_be_skipped": [*may_be_skipped]}
    allowed = ", ".join(may_be_skipped) or "none"
    if step is None:
        return Refusal(
            rule="no_such_step",
            message=f"The runbook has no step {name}",
            values=values,
            remedy=f"Name a step that may be skipped: {allowed}.",
        )
    if name not in may_be_skipped:
        return Refusal(
            rule="step_not_skippable",
            message=f"The runbook does not allow the step {name} to be skipped",
            values=values,
            remedy=f"Steps that may be skipped: {allowed}. To stop the run: `qnwis-continuity abort`.",
        )
    if step.status is not StepStatus.PENDING:
        return Refusal(
            rule="step_has_begun",
            message=f"The step {name} is {step.status} already",
            values={**values, "status": step.status.value},
            remedy="Skip a step before it begins.",
        )
    return None
