"""What the Temporal UI shows of a run."""

from __future__ import annotations

from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.run import RunKind, RunProgress, StepProgress, StepStatus
from workflows.checklist import checklist


def shown(*steps: StepProgress, below: str = "", **progress: object) -> list[str]:
    run = RunProgress.model_validate(
        {
            "kind": RunKind.PLANNED_MAINTENANCE,
            "cluster_id": "shop",
            "dry_run": False,
            "steps": steps,
            **progress,
        }
    )
    return checklist(run, below).splitlines()


def step(status: StepStatus, **fields: object) -> StepProgress:
    return StepProgress.model_validate(
        {"name": "execution", "title": "Execution", "expected_ms": 10000, "status": status, **fields}
    )


def test_times_are_in_the_unit_that_people_read() -> None:
    assert shown(step(StepStatus.DONE, elapsed_ms=451.4))[0] == (
        "- ☑ **Execution** (took 451 ms, expected 10.0 s)"
    )
    assert (
        shown(step(StepStatus.DONE, elapsed_ms=7_130, expected_ms=0))[0] == "- ☑ **Execution** (took 7.1 s)"
    )
    assert shown(step(StepStatus.FAILED, elapsed_ms=134_000, expected_ms=0))[0].endswith("(took 2 min 14 s)")


def test_what_takes_people_s_time_is_expected_at_no_time() -> None:
    assert shown(step(StepStatus.PENDING, expected_ms=0))[0] == "- ☐ **Execution**"


def test_a_running_step_shows_no_time_that_has_passed_already_when_it_is_read() -> None:
    assert shown(step(StepStatus.RUNNING, elapsed_ms=12.0))[0] == "- ▶ **Execution** (expected 10.0 s)"


def test_remarks_and_outcomes_stand_below_their_step() -> None:
    outcome = Outcome(
        action_id="2-promote", status=OutcomeStatus.SUCCEEDED, detail="it is", changed=True, duration_ms=222
    )
    lines = shown(
        step(StepStatus.RUNNING, note="waits", remarks=("for bob",)),
        StepProgress(name="audit", title="Audit", expected_ms=200),
        outcomes=(outcome,),
        undelivered=("ann was not told",),
    )
    assert lines[:5] == [
        "- ▶ **Execution** (expected 10.0 s) — waits",
        "    - for bob",
        "    - ☑ `2-promote` (222 ms) it is",
        "- ☐ **Audit** (expected 200 ms)",
        "- ⚠ ann was not told",
    ]


def test_the_runbook_s_commands_name_the_cluster() -> None:
    lines = shown(step(StepStatus.RUNNING), below="### Execution\n`abort <cluster_id>`")
    assert lines[1:] == ["", "### Execution", "`abort shop`"]
