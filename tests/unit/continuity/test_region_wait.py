"""How long a cluster's guardian waits for its region's: by what it was told, by its own clock, no longer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from qnwis.continuity.detection import Finding, Verdict
from qnwis.continuity.guardian_rules import Hold, Pause, Start, decide
from qnwis.continuity.heartbeat import NodeDetector
from qnwis.continuity.region_wait import (
    FailedSince,
    Heard,
    RegionFinding,
    RegionWord,
    answering,
    failed_after,
    heard_after,
    region_hold,
    wait_advice,
)
from qnwis.continuity.topology import Cluster, NodeStatus
from tests.unit.continuity.scenes import NOON, changed, cluster, node, policy

WELL, SUSPECTED, LOST = RegionFinding.WELL, RegionFinding.SUSPECTED, RegionFinding.LOST
WAIT_S, LISTEN_S = 180.0, 10.0

TWO_REGIONS = cluster(
    node("node-1", "primary"),
    node("node-2"),
    node("node-3", region="region-2"),
    vantages=("near", "far", "farther"),
    vantage_regions={"near": "region-1", "far": "region-2"},
)


def at(seconds: float) -> Any:
    return NOON + timedelta(seconds=seconds)


def word(finding: RegionFinding) -> RegionWord:
    return RegionWord(region="region-1", finding=finding, why="4 failed nodes of 2 clusters")


def heard(finding: RegionFinding, at_s: float = 0) -> Heard:
    return heard_after(None, word(finding), at(at_s))


def held(
    told: Heard | None, now_s: float, *, failed_s: float = 0, answers: tuple[str, ...] = (), **rules: Any
) -> Hold | None:
    return region_hold(policy(**rules), "region-1", told, at(failed_s), answers, at(now_s))


def rule_of(hold: Hold | None) -> str | None:
    return hold.refusal.rule if hold is not None else None


@pytest.mark.parametrize(
    ("told", "answers", "rule", "ends_s"),
    [
        (None, (), None, None),
        (heard(WELL), ("node-2",), None, None),
        (heard(WELL), (), "region_not_known_yet", LISTEN_S),
        (heard(SUSPECTED), (), "region_loss_suspected", WAIT_S),
        (heard(SUSPECTED), ("node-2",), "region_loss_suspected", WAIT_S),
        (heard(LOST), (), "region_loss_suspected", WAIT_S),
    ],
)
def test_what_it_waits_for(
    told: Heard | None, answers: tuple[str, ...], rule: str | None, ends_s: float | None
) -> None:
    hold = held(told, 1, answers=answers)
    assert rule_of(hold) == rule
    if hold is not None:
        assert ends_s is not None and hold.until == at(ends_s)
        assert hold.until.isoformat() in hold.refusal.remedy
        assert held(told, ends_s - 0.01, answers=answers) is not None
        assert held(told, ends_s, answers=answers) is None


def test_a_wait_says_its_rule_its_values_and_what_ends_it() -> None:
    hold = held(heard(SUSPECTED), 5)
    assert hold is not None
    assert hold.refusal.values["region_wait_s"] == WAIT_S
    assert hold.refusal.values["waits_since"] == NOON.isoformat()
    for end in (at(WAIT_S).isoformat(), "well again", "region evacuate region-1", "execute a plan"):
        assert end in hold.refusal.remedy


def test_a_policy_that_waits_for_nobody_waits_for_nobody() -> None:
    for finding in RegionFinding:
        assert held(heard(finding), 0, region_wait_s=0) is None


def test_a_word_of_a_guardian_that_died_holds_no_later_failure() -> None:
    assert held(heard(SUSPECTED), WAIT_S + 1, failed_s=WAIT_S + 1) is None
    assert held(heard(SUSPECTED), WAIT_S - 1, failed_s=WAIT_S - 2) is not None


@given(
    words=st.lists(st.tuples(st.floats(0, 400), st.sampled_from([None, *RegionFinding])), max_size=12),
    wait_s=st.floats(0, 300),
    later_s=st.floats(0, 100),
)
def test_whatever_is_said_and_by_whom_no_failure_is_held_longer_than_the_bound(
    words: list[tuple[float, RegionFinding | None]], wait_s: float, later_s: float
) -> None:
    """The words come at any time, in any order; None: the region's guardian says nothing more."""
    told, limits = None, {"region_wait_s": wait_s, "region_listen_s": 0}
    for at_s, finding in sorted(words, key=lambda said: said[0]):
        if finding is None:
            break
        told = heard_after(told, word(finding), at(at_s))
    assert held(told, wait_s + later_s, **limits) is None


@given(st.lists(st.sampled_from([SUSPECTED, LOST]), min_size=1, max_size=6))
def test_a_suspicion_that_goes_on_keeps_its_beginning(findings: list[RegionFinding]) -> None:
    told = None
    for number, finding in enumerate(findings):
        told = heard_after(told, word(finding), at(7 * number))
    assert told is not None and told.suspected_at == NOON
    assert heard_after(told, word(WELL), at(99)).suspected_at is None


def verdict(finding: Finding, node_id: str = "node-1") -> Verdict:
    return Verdict(node_id=node_id, finding=finding, why="test")


def test_a_failure_lasts_until_the_primary_is_healthy_or_another_one() -> None:
    since = failed_after(None, verdict(Finding.FAILED), NOON)
    assert since == FailedSince(node_id="node-1", at=NOON)
    for later in (Finding.FAILED, Finding.UNKNOWN, Finding.PARTITION_SUSPECTED):
        assert failed_after(since, verdict(later), at(9)) == since
    assert failed_after(since, None, at(9)) == since
    assert failed_after(since, verdict(Finding.HEALTHY), at(9)) is None
    assert failed_after(since, verdict(Finding.UNKNOWN, "node-2"), at(9)) is None
    other = failed_after(since, verdict(Finding.FAILED, "node-2"), at(9))
    assert other == FailedSince(node_id="node-2", at=at(9))
    for not_failed in (Finding.HEALTHY, Finding.UNKNOWN, Finding.PARTITION_SUSPECTED):
        assert failed_after(None, verdict(not_failed), NOON) is None


def seen(status: NodeStatus, misses: int = 0) -> NodeDetector:
    return NodeDetector(status=status, consecutive_misses=misses)


@pytest.mark.parametrize(
    ("vantage", "node_id", "detector", "answers"),
    [
        ("far", "node-2", seen(NodeStatus.HEALTHY), True),
        ("farther", "node-2", seen(NodeStatus.HEALTHY), True),
        ("far", "node-2", seen(NodeStatus.HEALTHY, misses=1), False),
        ("far", "node-2", seen(NodeStatus.FAILED, misses=3), False),
        ("far", "node-2", seen(NodeStatus.UNKNOWN), False),
        ("near", "node-2", seen(NodeStatus.HEALTHY), False),
        ("far", "node-3", seen(NodeStatus.HEALTHY), False),
    ],
)
def test_who_in_the_region_answers_somebody_outside_it(
    vantage: str, node_id: str, detector: NodeDetector, answers: bool
) -> None:
    failed = seen(NodeStatus.FAILED, misses=3)
    found = answering(TWO_REGIONS, {vantage: {"node-1": failed, node_id: detector}}, "node-1")
    assert found == (("node-2",) if answers else ())


@pytest.mark.parametrize("primary", [seen(NodeStatus.HEALTHY), seen(NodeStatus.UNKNOWN), None])
def test_what_a_vantage_said_before_the_failure_shows_nobody_alive(primary: NodeDetector | None) -> None:
    before = {"node-2": seen(NodeStatus.HEALTHY), **({} if primary is None else {"node-1": primary})}
    after = {"node-2": seen(NodeStatus.HEALTHY, misses=1), "node-1": seen(NodeStatus.FAILED, misses=3)}
    assert answering(TWO_REGIONS, {"far": after, "farther": before}, "node-1") == ()


def decided(region: Hold | None, pause: Pause | None = None) -> object:
    return decide(
        policy=policy(),
        primary=verdict(Finding.FAILED),
        history=(),
        pause=pause,
        watching_since=at(-3600),
        changed_at=at(-3600),
        now=NOON,
        region=region,
    )


def test_the_wait_is_the_last_of_the_rules() -> None:
    waiting = held(heard(SUSPECTED), 0)
    assert decided(waiting) == waiting and decided(None) == Start()
    paused = decided(waiting, Pause(by="ann", reason="test", since=NOON))
    assert isinstance(paused, Hold) and paused.refusal.rule == "guardian_paused"


def test_nobody_listens_longer_than_they_wait() -> None:
    with pytest.raises(ValidationError, match="region_listen_s 200: expected at most region_wait_s"):
        policy(region_listen_s=200)
    assert policy(region_listen_s=200, region_wait_s=0).region_wait_s == 0
    with pytest.raises(ValidationError, match="region_wait_s"):
        policy(region_wait_s=-1)


@pytest.mark.parametrize(("wait_s", "odd"), [(0, False), (60, True), (120, True), (121, False)])
def test_a_wait_that_ends_before_a_loss_is_one_is_advised_against(wait_s: float, odd: bool) -> None:
    assert (wait_advice(policy(region_wait_s=wait_s), dwell_s=120) is not None) is odd


@pytest.mark.parametrize(
    ("places", "told"),
    [({"nearby": "region-1"}, "one of `vantages`"), ({"near": "regoin-1"}, "one of `regions`")],
)
def test_a_misplaced_vantage_is_named(places: dict[str, str], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        changed(TWO_REGIONS, vantage_regions=places)
    assert isinstance(changed(TWO_REGIONS, vantage_regions={}), Cluster)
