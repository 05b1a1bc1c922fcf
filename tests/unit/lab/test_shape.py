"""What a lab's shape says of its cluster, its policy and its places."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from qnwis.continuity.policy import Strategy
from qnwis.continuity.shifting import Steering, steering_of
from qnwis.continuity.topology import NodeRole, ReplicationMode
from qnwis.lab.layout import Block, Folder
from qnwis.lab.places import HERE, Place
from qnwis.lab.shape import Shape, lab_cluster, lab_policy

FOLDER, BLOCK = Folder(Path("/nowhere")), Block.on_loopback(7)


def test_data_nodes_stand_in_two_regions_and_witnesses_in_a_third() -> None:
    shape = Shape(data_nodes=4, witnesses=1, asynchronous=True)
    cluster = lab_cluster(shape, FOLDER, BLOCK, cluster_id="c")
    assert [(n.node_id, n.region, n.role) for n in cluster.nodes] == [
        ("node-1", "region-1", NodeRole.PRIMARY),
        ("node-2", "region-1", NodeRole.SECONDARY),
        ("node-3", "region-2", NodeRole.SECONDARY),
        ("node-4", "region-2", NodeRole.SECONDARY),
        ("witness-1", "region-3", NodeRole.WITNESS),
    ]
    assert cluster.replication.mode is ReplicationMode.ASYNCHRONOUS
    assert [n.node_id for n in cluster.nodes if n.database is None] == ["witness-1"]
    assert len({n.hostname for n in cluster.nodes}) == 5


def test_a_shape_changes_single_fields_of_the_policy() -> None:
    policy = lab_policy(Shape(policy={"strategy": "manual", "cooldown_s": 5}))
    assert (policy.strategy, policy.cooldown_s) == (Strategy.MANUAL, 5)
    assert policy.model_copy(update={"strategy": Strategy.AUTOMATIC, "cooldown_s": 30}) == lab_policy(Shape())
    with pytest.raises(ValidationError, match="cooldown"):
        lab_policy(Shape(policy={"cooldown": 5}))


def test_a_party_runs_here_unless_the_block_says_where() -> None:
    there = Place(enter=("nsenter", "--net=/run/netns/dns", "--"), env={"A": "1"})
    block = BLOCK.model_copy(update={"places": {"dns": there}})
    assert block.place("dns").command(["true"]) == ["nsenter", "--net=/run/netns/dns", "--", "true"]
    assert block.place("node-1") is HERE
    assert HERE.command(["true"]) == ["true"]
    assert Block.model_validate_json(block.model_dump_json()) == block


def test_an_active_active_lab_has_a_lease_group_in_each_region_and_weights_in_dns() -> None:
    shape = Shape(
        data_nodes=2, witnesses=4, regions=("region-1", "region-2"), weights=(60, 40), asynchronous=True
    )
    made = lab_cluster(shape, FOLDER, BLOCK, cluster_id="shop")
    assert [(g.cluster_id, [n.node_id for n in g.nodes]) for g in made.lease_groups] == [
        ("shop-region-1", ["node-1", "witness-1", "witness-3"]),
        ("shop-region-2", ["node-2", "witness-2", "witness-4"]),
    ]
    assert steering_of(made) is Steering.WEIGHTED and made.active_database == "app"
