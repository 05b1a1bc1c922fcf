"""What is left of a run that people interrupted, however they did: terminate, reset, continue."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.guardian_rules import PastRun
from qnwis.continuity.run import Assessment, FailoverRequest, RunOutcome
from qnwis.continuity.takeover import (
    UNFINISHED,
    PastExecution,
    Remains,
    looked_back,
    may_still_happen,
    unfinished,
)
from tests.unit.continuity.scenes import NOON, fenced, spec_plan

PLAN = spec_plan()
FENCE, PROMOTE = PLAN.actions[:2]
STARTED, SUCCEEDED, FAILED, UNKNOWN, SKIPPED, UNDONE = OutcomeStatus
FENCING = Outcome(action_id=FENCE.action_id, status=STARTED)
FENCED = Outcome(action_id=FENCE.action_id, status=SUCCEEDED, fencing=fenced())
PROMOTING = Outcome(action_id=PROMOTE.action_id, status=STARTED)
REQUEST = FailoverRequest(cluster_id="prod", initiated_by="ann", reason="test")


def execution(
    execution_id: str,
    *outcomes: Outcome,
    at: int = 0,
    run_id: str | None = None,
    ended: str | None = "terminated by bob: enough",
    outcome: RunOutcome | None = None,
) -> PastExecution:
    return PastExecution(
        execution_id=execution_id,
        run_id=run_id or execution_id,
        request=REQUEST,
        started_at=NOON + timedelta(seconds=at),
        ended=None if outcome is not None else ended,
        result=outcome and PastRun(run_id=run_id or execution_id, outcome=outcome, ended_at=NOON),
        assessment=Assessment(plan=PLAN, epoch=3),
        outcomes=outcomes,
    )


def what_is_left(*past: PastExecution) -> Remains | None:
    return looked_back(past, run_id="asking", reset=False, continues=None)


def test_a_terminated_run_that_had_begun_is_left_with_its_plan_and_its_log() -> None:
    left = what_is_left(execution("r1", FENCING, FENCED))
    assert left is not None and left.run_id == "r1" and left.assessment.epoch == 3
    assert (left.outcomes, left.ended) == ((FENCING, FENCED), "terminated by bob: enough")


def test_a_terminated_run_that_had_begun_nothing_leaves_nothing() -> None:
    assert what_is_left(execution("r1")) is None


@pytest.mark.parametrize("outcome", [o for o in RunOutcome if o is not RunOutcome.REFUSED])
def test_a_run_with_an_end_leaves_nothing(outcome: RunOutcome) -> None:
    assert what_is_left(execution("r1", FENCING, FENCED, outcome=outcome)) is None


def test_runs_that_were_refused_or_began_nothing_do_not_hide_the_unfinished_one() -> None:
    left = what_is_left(
        execution("r1", FENCING),
        execution("r2", at=1, outcome=RunOutcome.REFUSED),
        execution("r3", at=2),
    )
    assert left is not None and left.run_id == "r1"


def test_a_later_run_with_an_end_has_settled_what_was_before_it() -> None:
    assert what_is_left(execution("r1", FENCING), execution("r2", at=1, outcome=RunOutcome.COMPLETED)) is None


def test_a_run_that_goes_on_is_nobody_elses_to_finish() -> None:
    assert what_is_left(execution("r1", FENCING, ended=None)) is None


def test_a_run_is_finished_once() -> None:
    past = (
        execution("r1", FENCING),
        execution("r2", FENCING, run_id="r1", at=1, outcome=RunOutcome.ROLLED_BACK),
    )
    for named in ("r1", "r2", UNFINISHED):
        assert looked_back(past, run_id="r3", reset=False, continues=named) is None


@pytest.mark.parametrize("named", ["r1", "r1-reset", UNFINISHED])
def test_a_run_to_finish_may_be_named_by_any_of_its_executions(named: str) -> None:
    past = (execution("r1", FENCING), execution("r1-reset", FENCING, FENCED, run_id="r1", at=1))
    left = looked_back(past, run_id="r3", reset=False, continues=named)
    assert left is not None and (left.run_id, left.outcomes) == ("r1", (FENCING, FENCED))


def test_a_reset_after_the_end_still_knows_what_was_done() -> None:
    past = (execution("r1", FENCING, FENCED, PROMOTING, outcome=RunOutcome.COMPLETED),)
    left = looked_back(past, run_id="r1", reset=True, continues=None)
    assert left is not None and left.outcomes == (FENCING, FENCED, PROMOTING)


def test_the_last_end_of_several_is_the_one_that_is_told() -> None:
    left = what_is_left(
        execution("r1", FENCING, ended="reset: once more"),
        execution("r2", FENCING, FENCED, run_id="r1", at=1, ended="terminated by eve: stop"),
    )
    assert left is not None and (left.ended, left.execution_id) == ("terminated by eve: stop", "r2")


def test_only_an_effect_that_would_be_undone_is_waited_for() -> None:
    def waits(*outcomes: Outcome) -> bool:
        left = what_is_left(execution("r1", *outcomes))
        assert left is not None
        return may_still_happen(left)

    assert waits(FENCING)
    assert not waits(FENCING, FENCED)
    assert not waits(FENCING, FENCED, PROMOTING)


# --- Every history there can be -----------------------------------------------------------------------------


@dataclass
class History:
    """One run, and what people do to it; every execution looks back before it does anything."""

    data: st.DataObject
    truth: list[Outcome] = field(default_factory=list)
    past: list[PastExecution] = field(default_factory=list)
    looked: bool = True
    clock: int = 0

    def start(self, known: tuple[Outcome, ...], *, continues: bool) -> None:
        self.clock += 1
        name = f"e{self.clock}"
        # One that continues a run belongs to it from when it has looked back.
        run_id = name if continues else "e1"
        self.past.append(execution(name, *known, at=self.clock, run_id=run_id, ended=None))
        self.looked = self.clock == 1

    @property
    def live(self) -> PastExecution | None:
        return self.past[-1] if self.past[-1].ended is None else None

    def look_back(self) -> None:
        live = self.past[-1]
        continues = "e1" if live.run_id != "e1" else None
        left = looked_back(self.past[:-1], run_id="e1", reset=continues is None, continues=continues)
        assert (left.outcomes if left is not None else ()) == tuple(self.truth)
        self.past[-1] = live.model_copy(update={"run_id": "e1", "outcomes": tuple(self.truth)})
        self.looked = True

    def act(self) -> None:
        if not self.looked:
            self.look_back()
        last = self.truth[-1] if self.truth else None
        fresh = Outcome(
            action_id=self.data.draw(st.sampled_from([FENCE.action_id, PROMOTE.action_id])),
            status=self.data.draw(st.sampled_from(OutcomeStatus)),
        )
        if fresh == last:
            return
        self.truth.append(fresh)
        live = self.past[-1]
        self.past[-1] = live.model_copy(update={"outcomes": (*live.outcomes, fresh)})

    def end(self, how: str) -> None:
        self.past[-1] = self.past[-1].model_copy(update={"ended": how})

    def reset(self) -> None:
        base = self.data.draw(st.sampled_from([e for e in self.past if e.run_id == "e1"]))
        if self.live is not None:
            self.end("reset: once more")
        kept = self.data.draw(st.integers(0, len(base.outcomes)))
        self.start(base.outcomes[:kept], continues=False)


@given(st.data())
def test_however_a_run_is_interrupted_whoever_goes_on_knows_all_that_was_done(data: st.DataObject) -> None:
    history = History(data)
    history.start((), continues=False)
    for _ in range(data.draw(st.integers(1, 15))):
        choices = ["reset"] + (["act", "terminate"] if history.live is not None else ["continue"])
        match data.draw(st.sampled_from(choices)):
            case "act":
                history.act()
            case "terminate":
                history.end("terminated by bob: enough")
            case "continue":
                history.start((), continues=True)
            case "reset":
                history.reset()
    if history.live is not None:
        history.end("terminated by bob: enough")
    left = unfinished(history.past)
    assert (left.outcomes if left is not None else ()) == tuple(history.truth)
