"""The end of a run before its last step: what remains is the audit."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.run import RunOutcome, StepStatus


class Ended(Exception):
    """The run goes no further: what remains is the audit. `step` is how the step that ended it is marked."""

    def __init__(
        self,
        outcome: RunOutcome,
        reason: str,
        *,
        refusal: Refusal | None = None,
        step: StepStatus = StepStatus.FAILED,
    ) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason
        self.refusal = refusal
        self.step = step


def end_if_refused(refusal: Refusal | None) -> None:
    """Raises Ended where a rule says no."""
    if refusal is not None:
        raise Ended(RunOutcome.REFUSED, str(refusal), refusal=refusal)
