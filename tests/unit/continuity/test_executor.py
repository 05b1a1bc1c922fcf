"""The stepper, over every way in which a run can go: failures, unknown ends, dead drivers, aborts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.executor import (
    LEFT_TO_DO,
    Do,
    Finish,
    Outcome,
    OutcomeStatus,
    RunEnd,
    Undo,
    advance,
    is_committed,
)
from qnwis.continuity.orders import FencingEvidence, FencingEvidenceType
from qnwis.continuity.plan import Action
from qnwis.continuity.policy import Policy
from qnwis.continuity.run import Maintenance
from qnwis.continuity.switchover import make_switchover
from tests.unit.continuity import patroni_scenes
from tests.unit.continuity.patroni_scenes import WELL, by_patroni
from tests.unit.continuity.scenes import fenced, spec_plan

PLAN = spec_plan()
FENCE, PROMOTE, REPOINT, FLIP, VERIFY = PLAN.actions
STARTED, SUCCEEDED, FAILED, UNKNOWN, SKIPPED, UNDONE = OutcomeStatus


def said(action: Action, status: OutcomeStatus = SUCCEEDED, detail: str = "") -> Outcome:
    evidence = fenced() if action is FENCE and status is SUCCEEDED else None
    return Outcome(action_id=action.action_id, status=status, detail=detail, fencing=evidence)


def test_the_plan_is_carried_out_in_its_order() -> None:
    log: list[Outcome] = []
    for action in PLAN.actions:
        assert advance(PLAN, log) == Do(action)
        log.append(said(action))
    end = advance(PLAN, log)
    assert isinstance(end, Finish)
    assert end.end is RunEnd.COMPLETED


def test_a_step_that_has_nothing_to_do_completes_the_run_all_the_same() -> None:
    log = [said(FENCE), said(PROMOTE), said(REPOINT), said(FLIP, SKIPPED), said(VERIFY)]
    assert advance(PLAN, log).end is RunEnd.COMPLETED  # type: ignore[union-attr]


@pytest.mark.parametrize("status", [FAILED, SKIPPED])
def test_a_fence_that_certainly_did_nothing_leaves_the_world_untouched(status: OutcomeStatus) -> None:
    assert advance(PLAN, [said(FENCE, status, "no hook")]) == Finish(
        RunEnd.UNTOUCHED, f"1-fence-node-1 {status}: no hook"
    )


def test_a_fence_of_unknown_effect_is_undone_and_the_reason_is_kept() -> None:
    log = [said(FENCE, UNKNOWN, "timed out")]
    assert advance(PLAN, log) == Undo(FENCE)
    assert advance(PLAN, [*log, said(FENCE, UNDONE)]) == Finish(
        RunEnd.ROLLED_BACK, "1-fence-node-1 unknown: timed out"
    )


def test_what_an_undo_left_to_people_is_said_first_at_the_end() -> None:
    undone = said(FENCE, UNDONE).model_copy(update={"facts": {LEFT_TO_DO: "switch node-1 on"}})
    assert advance(PLAN, [said(FENCE, UNKNOWN, "timed out"), undone]) == Finish(
        RunEnd.ROLLED_BACK, "LEFT TO DO: switch node-1 on; 1-fence-node-1 unknown: timed out"
    )


@pytest.mark.parametrize(
    "evidence",
    [None, fenced(kind=FencingEvidenceType.NONE), fenced(holder="node-2")],
    ids=["nothing", "none", "other"],
)
def test_success_without_evidence_for_the_primary_is_no_success(evidence: FencingEvidence | None) -> None:
    outcome = Outcome(action_id=FENCE.action_id, status=SUCCEEDED, fencing=evidence)
    assert advance(PLAN, [outcome]) == Undo(FENCE)
    end = advance(PLAN, [outcome, said(FENCE, UNDONE)])
    assert isinstance(end, Finish)
    assert end.end is RunEnd.ROLLED_BACK
    assert "no evidence that node-1" in end.reason


@pytest.mark.parametrize("kind", [k for k in FencingEvidenceType if k is not FencingEvidenceType.NONE])
def test_every_type_of_evidence_but_none_opens_the_gate(kind: FencingEvidenceType) -> None:
    outcome = Outcome(action_id=FENCE.action_id, status=SUCCEEDED, fencing=fenced(kind=kind))
    assert advance(PLAN, [outcome]) == Do(PROMOTE)


def test_a_promotion_that_certainly_failed_is_rolled_back() -> None:
    log = [said(FENCE), said(PROMOTE, FAILED, "older epoch")]
    assert not is_committed(PLAN, log)
    assert advance(PLAN, log) == Undo(FENCE)
    assert advance(PLAN, [*log, said(FENCE, UNDONE)]) == Finish(
        RunEnd.ROLLED_BACK, "2-promote-node-2 failed: older epoch"
    )


def test_an_abort_while_a_failure_is_being_undone_does_not_hide_it() -> None:
    log = [said(FENCE), said(PROMOTE, FAILED, "older epoch"), said(FENCE, UNDONE)]
    assert advance(PLAN, log, stop="enough") == Finish(
        RunEnd.ROLLED_BACK, "2-promote-node-2 failed: older epoch"
    )


@pytest.mark.parametrize("status", [STARTED, UNKNOWN])
def test_an_open_promotion_is_past_return_and_is_asked_again(status: OutcomeStatus) -> None:
    log = [said(FENCE), said(PROMOTE, status)]
    assert is_committed(PLAN, log)
    assert advance(PLAN, log, stop="enough") == Do(PROMOTE, again=True)


def test_what_patroni_may_still_do_is_left_to_people_and_the_verifier_says_who_serves() -> None:
    wanted, policy = Maintenance(target_node_id="e2"), Policy(policy_id="p", name="p")
    topology = by_patroni()
    plan = make_switchover(
        topology, policy, patroni_scenes.said(topology, *WELL), wanted, trigger_reason="test"
    ).plan
    assert plan is not None
    switch, flip, verify = plan.actions
    left = said(switch, UNKNOWN, "no answer").model_copy(update={"facts": {LEFT_TO_DO: "see who leads"}})
    assert advance(plan, [said(switch, UNKNOWN)]) == Do(switch, again=True)
    assert advance(plan, [left]) == Do(flip)
    assert advance(plan, [left, said(flip)]) == Do(verify)
    assert advance(plan, [left, said(flip), said(verify)]) == Finish(
        RunEnd.INCOMPLETE, "LEFT TO DO: see who leads; 2-switchover-e2 unknown: no answer"
    )


def test_any_other_promotion_is_asked_again_whatever_it_leaves_to_people() -> None:
    left = said(PROMOTE, UNKNOWN).model_copy(update={"facts": {LEFT_TO_DO: "look"}})
    assert advance(PLAN, [said(FENCE), left]) == Do(PROMOTE, again=True)


@pytest.mark.parametrize("status", [FAILED, UNKNOWN])
@pytest.mark.parametrize("action", [REPOINT, FLIP, VERIFY])
def test_past_return_later_actions_are_tried_and_the_run_is_incomplete(
    action: Action, status: OutcomeStatus
) -> None:
    log = [said(FENCE), said(PROMOTE)]
    for later in (REPOINT, FLIP, VERIFY):
        assert advance(PLAN, log, stop="enough") == Do(later)
        log.append(said(later, status, "why") if later is action else said(later))
    assert advance(PLAN, log) == Finish(RunEnd.INCOMPLETE, f"{action.action_id} {status}: why")


@pytest.mark.parametrize("action", [FENCE, PROMOTE, REPOINT, FLIP, VERIFY])
def test_an_action_whose_driver_died_is_asked_for_again(action: Action) -> None:
    done = [said(a) for a in PLAN.actions[: PLAN.actions.index(action)]]
    assert advance(PLAN, [*done, said(action, STARTED)]) == Do(action, again=True)


def test_an_abort_before_anything_touches_nothing() -> None:
    assert advance(PLAN, [], stop="changed my mind") == Finish(RunEnd.UNTOUCHED, "changed my mind")


@pytest.mark.parametrize("status", [STARTED, SUCCEEDED])
def test_an_abort_undoes_the_fence_and_its_reason_is_kept(status: OutcomeStatus) -> None:
    log = [said(FENCE, status)]
    assert advance(PLAN, log, stop="changed my mind") == Undo(FENCE)
    assert advance(PLAN, [*log, said(FENCE, UNDONE)], stop="changed my mind") == Finish(
        RunEnd.ROLLED_BACK, "changed my mind"
    )


def test_an_undone_fence_never_opens_the_gate_again() -> None:
    end = advance(PLAN, [said(FENCE), said(FENCE, UNDONE)])
    assert end == Finish(RunEnd.ROLLED_BACK, "1-fence-node-1 was undone")


def test_only_the_last_outcome_of_an_action_counts() -> None:
    log = [said(FENCE, STARTED), said(FENCE), said(PROMOTE, STARTED), said(PROMOTE, UNKNOWN), said(PROMOTE)]
    assert advance(PLAN, log) == Do(REPOINT)


def test_a_log_of_another_plan_is_an_error() -> None:
    with pytest.raises(ValueError, match="9-eat-lunch"):
        advance(PLAN, [Outcome(action_id="9-eat-lunch", status=SUCCEEDED)])


@pytest.mark.parametrize("before", [[], [said(FENCE, FAILED)], [said(FENCE), said(FENCE, UNDONE)]])
def test_a_log_with_a_promotion_before_its_fence_is_an_error(before: list[Outcome]) -> None:
    with pytest.raises(ValueError, match="without evidence"):
        advance(PLAN, [*before, said(PROMOTE, STARTED)])


# --- Every run there can be ---------------------------------------------------------------------------------


@dataclass
class Run:
    """A driver and a world that do anything they may: fail, leave it open, die, abort."""

    data: st.DataObject
    log: list[Outcome] = field(default_factory=list)
    effects: set[str] = field(default_factory=set)
    done: Counter[str] = field(default_factory=Counter)
    open: set[str] = field(default_factory=set)
    """Actions that may be asked for again: their end is not known."""
    stop: str | None = None
    committed: bool = False
    patience: int = 12
    """After so many steps the world answers, so that the run can end."""

    def go(self) -> Finish:
        for _ in range(60):
            if self.stop is None and self.data.draw(st.integers(0, 7), label="abort") == 0:
                self.stop = "abort"
            match advance(PLAN, self.log, stop=self.stop):
                case Do(action=action, again=again):
                    self._do(action, again)
                case Undo(action=action):
                    self._undo(action)
                case Finish() as finish:
                    return finish
        raise AssertionError(f"the run does not end: {self.log}")

    def _do(self, action: Action, again: bool) -> None:
        name = action.action_id
        assert again == (name in self.open)
        assert self.done[name] == 0 or name in self.open, f"{name} done twice"
        if action is not FENCE:
            assert FENCE.action_id in self.effects
            assert any(o.fencing is not None and o.action_id == FENCE.action_id for o in self.log)
        if action not in (FENCE, PROMOTE):
            assert PROMOTE.action_id in self.effects
        self.done[name] += 1
        self.patience -= 1
        self.log.append(said(action, STARTED))
        self.open.add(name)
        if self.patience > 0 and self.data.draw(st.integers(0, 4), label="dies") == 0:
            if self.data.draw(st.booleans(), label="effective"):
                self.effects.add(name)
            return
        status = self.data.draw(st.sampled_from(self._possible(name)), label=name)
        if status is SUCCEEDED or (status is UNKNOWN and self.data.draw(st.booleans(), label="effective")):
            self.effects.add(name)
        if status is not UNKNOWN:
            self.open.discard(name)
        self.log.append(said(action, status))

    def _possible(self, name: str) -> list[OutcomeStatus]:
        """A party may say `failed` only of what certainly had no effect."""
        open_ended = [UNKNOWN] if self.patience > 0 else []
        return [SUCCEEDED, *open_ended] if name in self.effects else [SUCCEEDED, FAILED, *open_ended]

    def _undo(self, action: Action) -> None:
        assert action is FENCE
        assert PROMOTE.action_id not in self.effects, "undone although promoted"
        assert not is_committed(PLAN, self.log)
        self.effects.discard(action.action_id)
        self.log.append(said(action, UNDONE))


@given(st.data())
def test_whatever_happens_what_was_begun_is_undone_or_completed(data: st.DataObject) -> None:
    run = Run(data)
    finish = run.go()
    if is_committed(PLAN, run.log):
        assert {FENCE.action_id, PROMOTE.action_id} <= run.effects
        assert finish.end in {RunEnd.COMPLETED, RunEnd.INCOMPLETE}
        assert all(run.done[action.action_id] for action in PLAN.actions)
    else:
        assert run.effects == set()
        assert finish.end in {RunEnd.UNTOUCHED, RunEnd.ROLLED_BACK}
    last = {o.action_id: o.status for o in run.log}
    assert (finish.end is RunEnd.COMPLETED) == (
        len(last) == len(PLAN.actions) and set(last.values()) == {SUCCEEDED}
    )
    assert finish.reason


@given(st.data())
def test_a_driver_that_keeps_only_the_last_outcomes_is_told_the_same(data: st.DataObject) -> None:
    run = Run(data)
    finish = run.go()
    last = {o.action_id: o for o in run.log}
    again = advance(PLAN, list(last.values()), stop=run.stop)
    assert isinstance(again, Finish)
    assert again.end is finish.end
