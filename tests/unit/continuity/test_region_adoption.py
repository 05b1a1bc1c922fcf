"""What a region's guardian that is started anew takes up, and which loss that answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.detection import Finding
from qnwis.continuity.policy import Strategy
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.region_adoption import (
    FollowsUpon,
    PastEvacuation,
    TakenUp,
    follows_upon,
    is_over,
    taken_up,
)
from qnwis.continuity.region_decision import Begun, Evacuate, decide_region
from qnwis.continuity.region_plan import Direction
from qnwis.continuity.region_run import EvacuateRequest
from qnwis.continuity.region_sight import ClusterInRegion, FailedFrom
from qnwis.continuity.region_wait import RegionFinding
from qnwis.continuity.regions import RegionRules, RegionVerdict, judge_region
from qnwis.continuity.run import RunOutcome
from tests.unit.continuity.scenes import NOON

RULES = RegionRules(dwell_s=0, settle_s=60)
LOSS_BEGAN = NOON - timedelta(minutes=5)
BEGUN = Begun(since=LOSS_BEGAN, clusters=("a",), run_id="run-1", outcome=RunOutcome.ROLLED_BACK, reason="-")


def part(finding: Finding | None, cluster_id: str = "a") -> ClusterInRegion:
    found = {} if finding is None else {"n1": finding, "n2": finding}
    return ClusterInRegion(
        cluster_id=cluster_id,
        primary_inside=True,
        findings=found,
        seen_from=dict.fromkeys(found, FailedFrom.OUTSIDE) if finding is Finding.FAILED else {},
        strategy=Strategy.AUTOMATIC,
    )


def both(finding: Finding | None) -> list[ClusterInRegion]:
    return [part(finding, "a"), part(finding, "b")]


def past(run_id: str, *, by_guardian: bool = True, **fields: Any) -> PastEvacuation:
    lost = RegionVerdict(region="r", finding=RegionFinding.LOST, why="-", since=LOSS_BEGAN)
    request = EvacuateRequest(
        region="r",
        direction=fields.pop("direction", Direction.OUT),
        initiated_by="guardian-of-region-r" if by_guardian else "ann",
        reason="-",
        clusters=("a",),
        automatic=by_guardian,
        verdict=lost if by_guardian else None,
    )
    ended = {"goes_on": False, "outcome": RunOutcome.COMPLETED, "reason": "-", **fields}
    return PastEvacuation.model_validate({"run_id": run_id, "request": request, "started_at": NOON, **ended})


def running(run_id: str, **fields: Any) -> PastEvacuation:
    return past(run_id, goes_on=True, outcome=None, reason="goes on", **fields)


BACK = {"by_guardian": False, "direction": Direction.BACK}


@pytest.mark.parametrize(
    ("before", "run_id"),
    [
        ([], None),
        ([running("1"), past("0")], "1"),
        ([running("1", by_guardian=False)], "1"),
        ([past("1"), past("0")], "1"),
        ([past("1", outcome=RunOutcome.REFUSED)], "1"),
        ([past("1", outcome=None, reason="terminated by ann")], "1"),
        ([past("1", by_guardian=False)], None),
        ([past("2", by_guardian=False), past("1")], "1"),
        ([running("2", **BACK), past("1")], None),
        ([past("2", **BACK), past("1")], None),
        ([past("2", outcome=RunOutcome.REFUSED, **BACK), past("1")], "1"),
    ],
    ids=[
        "nothing_was_begun",
        "one_goes_on",
        "one_that_a_person_began_goes_on",
        "the_newest_of_two",
        "one_that_moved_nothing_counts_as_it_did_for_the_guardian_before",
        "one_that_was_terminated",
        "a_persons_that_has_ended_holds_nothing_back",
        "a_persons_hides_no_guardians",
        "clusters_come_back_just_now",
        "clusters_came_back_since",
        "none_came_back_for_it_was_refused",
    ],
)
def test_which_of_the_runs_before_is_taken_up(before: list[PastEvacuation], run_id: str | None) -> None:
    found = taken_up(before)
    assert (found and found.begun.run_id) == run_id


def test_what_is_taken_up_says_what_the_guardian_before_knew() -> None:
    assert taken_up([past("1", outcome=RunOutcome.INCOMPLETE, reason="not b")]) == TakenUp(
        begun=Begun(
            since=LOSS_BEGAN, clusters=("a",), run_id="1", outcome=RunOutcome.INCOMPLETE, reason="not b"
        ),
        goes_on=False,
        told=True,
    )
    people = taken_up([running("1", by_guardian=False)])
    assert people is not None and people.goes_on and not people.told
    assert people.begun.since == NOON, "nobody held a loss then; it counts from the run's start"


def judged(
    begun: Begun | None,
    verdict: RegionVerdict | None,
    seen: Sequence[ClusterInRegion],
    now: datetime,
    *,
    goes_on: bool = False,
) -> FollowsUpon:
    """As the guardian does on each report."""
    after = follows_upon("r", begun, verdict, seen, goes_on=goes_on)
    verdict = judge_region("r", seen, RULES, after.verdict, now)
    over = is_over(after, verdict, seen, goes_on=goes_on)
    return FollowsUpon(None if over else after.begun, verdict)


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_region_that_is_lost_still_is_lost_since_the_evacuation_was_begun_for_it(goes_on: bool) -> None:
    begun, verdict = judged(BEGUN, None, both(Finding.FAILED), NOON, goes_on=goes_on)
    assert verdict is not None and (verdict.finding, verdict.since) == (RegionFinding.LOST, LOSS_BEGAN)
    decision = decide_region(verdict, both(Finding.FAILED), RULES, begun)
    assert isinstance(decision, Refusal) and decision.rule == "evacuation_begun" and "run-1" in str(decision)


def test_a_region_that_is_alive_is_well_at_once_and_its_next_loss_is_another() -> None:
    begun, verdict = judged(BEGUN, None, both(Finding.HEALTHY), NOON)
    assert verdict is not None and verdict.finding is RegionFinding.WELL and begun is None
    begun, verdict = judged(begun, verdict, both(Finding.FAILED), NOON)
    assert verdict is not None
    assert isinstance(decide_region(verdict, both(Finding.FAILED), RULES, begun), Evacuate)


def test_a_region_that_people_leave_while_it_is_well_is_suspected_of_nothing() -> None:
    begun, verdict = judged(BEGUN, None, both(Finding.HEALTHY), NOON, goes_on=True)
    assert verdict is not None and verdict.finding is RegionFinding.WELL and begun == BEGUN


def test_a_loss_that_was_taken_up_ends_as_any_other_does() -> None:
    begun, verdict = judged(BEGUN, None, both(Finding.FAILED), NOON)
    later = NOON + timedelta(seconds=RULES.settle_s)
    for now, finding, kept in ((NOON, RegionFinding.SUSPECTED, BEGUN), (later, RegionFinding.WELL, None)):
        begun, verdict = judged(begun, verdict, both(Finding.HEALTHY), now)
        assert verdict is not None and (verdict.finding, begun) == (finding, kept)


@given(st.lists(st.sampled_from([Finding.FAILED, None, Finding.UNKNOWN]), max_size=8), st.booleans())
def test_while_nobody_in_the_region_is_seen_alive_no_second_evacuation_begins(
    reports: list[Finding | None], goes_on: bool
) -> None:
    """Whatever is reported first, and though nothing is known for a while: a guardian starts with that."""
    begun, verdict = BEGUN, None
    for after, finding in enumerate(reports):
        now = NOON + timedelta(minutes=after)
        begun, verdict = judged(begun, verdict, both(finding), now, goes_on=goes_on)  # type: ignore[assignment]
        assert verdict is not None
        assert not isinstance(decide_region(verdict, both(finding), RULES, begun), Evacuate)
