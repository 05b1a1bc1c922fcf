"""The loss of a region: what counts as one, how it is left, and when the evacuation stops and asks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.detection import Finding
from qnwis.continuity.leaving import come_back, leave, unmoved
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.region_plan import Direction, Move, RegionPlan
from qnwis.continuity.region_sight import ClusterInRegion
from qnwis.continuity.regions import (
    Candidate,
    Moved,
    RegionFinding,
    RegionRules,
    RegionVerdict,
    decides_at,
    hold_before_next,
    judge_region,
    make_region_plan,
)
from qnwis.continuity.run import RunOutcome
from tests.unit.continuity.scenes import (
    NOON,
    cluster,
    evidence,
    node,
    policy,
    primary,
    spec_plan,
    standby,
)

RULES = RegionRules()
F, H, U = Finding.FAILED, Finding.HEALTHY, Finding.UNKNOWN


def seen(*clusters: Sequence[Finding]) -> list[ClusterInRegion]:
    return [
        ClusterInRegion(
            cluster_id=f"c{number}",
            primary_inside=True,
            findings={f"n{at}": finding for at, finding in enumerate(findings)},
        )
        for number, findings in enumerate(clusters, start=1)
    ]


def after(
    seconds: float,
    what: list[ClusterInRegion],
    before: RegionVerdict | None = None,
    rules: RegionRules = RULES,
) -> RegionVerdict:
    return judge_region("region-1", what, rules, before, NOON + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("what", "finding"),
    [
        (seen([F, F], [F, F]), RegionFinding.SUSPECTED),
        (seen([F], [F]), RegionFinding.SUSPECTED),
        (seen([F, U], [F, U]), RegionFinding.SUSPECTED),
        (seen([F, F, F]), RegionFinding.WELL),
        (seen([F, F], [U, U]), RegionFinding.WELL),
        (seen([F, F], [F, H]), RegionFinding.WELL),
        (seen([U, U], [U, U]), RegionFinding.WELL),
        ([], RegionFinding.WELL),
    ],
)
def test_what_counts_as_a_loss(what: list[ClusterInRegion], finding: RegionFinding) -> None:
    assert after(0, what).finding is finding


def test_a_partition_of_43_seconds_moves_nothing_and_a_loss_that_lasts_is_one() -> None:
    lost, well = seen([F, F], [F]), seen([H, H], [H])
    verdict = after(0, lost)
    assert decides_at(verdict, RULES) == NOON + timedelta(seconds=120)
    for second in (20, 42):
        verdict = after(second, lost, verdict)
        assert verdict.finding is RegionFinding.SUSPECTED
    healed = after(43, well, verdict)
    assert healed.finding is RegionFinding.SUSPECTED, "it may come again"
    assert decides_at(healed, RULES) == NOON + timedelta(seconds=103)
    assert after(103, well, healed).finding is RegionFinding.WELL
    assert after(120, lost, after(42, lost, verdict)).finding is RegionFinding.LOST


def test_what_comes_and_goes_is_one_loss() -> None:
    lost, well = seen([F, F], [F]), seen([H, H], [H])
    verdict = after(0, lost)
    for second in range(10, 120, 10):
        verdict = after(second, well if second % 20 else lost, verdict)
    assert after(120, lost, verdict).finding is RegionFinding.LOST


@given(
    st.lists(
        st.tuples(st.floats(0, 60), st.lists(st.lists(st.sampled_from([F, H, U]), max_size=3), max_size=3)),
        max_size=8,
    )
)
def test_it_is_never_lost_sooner_than_the_dwell_time_after_it_was_last_well(
    story: list[tuple[float, list[list[Finding]]]],
) -> None:
    verdict, now, well_at = None, 0.0, 0.0
    for pause, findings in story:
        now += pause
        verdict = after(now, seen(*findings), verdict)
        if verdict.finding is RegionFinding.WELL:
            well_at = now
        if verdict.finding is RegionFinding.LOST:
            assert now - well_at >= RULES.dwell_s - 1e-3


def candidate(
    cluster_id: str, priority: int = 0, *, refused: bool = False, loss: int | None = 0
) -> Candidate:
    no = Refusal(rule="no_suitable_target", message="none", remedy="add one")
    plan = spec_plan().model_copy(update={"cluster_id": cluster_id})
    return Candidate(
        cluster_id=cluster_id,
        priority=priority,
        how=Move.FAILOVER,
        plan=None if refused else plan,
        refusal=no if refused else None,
        predicted_loss_bytes=loss,
    )


def planned(*candidates: Candidate, **rules: int) -> RegionPlan:
    plan = make_region_plan("region-1", "test", candidates, RegionRules.model_validate(rules))
    assert isinstance(plan, RegionPlan)
    return plan


def test_the_important_ones_go_first_in_waves_and_who_cannot_go_is_named() -> None:
    plan = planned(
        candidate("b"), candidate("a"), candidate("z", 9), candidate("x", 3, refused=True), wave_size=2
    )
    assert [[move.cluster_id for move in wave] for wave in plan.waves] == [["z", "a"], ["b"]]
    assert [one.cluster_id for one in plan.unmovable] == ["x"]


def test_the_digest_covers_every_clusters_plan() -> None:
    one = planned(candidate("a"), candidate("b"))
    changed = candidate("b")
    assert changed.plan is not None
    other = changed.model_copy(update={"plan": changed.plan.model_copy(update={"policy_id": "another"})})
    assert one.digest == planned(candidate("b"), candidate("a")).digest
    assert one.digest != planned(candidate("a"), other).digest
    assert one.digest != planned(candidate("a")).digest


def test_the_loss_of_all_is_known_only_where_each_ones_is() -> None:
    assert planned(candidate("a", loss=5), candidate("b", loss=7)).predicted_loss_bytes == 12
    assert planned(candidate("a", loss=5), candidate("b", loss=None)).predicted_loss_bytes is None


def test_where_nothing_can_move_it_says_why() -> None:
    for candidates in ((), (candidate("a", refused=True),)):
        refusal = make_region_plan("region-1", "test", candidates, RULES)
        assert isinstance(refusal, Refusal) and refusal.rule == "nothing_to_move"


@pytest.mark.parametrize(
    ("outcomes", "stop_after", "holds"),
    [
        ((RunOutcome.COMPLETED, RunOutcome.COMPLETED), 1, False),
        ((RunOutcome.COMPLETED, RunOutcome.INCOMPLETE), 1, True),
        ((RunOutcome.COMPLETED, RunOutcome.REFUSED), 2, False),
        ((None, RunOutcome.ROLLED_BACK), 2, True),
    ],
)
def test_too_many_that_did_not_move_hold_the_next_wave(
    outcomes: tuple[RunOutcome | None, ...], stop_after: int, holds: bool
) -> None:
    plan = planned(*(candidate(name) for name in "abc"), wave_size=2, stop_after=stop_after)
    ended = [
        Moved(cluster_id=name, outcome=outcome, run_id=None, reason="-")
        for name, outcome in zip("ab", outcomes, strict=True)
    ]
    refusal = hold_before_next(plan, 0, ended)
    assert (refusal is not None and refusal.rule == "too_many_failed") is holds
    last = [Moved(cluster_id="c", outcome=RunOutcome.REFUSED, run_id=None, reason="-")]
    assert hold_before_next(plan, 1, last) is None, "nothing comes after it"


# --- one cluster ---

FOUR = cluster(
    node("node-1", "primary"),
    node("node-2"),
    node("node-3", region="region-2"),
    node("node-4", region="region-2"),
)


def test_a_cluster_fails_over_to_the_other_region_though_a_better_node_is_in_this_one() -> None:
    said = evidence(FOUR, standby("node-2"), standby("node-3"), standby("node-4"))
    limits = policy(min_healthy_nodes=1, evacuation_priority=3)
    found = leave(FOUR, limits, said, "region-1", reason="test")
    assert found is not None and found.plan is not None, found
    assert (found.how, found.priority, found.plan.failover_target_id) == (Move.FAILOVER, 3, "node-3")


def test_a_primary_that_serves_leaves_by_a_switchover() -> None:
    said = evidence(FOUR, primary("node-1"), *(standby(f"node-{number}") for number in (2, 3, 4)))
    found = leave(FOUR, policy(), said, "region-1", reason="test")
    assert found is not None and found.plan is not None, found
    assert (found.how, found.plan.failover_target_id) == (Move.SWITCHOVER, "node-3")
    assert leave(FOUR, policy(), said, "region-2", reason="test") is None
    assert leave(FOUR, policy(), said, "region-9", reason="test") is None


def test_without_a_node_elsewhere_it_stays_and_says_why() -> None:
    for states in ((primary("node-1"), standby("node-2")), (standby("node-2"),)):
        found = leave(FOUR, policy(require_quorum=False), evidence(FOUR, *states), "region-1", reason="test")
        assert found is not None and found.refusal is not None
        assert found.refusal.rule == "no_suitable_target"
        assert "node-2 is in region-1, which is left" in found.refusal.message


def test_a_cluster_comes_back_to_the_node_that_its_topology_names() -> None:
    away = evidence(FOUR, primary("node-3"), *(standby(f"node-{n}", upstream="node-3") for n in (1, 2, 4)))
    found = come_back(FOUR, policy(), away, "region-1", reason="test")
    assert found is not None and found.plan is not None, found
    assert (found.how, found.plan.failover_target_id) == (Move.SWITCHOVER, "node-1")
    assert come_back(FOUR, policy(), away, "region-2", reason="test") is None
    at_home = evidence(FOUR, primary("node-2"), *(standby(f"node-{n}", upstream="node-2") for n in (1, 3, 4)))
    assert come_back(FOUR, policy(), at_home, "region-1", reason="test") is None

    alone = evidence(FOUR, primary("node-3"), standby("node-4", upstream="node-3"), standby("node-2"))
    silent = come_back(FOUR, policy(), evidence(FOUR), "region-1", reason="test")
    assert silent is not None and silent.plan is None, "that nobody answers does not say that it is at home"
    found = come_back(FOUR, policy(require_quorum=False), alone, "region-1", reason="test")
    assert found is not None and found.refusal is not None


def test_a_cluster_has_moved_once_one_node_alone_serves_where_it_was_to_go() -> None:
    home, away = evidence(FOUR, primary("node-1")), evidence(FOUR, primary("node-3"))
    assert unmoved(FOUR, away, "region-1") is None and unmoved(FOUR, home, "region-1") is not None
    assert unmoved(FOUR, home, "region-1", Direction.BACK) is None
    assert unmoved(FOUR, away, "region-1", Direction.BACK) is not None
    both = evidence(FOUR, primary("node-1"), primary("node-3"))
    assert unmoved(FOUR, both, "region-1") is not None
    assert unmoved(FOUR, evidence(FOUR), "region-1") is not None
