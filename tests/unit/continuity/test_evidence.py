"""Which node is the primary now, from what the nodes said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.evidence import current_primary, evidence_from_file
from tests.unit.continuity.scenes import FAILED, SPEC_CLUSTER, clusters, evidence, on_file, primary, standby


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


def test_evidence_of_a_node_is_found_by_its_id() -> None:
    said = on_file(SPEC_CLUSTER, node_2=FAILED)
    assert said.of("node-2").status is FAILED
    with pytest.raises(KeyError):
        said.of("node-9")
