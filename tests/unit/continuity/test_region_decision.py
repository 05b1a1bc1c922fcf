"""What a region's guardian sees of a cluster, and what it does about a loss: whom it tells and moves."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.detection import Finding, Verdict
from qnwis.continuity.guardian_rules import PastRun, Pause
from qnwis.continuity.leaving import answering_in
from qnwis.continuity.policy import Strategy
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.region_decision import (
    Begun,
    Evacuate,
    decide_region,
    region_answers,
    stays_manual,
    to_tell,
)
from qnwis.continuity.region_sight import ClusterInRegion, FailedFrom, HeldByGuardian, failed_from
from qnwis.continuity.region_wait import RegionFinding, RegionWord, heard_after
from qnwis.continuity.regions import RegionRules, RegionVerdict, judge_region
from qnwis.continuity.run import RunOutcome
from tests.unit.continuity.scenes import NOON, changed, cluster, evidence, node, policy, standby

RULES = RegionRules()
LOST = RegionVerdict(region="region-1", finding=RegionFinding.LOST, why="4 failed nodes", since=NOON)
AUTOMATIC, MANUAL, QUORUM = Strategy.AUTOMATIC, Strategy.MANUAL, Strategy.QUORUM_BASED

FOUR = cluster(
    node("node-1", "primary"),
    node("node-2"),
    node("node-3", region="region-2"),
    node("node-4", region="region-2"),
    node("node-5", "witness", region="region-3"),
    vantages=("v1", "v2", "v3"),
    vantage_regions={"v1": "region-1", "v2": "region-2", "v3": "region-3"},
)


def part(cluster_id: str, **fields: Any) -> ClusterInRegion:
    known: dict[str, Any] = {
        "primary_inside": True,
        "findings": {"n1": Finding.FAILED, "n2": Finding.FAILED},
        "seen_from": {"n1": FailedFrom.OUTSIDE, "n2": FailedFrom.OUTSIDE},
        "strategy": AUTOMATIC,
    }
    return ClusterInRegion(cluster_id=cluster_id, **{**known, **fields})


def rule_of(decision: Evacuate | Refusal | None) -> str | None:
    return decision.rule if isinstance(decision, Refusal) else None


# --- What is seen, and from where


@pytest.mark.parametrize(
    ("places", "saying", "found"),
    [
        ({"v1": "region-1", "v2": "region-2", "v3": "region-3"}, {"v2", "v3"}, FailedFrom.OUTSIDE),
        ({"v1": "region-1", "v2": "region-2", "v3": "region-3"}, {"v1", "v2"}, FailedFrom.INSIDE),
        ({"v1": "region-1", "v2": "region-2"}, {"v2", "v3"}, FailedFrom.UNPLACED),
        ({"v2": "region-2", "v3": "region-3"}, {"v2", "v3"}, FailedFrom.OUTSIDE),
        ({}, {"v1", "v2"}, FailedFrom.UNPLACED),
        ({}, {"v1"}, FailedFrom.INSIDE),
        ({"v1": "region-1", "v2": "region-1", "v3": "region-1"}, {"v1", "v2", "v3"}, FailedFrom.INSIDE),
    ],
)
def test_where_those_stand_who_call_a_node_failed(
    places: dict[str, str], saying: set[str], found: FailedFrom
) -> None:
    assert failed_from(changed(FOUR, vantage_regions=places), "region-1", saying) is found


@given(
    places=st.dictionaries(st.sampled_from(["v1", "v2", "v3"]), st.sampled_from(FOUR.regions)),
    saying=st.sets(st.sampled_from(["v1", "v2", "v3"])),
)
def test_vantages_in_the_region_alone_never_make_a_loss(places: dict[str, str], saying: set[str]) -> None:
    there = {vantage for vantage in saying if places.get(vantage) == "region-1"}
    topology = changed(FOUR, vantage_regions=places)
    assert failed_from(topology, "region-1", there) is FailedFrom.INSIDE
    assert failed_from(topology, "region-1", saying) is failed_from(topology, "region-1", saying - there)


def test_nodes_that_only_vantages_inside_call_failed_make_no_loss() -> None:
    inside = {"n1": FailedFrom.INSIDE, "n2": FailedFrom.INSIDE}
    for seen_from, finding in ((inside, RegionFinding.WELL), (None, RegionFinding.SUSPECTED)):
        seen = [part(name, seen_from=seen_from) for name in "ab"]
        assert judge_region("region-1", seen, RULES, None, NOON).finding is finding


def test_a_primary_that_a_standby_elsewhere_hears_shows_that_its_region_is_alive() -> None:
    """The watchers are cut off and not the region (GitHub, October 2018)."""
    heard = {"n1": Finding.PARTITION_SUSPECTED, "n2": Finding.FAILED}
    verdict = judge_region("region-1", [part("a", findings=heard), part("b")], RULES, None, NOON)
    assert verdict.finding is RegionFinding.WELL and "a/n1" in verdict.why


def held_by_guardian(saying: Collection[str] = ("v2", "v3"), **fields: Any) -> HeldByGuardian:
    statement = {"votes": {"node-1": {"detector": {"status": "failed", "consecutive_misses": 3}}}}
    known = {
        "primary_node_id": "node-1",
        "verdicts": {
            "node-1": Verdict(node_id="node-1", finding=Finding.FAILED, why="-"),
            **{
                f"node-{n}": Verdict(node_id=f"node-{n}", finding=Finding.HEALTHY, why="-") for n in (3, 4, 5)
            },
        },
        "statements": dict.fromkeys(saying, statement),
        "cluster_id": "prod",
    }
    return HeldByGuardian.model_validate({**known, **fields})


def test_what_a_clusters_guardian_holds_is_read_for_one_region() -> None:
    limits = policy(region_strategy=AUTOMATIC, evacuation_priority=4, startup_grace_s=0)
    found = held_by_guardian().of_region(FOUR, "region-1", limits, NOON)
    assert (found.primary_inside, found.priority, found.strategy) == (True, 4, AUTOMATIC)
    assert found.findings == {"node-1": Finding.FAILED} and found.failed_from_outside == ("node-1",)
    assert found.quorum_elsewhere and found.held_back is None and found.heard is None
    elsewhere = held_by_guardian().of_region(FOUR, "region-2", limits, NOON)
    assert not elsewhere.primary_inside and elsewhere.failed == () and not elsewhere.quorum_elsewhere
    near = held_by_guardian(saying=["v1", "v2"]).of_region(FOUR, "region-1", limits, NOON)
    assert near.failed == ()


def test_what_holds_a_guardian_back_and_what_it_was_told_is_read_too() -> None:
    limits = policy(cooldown_s=300, startup_grace_s=0)
    moved = PastRun(run_id="r", outcome=RunOutcome.COMPLETED, ended_at=NOON - timedelta(seconds=299))
    told = heard_after(None, RegionWord(region="region-1", finding=RegionFinding.LOST, why="-"), NOON)
    held = held_by_guardian(history=(moved,), regions={"region-1": told})
    assert held.of_region(FOUR, "region-1", limits, NOON).held_back == "cooldown"
    assert held.of_region(FOUR, "region-1", limits, NOON + timedelta(seconds=2)).held_back is None
    assert held.of_region(FOUR, "region-1", limits, NOON).heard is RegionFinding.LOST
    assert held.of_region(FOUR, "region-2", limits, NOON).heard is None
    paused = held_by_guardian(pause=Pause(by="ann", reason="work", since=NOON))
    assert paused.of_region(FOUR, "region-1", limits, NOON).held_back == "guardian_paused"


def test_a_node_answers_where_its_agent_does_or_a_standby_hears_it() -> None:
    said = evidence(FOUR, standby("node-2"), standby("node-3"))
    assert answering_in(FOUR, said, "region-1") == ("prod/node-2",)
    assert answering_in(FOUR, evidence(FOUR), "region-1") == ()
    hears = evidence(FOUR, standby("node-3", last_message_age_s=0.5))
    assert answering_in(FOUR, hears, "region-1") == ("prod/node-1",)


# --- What is done


@pytest.mark.parametrize("finding", [RegionFinding.WELL, RegionFinding.SUSPECTED])
def test_nothing_is_decided_before_a_loss_is_one(finding: RegionFinding) -> None:
    verdict = LOST.model_copy(update={"finding": finding})
    assert decide_region(verdict, [part("a"), part("b")], RULES, None) is None


def test_without_a_primary_in_it_there_is_nothing_to_decide() -> None:
    seen = [part(name, primary_inside=False) for name in "ab"]
    assert decide_region(LOST, seen, RULES, None) is None


def test_it_is_left_to_people_unless_a_policy_says_otherwise() -> None:
    decision = decide_region(LOST, [part("a", strategy=MANUAL), part("b", strategy=MANUAL)], RULES, None)
    assert isinstance(decision, Refusal) and decision.rule == "region_strategy_manual"
    assert decision.values["clusters"] == ["a", "b"]
    assert "qnwis-continuity region evacuate region-1 --reason …" in decision.remedy


def test_who_may_leaves_and_who_may_not_is_named_with_the_rule() -> None:
    seen = [
        part("a"),
        part("b", strategy=QUORUM, quorum_elsewhere=True),
        part("c", strategy=QUORUM),
        part("d", strategy=MANUAL),
        part("e", held_back="cooldown"),
        part("f", primary_inside=False),
    ]
    decision = decide_region(LOST, seen, RULES, None)
    assert isinstance(decision, Evacuate)
    assert decision.clusters == ("a", "b") and "4 failed nodes" in decision.why
    assert decision.left.keys() == {"c", "d", "e"}
    for name, told in (("c", "quorum"), ("d", "manual"), ("e", "cooldown")):
        assert told in decision.left[name]


def test_where_none_may_leave_each_ones_rule_is_told() -> None:
    decision = decide_region(LOST, [part("a", strategy=QUORUM), part("b", held_back="cooldown")], RULES, None)
    assert isinstance(decision, Refusal) and decision.rule == "no_cluster_may_leave"
    assert "quorum" in decision.message and "cooldown" in decision.message


@pytest.mark.parametrize(
    ("seen_from", "rule"),
    [
        ((FailedFrom.OUTSIDE, FailedFrom.OUTSIDE), None),
        ((FailedFrom.OUTSIDE, FailedFrom.UNPLACED), "not_seen_from_outside"),
        ((FailedFrom.UNPLACED, FailedFrom.UNPLACED), "not_seen_from_outside"),
        ((FailedFrom.INSIDE, FailedFrom.OUTSIDE), "not_seen_from_outside"),
    ],
)
def test_nothing_moves_unless_enough_clusters_are_seen_from_outside(
    seen_from: tuple[FailedFrom, FailedFrom], rule: str | None
) -> None:
    seen = [
        part(name, seen_from=dict.fromkeys(("n1", "n2"), one))
        for name, one in zip("ab", seen_from, strict=True)
    ]
    decision = decide_region(LOST, seen, RULES, None)
    assert rule_of(decision) == rule
    if isinstance(decision, Refusal):
        assert "vantage_regions" in decision.remedy


def test_for_one_loss_one_evacuation_is_begun_however_it_ended() -> None:
    seen = [part("a"), part("b")]
    for outcome in (None, *RunOutcome):
        begun = Begun(since=NOON, clusters=("a",), run_id="run-1", outcome=outcome, reason="because")
        decision = decide_region(LOST, seen, RULES, begun)
        assert isinstance(decision, Refusal) and decision.rule == "evacuation_begun"
        assert "run-1" in decision.message and "because" in decision.message
    later = LOST.model_copy(update={"since": NOON + timedelta(hours=1)})
    assert isinstance(decide_region(later, seen, RULES, begun), Evacuate)


CLUSTERS = st.builds(
    part,
    st.sampled_from("abcdef"),
    primary_inside=st.booleans(),
    strategy=st.sampled_from(Strategy),
    quorum_elsewhere=st.booleans(),
    held_back=st.sampled_from([None, "cooldown"]),
    seen_from=st.fixed_dictionaries({n: st.sampled_from(FailedFrom) for n in ("n1", "n2")}) | st.none(),
)


@given(st.lists(CLUSTERS, max_size=6, unique_by=lambda cluster: cluster.cluster_id))
def test_whatever_is_seen_only_clusters_leave_that_may(seen: list[ClusterInRegion]) -> None:
    decision = decide_region(LOST, seen, RULES, None)
    if not isinstance(decision, Evacuate):
        return
    by_id = {cluster.cluster_id: cluster for cluster in seen}
    for cluster_id in decision.clusters:
        leaving = by_id[cluster_id]
        assert leaving.primary_inside and leaving.strategy is not MANUAL and leaving.held_back is None
        assert leaving.quorum_elsewhere or leaving.strategy is AUTOMATIC
    outside = [cluster for cluster in seen if cluster.failed_from_outside]
    assert len(outside) >= RULES.min_clusters
    inside = {cluster.cluster_id for cluster in seen if cluster.primary_inside}
    assert inside == {*decision.clusters, *decision.left}


def test_who_was_told_something_else_is_told() -> None:
    seen = [part("a", heard=RegionFinding.LOST), part("b", heard=RegionFinding.WELL), part("c")]
    assert to_tell(LOST, seen, RULES, registered=3) == ("b", "c")
    well = LOST.model_copy(update={"finding": RegionFinding.WELL})
    assert to_tell(well, seen, RULES, registered=3) == ("a", "c")


def test_where_too_few_clusters_are_for_a_loss_nobody_is_told_and_nobody_waits() -> None:
    assert to_tell(LOST, [part("a")], RULES, registered=1) == ()


def test_at_the_last_moment_a_region_that_answers_is_not_left() -> None:
    refusal = region_answers("region-1", ("a/node-2",))
    assert refusal is not None and refusal.rule == "region_answers" and "a/node-2" in refusal.message
    assert region_answers("region-1", ()) is None
    assert "people" in stays_manual("region-1", "a").message
