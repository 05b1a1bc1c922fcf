"""Which node is the primary now, from what the nodes said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.evidence import ClusterEvidence, current_primary, evidence_from_file, with_degraded
from qnwis.continuity.quorum import ClusterState, assess
from qnwis.continuity.topology import Cluster
from tests.unit.continuity.patroni_scenes import by_patroni, follows, leads
from tests.unit.continuity.patroni_scenes import said as said_by_patroni
from tests.unit.continuity.scenes import (
    DEGRADED,
    FAILED,
    HEALTHY,
    SPEC_CLUSTER,
    cluster,
    clusters,
    evidence,
    live_evidence,
    node,
    on_file,
    primary,
    standby,
    witness,
)


def test_a_file_gives_its_statuses_and_no_states() -> None:
    said = evidence_from_file(SPEC_CLUSTER)
    assert [(e.node_id, e.status) for e in said.nodes] == [(n.node_id, n.status) for n in SPEC_CLUSTER.nodes]
    assert all(e.state is None and e.source.startswith("file") for e in said.nodes)


def test_without_a_word_from_the_nodes_the_topology_counts() -> None:
    assert current_primary(SPEC_CLUSTER, on_file(SPEC_CLUSTER, node_1=FAILED)) == "node-1"


def test_a_writable_node_is_the_primary_whatever_the_topology_says() -> None:
    said = evidence(SPEC_CLUSTER, primary("node-2"), standby("node-3", upstream="node-1"))
    assert current_primary(SPEC_CLUSTER, said) == "node-2"


def test_an_old_primary_that_came_back_does_not_count() -> None:
    said = evidence(SPEC_CLUSTER, primary("node-1", epoch=3), primary("node-2", epoch=4))
    assert current_primary(SPEC_CLUSTER, said) == "node-2"


def test_two_writers_of_one_epoch_leave_it_unknown() -> None:
    said = evidence(SPEC_CLUSTER, primary("node-1", epoch=4), primary("node-2", epoch=4))
    assert current_primary(SPEC_CLUSTER, said) is None


def test_the_standbys_say_whom_they_follow_when_nobody_writes() -> None:
    said = evidence(SPEC_CLUSTER, standby("node-1", upstream="node-2"), standby("node-3", upstream="node-2"))
    assert current_primary(SPEC_CLUSTER, said) == "node-2"


def test_a_standby_left_behind_in_an_older_epoch_is_not_heard() -> None:
    said = evidence(
        SPEC_CLUSTER,
        standby("node-1", upstream="node-2", epoch=2),
        standby("node-3", upstream="node-1", epoch=1),
    )
    assert current_primary(SPEC_CLUSTER, said) == "node-2"


def test_standbys_that_disagree_leave_it_unknown() -> None:
    said = evidence(SPEC_CLUSTER, standby("node-1", upstream="node-2"), standby("node-3", upstream="node-1"))
    assert current_primary(SPEC_CLUSTER, said) is None


@given(st.data())
def test_the_order_of_the_answers_decides_nothing(data: st.DataObject) -> None:
    topology = data.draw(clusters())
    said = evidence(
        topology,
        *(
            data.draw(
                st.sampled_from(
                    [primary(n.node_id, epoch=e) for e in (1, 2)]
                    + [standby(n.node_id, upstream=u, epoch=e) for u in ("node-1", "node-2") for e in (1, 2)]
                )
            )
            for n in topology.nodes
        ),
    )
    shuffled = said.model_copy(update={"nodes": tuple(data.draw(st.permutations(said.nodes)))})
    assert current_primary(topology, shuffled) == current_primary(topology, said)


def degraded(topology: Cluster, said: ClusterEvidence) -> list[str]:
    return [seen.node_id for seen in with_degraded(topology, said).nodes if seen.status is DEGRADED]


def test_a_standby_that_the_primarys_writes_do_not_reach_is_degraded() -> None:
    said = evidence(SPEC_CLUSTER, primary("node-1"), standby("node-2", streaming=False), standby("node-3"))
    assert degraded(SPEC_CLUSTER, said) == ["node-2"]
    quorum = assess(SPEC_CLUSTER, with_degraded(SPEC_CLUSTER, said))
    assert (quorum.state, quorum.healthy_nodes, quorum.voting_nodes) == (ClusterState.DEGRADED, 2, 3)


def test_a_standby_that_promised_a_run_a_later_epoch_receives_nothing_and_is_not_degraded() -> None:
    on_its_way = standby("node-2", streaming=False, epoch=5)
    left_behind = standby("node-3", streaming=False, epoch=4)
    said = evidence(SPEC_CLUSTER, primary("node-1", epoch=4), on_its_way, left_behind)
    assert degraded(SPEC_CLUSTER, said) == ["node-3"]


def test_of_what_is_down_silent_or_a_witness_it_says_nothing() -> None:
    topology = cluster(
        node("node-1", "primary"), node("node-2"), node("node-3"), node("node-4"), node("w", "witness")
    )
    down = standby("node-2", streaming=False, database_up=False)
    unsure = standby("node-3", streaming=False, in_recovery=None)
    said = evidence(
        topology, primary("node-1"), down, unsure, witness("w"), statuses={"node-2": FAILED, "node-4": FAILED}
    )
    assert with_degraded(topology, said) == said


def test_each_region_of_an_active_active_cluster_has_its_own_primary_to_stream_from() -> None:
    topology = cluster(
        *(
            one
            for region in ("eu", "us")
            for one in (node(f"{region}-1", "primary", region, weight=50), node(f"{region}-2", region=region))
        ),
        deployment="active_active",
    )
    standbys = [standby(f"{region}-2", upstream=f"{region}-1", streaming=False) for region in ("eu", "us")]
    assert degraded(topology, evidence(topology, primary("eu-1"), *standbys)) == ["eu-2"]
    assert degraded(topology, evidence(topology, primary("eu-1", epoch=1), primary("us-1"), *standbys)) == [
        "eu-2",
        "us-2",
    ]


def test_what_patroni_says_of_its_nodes_stays() -> None:
    mute = said_by_patroni(by_patroni(), leads("e1"), follows("e2", streaming=False))
    assert with_degraded(by_patroni(), mute) == mute


@given(st.data())
def test_while_nobody_writes_nobody_is_degraded_for_it_so_that_a_failover_has_its_targets(
    data: st.DataObject,
) -> None:
    topology = data.draw(clusters())
    said = data.draw(live_evidence(topology))
    mute = tuple(
        seen.model_copy(
            update={"state": seen.state.model_copy(update={"streaming": data.draw(st.booleans())})}
        )
        if seen.state is not None
        else seen
        for seen in said.nodes
    )
    said = said.model_copy(update={"nodes": mute})
    assert with_degraded(topology, said) == said


@given(st.data())
def test_only_a_healthy_standby_becomes_degraded_and_only_where_it_streams_from_nobody(
    data: st.DataObject,
) -> None:
    topology = data.draw(clusters())
    said = data.draw(live_evidence(topology))
    writer = evidence(topology, primary("node-1")).nodes[0]
    said = said.model_copy(update={"nodes": (writer, *said.nodes[1:])})
    after = with_degraded(topology, said)
    assert with_degraded(topology, after) == after
    for was, now in zip(said.nodes, after.nodes, strict=True):
        if now != was:
            assert (was.status, now.status) == (HEALTHY, DEGRADED)
            assert was.state is not None and was.state.in_recovery and not was.state.streaming


def test_evidence_of_a_node_is_found_by_its_id() -> None:
    said = on_file(SPEC_CLUSTER, node_2=FAILED)
    assert said.of("node-2").status is FAILED
    with pytest.raises(KeyError):
        said.of("node-9")
