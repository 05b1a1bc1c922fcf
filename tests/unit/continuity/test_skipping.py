"""Which steps of a run a person may have left out."""

from __future__ import annotations

import pytest

from qnwis.continuity.run import OF_A_CLUSTER, RunKind, StepProgress, StepStatus
from qnwis.continuity.skipping import skip_refusal
from qnwis.runbook import NEVER_SKIPPED, load_runbook, parse_runbook

ALLOWED = ("simulation",)


def steps(status: StepStatus = StepStatus.PENDING) -> tuple[StepProgress, ...]:
    return tuple(
        StepProgress(name=name, title=name.title(), expected_ms=0, status=status)
        for name in ("simulation", "execution")
    )


def test_a_step_that_the_runbook_allows_is_skipped_before_it_begins() -> None:
    assert skip_refusal("simulation", steps(), ALLOWED) is None


@pytest.mark.parametrize("status", [status for status in StepStatus if status is not StepStatus.PENDING])
def test_nothing_that_has_begun_is_skipped(status: StepStatus) -> None:
    refusal = skip_refusal("simulation", steps(status), ALLOWED)
    assert refusal is not None and refusal.rule == "step_has_begun"
    assert refusal.values["status"] == status.value


@pytest.mark.parametrize(
    ("step", "rule"), [("execution", "step_not_skippable"), ("exection", "no_such_step")]
)
def test_other_steps_are_refused_and_those_that_may_be_skipped_named(step: str, rule: str) -> None:
    refusal = skip_refusal(step, steps(), ALLOWED)
    assert refusal is not None and refusal.rule == rule and "simulation" in refusal.remedy


@pytest.mark.parametrize("kind", OF_A_CLUSTER)
def test_what_decides_acts_proves_or_records_is_never_skipped(kind: RunKind) -> None:
    runbook = load_runbook(kind)
    assert {step.name for step in runbook.steps} >= NEVER_SKIPPED
    assert "simulation" in runbook.may_be_skipped
    for name in sorted(NEVER_SKIPPED):
        text = f"""---
runbook: {kind}
title: T
objective: O
steps:
  - {{name: {name}, title: It, expected_s: 0, may_be_skipped: true}}
---
## 1. It
text
"""
        with pytest.raises(ValueError, match=f"step '{name}' has may_be_skipped"):
            parse_runbook(text)
        assert parse_runbook(text.replace(", may_be_skipped: true", "")).may_be_skipped == ()
