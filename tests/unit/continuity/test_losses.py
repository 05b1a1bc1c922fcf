"""What a cluster survives, counted on paper."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.losses import Effect, advice, losses, unsurvivable
from qnwis.continuity.topology import Cluster, Replication, ReplicationMode
from tests.unit.continuity.scenes import SPEC_CLUSTER, changed, cluster, clusters, node

SYNC = {"mode": "synchronous"}
FOUR = cluster(
    node("a1", "primary", "a"), node("a2", region="a"), node("b1", region="b"), node("b2", region="b")
)


def effects(topology: Cluster) -> dict[str, str]:
    return {loss.what: loss.effect.value for loss in losses(topology)}


def test_three_nodes_survive_each_node_and_the_smaller_region() -> None:
    assert effects(SPEC_CLUSTER) == {
        "node-1": "fails over",
        "node-2": "goes on",
        "node-3": "goes on",
        "region region-1": "stops",
        "region region-2": "goes on",
    }


def test_two_and_two_cannot_lose_a_region_and_a_witness_in_a_third_is_proposed() -> None:
    found = losses(FOUR)
    assert {loss.what for loss in found if loss.effect is Effect.STOPS} == {"region a", "region b"}
    (proposed, _) = advice(FOUR, found)
    assert "region a: place a witness (role: witness) in a third region; 3 of 5 members" in proposed
    helped = cluster(*FOUR.nodes, node("w", "witness", "c"))
    assert Effect.STOPS not in {loss.effect for loss in losses(helped)}
    assert advice(helped, losses(helped)) == ()


def test_synchronous_replication_must_reach_beyond_the_region() -> None:
    helped = cluster(*FOUR.nodes, node("w", "witness", "c"), replication=SYNC)
    (loss,) = (one for one in losses(helped) if one.what == "region a")
    assert loss.quorum_left and loss.effect is Effect.STOPS
    assert "3 of 3 standbys must answer, 2 are left" in loss.why
    (line,) = advice(helped, losses(helped))
    assert "replication.required_acks: 2" in line
    farther = changed(helped, replication={**SYNC, "required_acks": 2})
    assert effects(farther)["region a"] == "fails over"


@pytest.mark.parametrize("second", ["secondary", "witness"])
def test_two_nodes_survive_nothing(second: str) -> None:
    two = cluster(node("n1", "primary"), node("n2", second))
    expected = unsurvivable(two)
    assert expected is not None and "add a witness" in expected
    assert effects(two)["n1"] == "stops"


@given(clusters(), st.sampled_from(ReplicationMode), st.integers(1, 3))
def test_whoever_is_lost_a_cluster_without_a_majority_stops(
    topology: Cluster, mode: ReplicationMode, acks: int
) -> None:
    replicated = changed(topology, replication=Replication(mode=mode, required_acks=acks).model_dump())
    for loss in losses(replicated):
        assert loss.left == len(topology.nodes) - len(loss.node_ids)
        if not loss.quorum_left:
            assert loss.effect is Effect.STOPS
        assert (loss.effect is Effect.STOPS) == bool(loss.why)


def test_an_active_active_cluster_loses_a_region_where_the_others_have_room() -> None:
    nodes = (
        node("a1", "primary", "a", weight=50, capacity=60.0),
        node("a2", region="a"),
        node("a3", "witness", "a"),
        node("b1", "primary", "b", weight=50),
    )
    topology = cluster(*nodes, deployment="active_active")
    assert effects(topology) == {
        "a1": "fails over",
        "a2": "goes on",
        "a3": "goes on",
        "region a": "shifts",
        "b1": "stops",
        "region b": "stops",
    }
    (region_b,) = [loss for loss in losses(topology) if loss.what == "region b"]
    assert "room for 10" in region_b.why and unsurvivable(topology) is None
