"""An active/active cluster as a whole: several primaries are right, and of it nothing is failed over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.detection import Finding, Verdict
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.guardian_rules import Hold, Quiet
from qnwis.continuity.policy import Strategy
from qnwis.continuity.quorum import ClusterState
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.region_groups import decide_regions, group_views, primaries_now, state_of
from qnwis.continuity.region_sight import HeldByGuardian

from .scenes import NOON, UNKNOWN, cluster, evidence, node, policy, primary, standby, witness

SHOP = cluster(
    node("eu-1", "primary", "eu", weight=60),
    node("eu-2", region="eu"),
    node("eu-3", "witness", "eu"),
    node("us-1", "primary", "us", weight=40),
    node("us-2", "witness", "us"),
    node("us-3", "witness", "us"),
    deployment="active_active",
)
HOME = {"eu": 60, "us": 40}
EU = (primary("eu-1", epoch=7), standby("eu-2", upstream="eu-1", epoch=7), witness("eu-3"))
US = (primary("us-1", epoch=2), witness("us-2"), witness("us-3"))


def seen(*said: object) -> ClusterEvidence:
    """Who says nothing is unknown."""
    names = {state.node_id for state in said}  # type: ignore[attr-defined]
    statuses = {n.node_id: UNKNOWN for n in SHOP.nodes if n.node_id not in names}
    return evidence(SHOP, *said, statuses=statuses)  # type: ignore[arg-type]


def test_a_primary_in_each_region_is_as_it_should_be_whatever_their_epochs() -> None:
    views = group_views(SHOP, seen(*EU, *US), HOME)
    assert [(v.cluster_id, v.primary_node_id, v.epoch, v.weight) for v in views] == [
        ("prod-eu", "eu-1", 7, 60),
        ("prod-us", "us-1", 2, 40),
    ]
    assert all(view.serves for view in views) and state_of(views) is ClusterState.HEALTHY


@pytest.mark.parametrize(
    ("in_force", "state"),
    [
        (HOME, ClusterState.CRITICAL),
        (None, ClusterState.CRITICAL),  # not known counts as needed
        ({"eu": 0, "us": 100}, ClusterState.DEGRADED),
    ],
)
def test_a_lost_region_is_critical_for_as_long_as_clients_are_sent_there(
    in_force: dict[str, int] | None, state: ClusterState
) -> None:
    eu, us = views = group_views(SHOP, seen(*US), in_force)
    assert not eu.serves and us.serves and us.has_quorum
    assert state_of(views) is state


def test_a_region_serves_with_one_primary_and_its_own_quorum_and_not_without() -> None:
    both = (EU[0], primary("eu-2", epoch=8), EU[2])
    assert not group_views(SHOP, seen(*both, *US), HOME)[0].serves, "two of a region are one too many"
    alone = group_views(SHOP, seen(EU[0], *US), HOME)[0]
    assert alone.primary_node_id == "eu-1" and not alone.serves, (
        "one of three is no quorum, whoever else votes"
    )


def test_who_serves_is_known_for_each_region_by_itself() -> None:
    moved = primary("eu-2", epoch=9)
    assert primaries_now(SHOP, seen(moved, *US)) == {"eu": "eu-2", "us": "us-1"}
    assert primaries_now(SHOP, seen()) == {"eu": "eu-1", "us": "us-1"}, "the topology's word, if no other"


@given(st.fixed_dictionaries({n.node_id: st.sampled_from(Finding) for n in SHOP.nodes}))
def test_the_guardian_of_the_whole_starts_nothing_whatever_fails(findings: dict[str, Finding]) -> None:
    doubt = Refusal(rule="partition_suspected", message="-", remedy="-")
    verdicts = {
        node_id: Verdict(
            node_id=node_id,
            finding=finding,
            why="-",
            refusal=doubt if finding is Finding.PARTITION_SUSPECTED else None,
        )
        for node_id, finding in findings.items()
    }
    decision = decide_regions(SHOP, {"eu": "eu-1", "us": "us-1"}, verdicts)
    of_primaries = [findings["eu-1"], findings["us-1"]]
    assert isinstance(decision, Quiet | Hold)
    if Finding.FAILED in of_primaries:
        assert isinstance(decision, Hold) and decision.refusal.rule == "regions_decide_alone"
        lost = [region for region in ("eu", "us") if findings[f"{region}-1"] is Finding.FAILED]
        for region in lost:
            assert f"guardian-prod-{region}" in decision.refusal.remedy
            assert f"region evacuate {region}" in decision.refusal.remedy
    else:
        assert isinstance(decision, Hold) is (Finding.PARTITION_SUSPECTED in of_primaries)


def test_a_regions_guardian_finds_a_primary_inside_and_asks_each_other_region_for_its_own_quorum() -> None:
    def held(*failed: str) -> HeldByGuardian:
        verdicts = {
            n.node_id: Verdict(
                node_id=n.node_id,
                finding=Finding.FAILED if n.node_id in failed else Finding.HEALTHY,
                why="-",
            )
            for n in SHOP.nodes
        }
        return HeldByGuardian(primary_node_id=None, verdicts=verdicts)

    rules = policy(region_strategy=Strategy.QUORUM_BASED)
    lost = held("eu-1", "eu-2", "eu-3").of_region(SHOP, "eu", rules, NOON)
    assert lost.primary_inside and lost.quorum_elsewhere
    assert not held("eu-1", "us-2", "us-3").of_region(SHOP, "eu", rules, NOON).quorum_elsewhere
