"""Votes, and the state machine of the specification."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.evidence import evidence_from_file
from qnwis.continuity.policy import Strategy
from qnwis.continuity.quorum import ClusterState, assess, demands_quorum
from qnwis.continuity.topology import Cluster, NodeStatus
from tests.unit.continuity.scenes import (
    DEGRADED,
    FAILED,
    HEALTHY,
    SPEC_CLUSTER,
    UNKNOWN,
    changed,
    cluster,
    clusters,
    node,
    on_file,
    policy,
)


@pytest.mark.parametrize(
    ("statuses", "state"),
    [
        ((HEALTHY, HEALTHY, HEALTHY), ClusterState.HEALTHY),
        ((HEALTHY, HEALTHY, FAILED), ClusterState.DEGRADED),
        ((HEALTHY, HEALTHY, UNKNOWN), ClusterState.DEGRADED),
        ((DEGRADED, DEGRADED, DEGRADED), ClusterState.DEGRADED),
        ((HEALTHY, FAILED, FAILED), ClusterState.CRITICAL),
        ((HEALTHY, UNKNOWN, UNKNOWN), ClusterState.CRITICAL),
    ],
)
def test_the_state_machine(statuses: tuple[NodeStatus, ...], state: ClusterState) -> None:
    names = ("node_1", "node_2", "node_3")
    assert (
        assess(SPEC_CLUSTER, on_file(SPEC_CLUSTER, **dict(zip(names, statuses, strict=True)))).state is state
    )


def test_a_witness_votes_and_a_degraded_node_does() -> None:
    topology = cluster(
        node("node-1", "primary", status=FAILED), node("node-2", status=DEGRADED), node("w", "witness")
    )
    view = assess(topology, evidence_from_file(topology))
    assert (view.voting_nodes, view.healthy_nodes, view.has_quorum) == (2, 1, True)


def test_an_override_asks_for_more_votes() -> None:
    topology = changed(SPEC_CLUSTER, quorum_size=3)
    view = assess(topology, on_file(topology, node_3=FAILED))
    assert (view.has_quorum, view.state, view.margin) == (False, ClusterState.CRITICAL, -1)


def test_a_node_that_nobody_speaks_of_does_not_vote() -> None:
    said = on_file(SPEC_CLUSTER)
    view = assess(SPEC_CLUSTER, said.model_copy(update={"nodes": said.nodes[:1]}))
    assert (view.voting_nodes, view.has_quorum) == (1, False)


def test_a_node_that_is_not_of_the_cluster_does_not_vote() -> None:
    said = on_file(SPEC_CLUSTER, node_2=FAILED, node_3=FAILED)
    strangers = [said.nodes[0].model_copy(update={"node_id": name}) for name in ("x", "y", "z")]
    assert not assess(SPEC_CLUSTER, said.model_copy(update={"nodes": (*said.nodes, *strangers)})).has_quorum


@given(clusters())
def test_the_numbers_agree_with_each_other(topology: Cluster) -> None:
    view = assess(topology, evidence_from_file(topology))
    assert 0 <= view.healthy_nodes <= view.voting_nodes <= view.total_nodes == len(topology.nodes)
    assert view.has_quorum == (view.margin >= 0) == (view.state is not ClusterState.CRITICAL)
    assert view.ratio == view.voting_nodes / view.total_nodes
    assert (view.state is ClusterState.HEALTHY) == (view.healthy_nodes == view.total_nodes)


@given(clusters(), st.data())
def test_two_sides_of_a_partition_never_both_have_quorum(topology: Cluster, data: st.DataObject) -> None:
    here = {n.node_id for n in topology.nodes if data.draw(st.booleans())}

    def side(reachable: bool) -> bool:
        said = {n.node_id: HEALTHY if (n.node_id in here) == reachable else UNKNOWN for n in topology.nodes}
        nodes = tuple(e.model_copy(update={"status": said[e.node_id]}) for e in on_file(topology).nodes)
        return assess(topology, on_file(topology).model_copy(update={"nodes": nodes})).has_quorum

    assert not (side(True) and side(False))


def test_quorum_based_demands_the_quorum_whatever_require_quorum_says() -> None:
    assert demands_quorum(policy(strategy=Strategy.QUORUM_BASED, require_quorum=False))
    assert demands_quorum(policy(require_quorum=True))
    assert not demands_quorum(policy(require_quorum=False))
