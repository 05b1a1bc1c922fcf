"""The guardian's rules, one by one: which refuses, what it says, and when it ends."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.detection import Finding, Verdict
from qnwis.continuity.guardian_rules import (
    HOUR,
    RETRY_FIRST,
    RETRY_LONGEST,
    Acknowledgement,
    Decision,
    Hold,
    PastRun,
    Pause,
    Propose,
    Quiet,
    Start,
    acknowledge,
    decide,
    remembered,
)
from qnwis.continuity.policy import Strategy
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import RunOutcome
from tests.unit.continuity.scenes import NOON, policy

MOVED = [RunOutcome.COMPLETED, RunOutcome.INCOMPLETE]
NOT_MOVED = [RunOutcome.ROLLED_BACK, RunOutcome.UNTOUCHED, RunOutcome.REFUSED]
ANN = Acknowledgement(by="ann", reason="looked at it", at=NOON)

FAILED = Verdict(node_id="node-1", finding=Finding.FAILED, why="say failed: all")
HEALTHY = Verdict(node_id="node-1", finding=Finding.HEALTHY, why="say healthy: all")
SUSPECTED = Verdict(
    node_id="node-1",
    finding=Finding.PARTITION_SUSPECTED,
    why="node-2 hears it",
    refusal=Refusal(rule="partition_suspected", message="node-2 hears it", remedy="look"),
)


def ran(outcome: RunOutcome, ago_s: float = 10, **fields: Any) -> PastRun:
    ended_at = NOON - timedelta(seconds=ago_s)
    return PastRun(
        **{"run_id": f"run-{ago_s:g}", "outcome": outcome, "ended_at": ended_at, **fields},
    )


def decided(
    *history: PastRun,
    primary: Verdict | None = FAILED,
    pause: Pause | None = None,
    watching_s: float = 3600,
    changed_s: float = 7200,
    at: datetime = NOON,
    **rules: Any,
) -> Decision:
    return decide(
        policy=policy(**{"cooldown_s": 300, "startup_grace_s": 10, "max_failovers_per_hour": 3, **rules}),
        primary=primary,
        history=history,
        pause=pause,
        watching_since=NOON - timedelta(seconds=watching_s),
        changed_at=NOON - timedelta(seconds=changed_s),
        now=at,
    )


def rule_of(decision: Decision) -> str | None:
    return decision.refusal.rule if isinstance(decision, Hold) else None


def ends(decision: Decision, rule: str, until: datetime) -> None:
    """It is this rule, it says when it ends, and then it ends."""
    assert isinstance(decision, Hold) and decision.refusal.rule == rule
    assert decision.until == until
    assert f"The rule ends at {until.isoformat()}" in decision.refusal.remedy


# ---- the verdict on the primary


@pytest.mark.parametrize("primary", [None, HEALTHY])
def test_nothing_is_decided_on_a_primary_that_is_not_called_failed(primary: Verdict | None) -> None:
    assert decided(primary=primary) == Quiet()


def test_a_suspected_partition_starts_nothing_and_is_looked_at_again() -> None:
    for strategy in Strategy:
        decision = decided(primary=SUSPECTED, strategy=strategy)
        assert decision == Hold(SUSPECTED.refusal or pytest.fail("none"), look_again=True)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (Strategy.AUTOMATIC, Start()),
        (Strategy.QUORUM_BASED, Start()),  # whether the quorum is there, the run's own assessment says
        (Strategy.MANUAL, Propose()),
    ],
)
def test_a_failed_primary_is_acted_on_as_the_strategy_says(strategy: Strategy, expected: Decision) -> None:
    assert decided(strategy=strategy) == expected


# ---- pause and grace


def test_a_pause_names_who_paused_and_ends_with_no_time() -> None:
    paused = decided(pause=Pause(by="ann", reason="network work", since=NOON))
    assert isinstance(paused, Hold) and paused.until is None and not paused.look_again
    assert "ann: network work" in paused.refusal.message and paused.refusal.rule == "guardian_paused"


def test_the_grace_after_a_start_ends_when_it_says() -> None:
    begun = NOON - timedelta(seconds=4)
    ends(decided(watching_s=4), "startup_grace", begun + timedelta(seconds=10))
    assert decided(watching_s=10) == Start()


# ---- cooldown: by kind and by outcome


@pytest.mark.parametrize("outcome", MOVED)
def test_a_failover_that_moved_the_primary_cools_down(outcome: RunOutcome) -> None:
    ends(decided(ran(outcome, 10)), "cooldown", NOON + timedelta(seconds=290))
    assert decided(ran(outcome, 300)) == Start()


@pytest.mark.parametrize("outcome", NOT_MOVED)
def test_an_attempt_that_moved_nothing_does_not_cool_down(outcome: RunOutcome) -> None:
    assert decided(ran(outcome, RETRY_FIRST.total_seconds())) == Start()


def test_the_cooldown_counts_from_the_last_failover_and_names_its_run() -> None:
    decision = decided(ran(RunOutcome.COMPLETED, 250), ran(RunOutcome.COMPLETED, 100), ran(NOT_MOVED[0], 50))
    ends(decision, "cooldown", NOON + timedelta(seconds=200))
    assert isinstance(decision, Hold) and decision.refusal.values["run_id"] == "run-100"


def test_another_kind_of_run_holds_nothing_back() -> None:
    """There is one kind so far; a stranger's stands for the ones to come."""
    of_another_kind = [ran(outcome, 1).model_copy(update={"kind": "another"}) for outcome in RunOutcome]
    assert decided(*of_another_kind, *of_another_kind) == Start()
    assert rule_of(decided(*of_another_kind, ran(RunOutcome.COMPLETED, 1))) == "cooldown"


# ---- acknowledgement


def test_an_acknowledged_failover_cools_down_no_more() -> None:
    history = (ran(RunOutcome.COMPLETED, 100), ran(RunOutcome.COMPLETED, 10))
    after = acknowledge(history, "run-10", ANN)
    assert not isinstance(after, Refusal)
    assert after[1].acknowledged == ANN and after[0].acknowledged is None
    # It lifts that run's cooldown and no other's.
    ends(decided(*after), "cooldown", NOON + timedelta(seconds=200))
    both = acknowledge(after, "run-100", ANN)
    assert not isinstance(both, Refusal) and decided(*both) == Start()


def test_an_acknowledged_failover_counts_for_the_hourly_cap() -> None:
    run = ran(RunOutcome.COMPLETED, 10, acknowledged=ANN)
    assert rule_of(decided(run, max_failovers_per_hour=1)) == "max_failovers_per_hour"


def test_an_acknowledged_attempt_is_backed_off_from_no_more() -> None:
    assert decided(ran(RunOutcome.REFUSED, 1, acknowledged=ANN)) == Start()


def test_what_cannot_be_acknowledged_is_refused_with_what_can() -> None:
    unknown = acknowledge((ran(RunOutcome.COMPLETED, 10),), "run-99", ANN)
    assert isinstance(unknown, Refusal) and unknown.rule == "run_unknown"
    assert "run-10" in unknown.remedy
    again = acknowledge((ran(RunOutcome.COMPLETED, 10, acknowledged=ANN),), "run-10", ANN)
    assert isinstance(again, Refusal) and again.rule == "already_acknowledged" and "ann" in again.message
    nothing = acknowledge((), "run-99", ANN)
    assert isinstance(nothing, Refusal) and nothing.values["known"] == []


# ---- the cap


def test_the_hourly_cap_ends_when_the_oldest_that_counts_is_an_hour_ago() -> None:
    history = [ran(RunOutcome.COMPLETED, ago_s) for ago_s in (4000, 3000, 2000, 1000)]
    ends(decided(*history), "max_failovers_per_hour", history[1].ended_at + HOUR)
    assert decided(*history, at=history[1].ended_at + HOUR) == Start()
    assert decided(*history, max_failovers_per_hour=4) == Start()


def test_attempts_that_moved_nothing_do_not_count_for_the_cap() -> None:
    assert decided(*[ran(outcome, 1000) for outcome in NOT_MOVED], max_failovers_per_hour=1) == Start()


# ---- backing off


def test_each_attempt_that_moves_nothing_doubles_the_wait_up_to_a_limit() -> None:
    history: list[PastRun] = []
    waits = []
    for _ in range(12):
        history.append(ran(RunOutcome.REFUSED, 0, reason="no quorum"))
        decision = decided(*history)
        assert isinstance(decision, Hold) and decision.until is not None
        ends(decision, "backing_off", decision.until)
        assert "no quorum" in decision.refusal.message
        waits.append(decision.until - NOON)
    assert waits[0] == RETRY_FIRST and waits[-1] == RETRY_LONGEST
    assert all(later == min(2 * wait, RETRY_LONGEST) for wait, later in pairwise(waits))


def test_a_vote_that_changed_since_lets_the_next_attempt_start() -> None:
    refused = [ran(RunOutcome.REFUSED, ago_s) for ago_s in (30, 20, 1)]
    assert rule_of(decided(*refused)) == "backing_off"
    assert decided(*refused, changed_s=0.5) == Start()


def test_attempts_before_a_failover_are_forgotten() -> None:
    history = [ran(RunOutcome.REFUSED, 400 + n) for n in range(9)] + [ran(RunOutcome.COMPLETED, 350)]
    ends(decided(*history, ran(RunOutcome.REFUSED, 0)), "backing_off", NOON + RETRY_FIRST)


# ---- all together

runs = st.builds(
    ran,
    st.sampled_from([*MOVED, *NOT_MOVED]),
    st.floats(0, 7200),
    acknowledged=st.sampled_from([None, None, ANN]),
)


@given(
    st.lists(runs, max_size=12), st.floats(0, 60), st.floats(0, 7200), st.integers(1, 4), st.floats(0, 4000)
)
def test_waiting_until_the_rules_end_always_leads_to_a_start(
    history: list[PastRun], watching_s: float, changed_s: float, cap: int, cooldown_s: float
) -> None:
    """No rule that time ends is named with a wrong end, and none holds for ever."""
    at = NOON
    for _ in range(20):
        decision = decided(
            *history,
            at=at,
            watching_s=watching_s,
            changed_s=changed_s,
            max_failovers_per_hour=cap,
            cooldown_s=cooldown_s,
        )
        if decision == Start():
            return
        assert isinstance(decision, Hold) and decision.until is not None and decision.until > at
        at = decision.until
    pytest.fail(f"still held: {decision}")


@given(st.lists(runs, max_size=12), st.floats(0, 4000), st.integers(1, 4), st.floats(0, 7200))
def test_what_is_forgotten_changes_no_decision(
    history: list[PastRun], cooldown_s: float, cap: int, changed_s: float
) -> None:
    rules = {"cooldown_s": cooldown_s, "max_failovers_per_hour": cap}
    newest = ran(RunOutcome.REFUSED, 0, run_id="newest")
    kept = remembered(history, newest, policy(**rules), NOON)
    before, after = (decided(*runs, changed_s=changed_s, **rules) for runs in ((*history, newest), kept))
    assert before == after


def test_a_run_that_is_heard_of_again_stays_acknowledged_and_counts_once() -> None:
    run = ran(RunOutcome.COMPLETED, 10)
    kept = remembered([run.model_copy(update={"acknowledged": ANN})], run, policy(), NOON)
    assert [past.acknowledged for past in kept] == [ANN]
