"""The rules that a topology must obey to be one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from qnwis.continuity.topology import (
    Cluster,
    Database,
    Deployment,
    DnsService,
    FencingHook,
    Node,
    Provider,
    majority,
)
from tests.unit.continuity.scenes import SPEC_CLUSTER, changed, cluster, node

THREE = (node("node-1", "primary"), node("node-2"), node("node-3"))


def test_the_specifications_topology_has_a_quorum_of_two() -> None:
    assert SPEC_CLUSTER.quorum == 2
    assert changed(SPEC_CLUSTER, quorum_size=None).quorum == 2


@given(st.integers(1, 10_000))
def test_two_majorities_always_share_a_node(n: int) -> None:
    assert 2 * majority(n) > n
    assert 2 * (majority(n) - 1) <= n


R53 = {"route53": {"hosted_zone_id": "Z1"}}
ACTIVE = cluster(
    node("a", "primary", "eu", weight=60),
    node("b", region="eu"),
    node("c", "primary", "us", weight=40, capacity=80.0),
    node("w", "witness", "eu"),
    cluster_id="shop",
    deployment=Deployment.ACTIVE_ACTIVE,
)


@pytest.mark.parametrize(("nodes", "quorum"), [(3, 2), (5, 3), (7, 4)])
def test_the_specifications_examples_of_a_quorum(nodes: int, quorum: int) -> None:
    assert majority(nodes) == quorum


@given(size=st.integers(1, 9), quorum=st.integers(-1, 12))
def test_a_quorum_is_a_majority_and_can_be_reached(size: int, quorum: int) -> None:
    nodes = [node("node-1", "primary"), *(node(f"node-{i}") for i in range(2, size + 1))]
    if majority(size) <= quorum <= size:
        assert cluster(*nodes, quorum_size=quorum).quorum == quorum
    else:
        with pytest.raises(ValidationError, match="quorum"):
            cluster(*nodes, quorum_size=quorum)


@pytest.mark.parametrize(
    ("nodes", "fields", "told"),
    [
        ((*THREE, node("node-2")), {}, "node_id|node-2"),
        ((*THREE, node("node-4", "primary")), {}, "primary"),
        ((node("node-1"), node("node-2")), {}, "primary"),
        (THREE, {"regions": ("region-9",)}, "region"),
    ],
)
def test_a_broken_rule_is_named(nodes: tuple[Node, ...], fields: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        cluster(*nodes, **fields)


def test_active_active_allows_a_primary_a_region() -> None:
    assert [share.weight for share in ACTIVE.shares] == [60, 40]
    assert ACTIVE.shares[1].capacity == 80


@pytest.mark.parametrize(
    ("index", "changes", "dns", "told"),
    [
        (2, {"region": "eu"}, {}, "one primary a region; nodes.0. of eu is one"),
        (1, {"region": "ap"}, {}, "a region that has a primary"),
        (0, {"weight": None}, {}, "each primary of an active_active cluster has a weight"),
        (2, {"weight": 30}, {}, "60 . 30 = 90"),
        (2, {"capacity": 39.5}, {}, "at most the region's capacity, 39.5 percent"),
        (0, {"record": None}, R53, "set_identifier of the region's own record"),
        (0, {}, {"servers": ["127.0.0.1:53"]}, "without Route 53 the name has one record"),
        (2, {"record": {"set_identifier": "r-eu"}}, R53, "one of its own"),
        (0, {"record": {"set_identifier": "r-eu", "geo": "continent:EU"}}, R53, "a geo rule in every region"),
        (0, {"record": {"set_identifier": "r-eu", "geo": "Europe"}}, R53, "should match pattern"),
        (0, {}, {**R53, "srv": "_postgresql._tcp"}, "srv with servers only"),
        (0, {"record": None}, {"provider": {"name": "ours"}}, "a provider moves one address"),
    ],
)
def test_what_an_active_active_cluster_must_say(
    index: int, changes: dict[str, object], dns: dict[str, object], told: str
) -> None:
    plain = ACTIVE.model_dump(mode="json")
    for one, name in ((0, "r-eu"), (2, "r-us")):
        plain["nodes"][one]["record"] = {"set_identifier": name} if dns else None
    if dns:
        plain["dns"] = {"zone": "example.org", "name": "db", **dns}
    plain["nodes"][index] |= changes
    with pytest.raises(ValidationError, match=told):
        Cluster.model_validate(plain)


def test_each_region_is_a_lease_group_of_its_own() -> None:
    plain = ACTIVE.model_dump(mode="json") | {"dns": {"zone": "example.org", "name": "db", **R53}}
    for one, name in ((0, "r-eu"), (2, "r-us")):
        plain["nodes"][one]["record"] = {"set_identifier": name}
    eu = Cluster.model_validate(plain).lease_group("eu")
    assert (eu.cluster_id, [n.node_id for n in eu.nodes], eu.quorum) == ("shop-eu", ["a", "b", "w"], 2)
    assert eu.dns is not None and eu.dns.route53 is not None and eu.dns.route53.set_identifier == "r-eu"
    assert Cluster.model_validate(eu.model_dump()) == eu
    with pytest.raises(KeyError):
        ACTIVE.lease_group("ap")


def test_a_capacity_is_not_negative() -> None:
    with pytest.raises(ValidationError, match="capacity"):
        node("node-1", capacity=-1)


def test_a_misspelt_field_never_passes_in_silence() -> None:
    with pytest.raises(ValidationError, match="quorum_sise"):
        Cluster.model_validate({**SPEC_CLUSTER.model_dump(), "quorum_sise": 2})


def test_a_fencing_hook_must_name_the_node_it_switches() -> None:
    with pytest.raises(ValidationError, match="node_id"):
        FencingHook(url="http://power/{state}")


@pytest.mark.parametrize("both", [{}, {"url": "http://p/{node_id}/{state}", "provider": {"name": "ipmi"}}])
def test_a_fencing_hook_is_a_url_or_a_provider(both: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="either url or provider"):
        FencingHook.model_validate(both)
    assert FencingHook(provider=Provider(name="ipmi")).asked("n1", "off") == "provider:ipmi/n1/off"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "one of servers, route53 and provider"),
        ({"servers": ("a",), "provider": {"name": "x"}}, "one of servers, route53 and provider"),
        ({"provider": {"name": "x"}, "srv": "_pg._tcp"}, "srv with servers only"),
    ],
)
def test_a_name_is_held_by_one(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        DnsService.model_validate({"zone": "example", "name": "db", **changes})


def test_only_a_witness_holds_no_data() -> None:
    assert [node("a", role).holds_data for role in ("primary", "secondary", "witness")] == [True, True, False]


def test_a_node_is_found_by_its_id_and_nothing_else() -> None:
    assert SPEC_CLUSTER.node("node-3").site == "site-c"
    with pytest.raises(KeyError):
        SPEC_CLUSTER.node("node-9")


def test_an_agent_listens_beside_its_node_unless_said_otherwise() -> None:
    assert (
        node("a", hostname="10.0.0.1", database=Database(host="10.9.9.9")).agent_url == "http://10.0.0.1:8443"
    )
    assert node("a", endpoint="https://a:1").agent_url == "https://a:1"


SERVICES = {"zone": "example.org", "name": "db", "servers": ["127.0.0.1:53"], "srv": "_postgresql._tcp"}


def test_with_service_records_a_lease_group_has_the_address_record_that_they_lead_to() -> None:
    made = Cluster.model_validate(ACTIVE.model_dump(mode="json") | {"dns": SERVICES})
    assert made.dns is not None and made.dns.record_name == "_postgresql._tcp.db.example.org."
    us = made.lease_group("us").dns
    assert us is not None and us.record_name == "us.db.example.org." and us.tsig_key_file is None
    absolute = made.dns.model_copy(update={"name": "db.other.org."})
    assert absolute.of_region("us").fqdn == "us.db.other.org."


@pytest.mark.parametrize(
    ("plain", "told"),
    [
        (
            lambda: SPEC_CLUSTER.model_dump(mode="json"),
            "srv_without_active_active|address record leads to it",
        ),
        (lambda: _in_a_region_called("e u"), "letters, digits and hyphens"),
    ],
)
def test_service_records_are_for_regions_that_a_name_can_have(plain: Any, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Cluster.model_validate({**plain(), "dns": SERVICES})


def _in_a_region_called(name: str) -> dict[str, Any]:
    text = json.dumps(ACTIVE.model_dump(mode="json"))
    return dict(json.loads(text.replace('"eu"', json.dumps(name))))


def test_the_vantages_of_a_lease_group_stand_in_its_own_region_or_nobody_knows_where() -> None:
    made = changed(ACTIVE, vantages=("v1", "v2"), vantage_regions={"v1": "eu", "v2": "us"})
    eu = made.lease_group("eu")
    assert Cluster.model_validate(eu.model_dump()) == eu and eu.vantage_regions == {"v1": "eu"}
    assert [group.cluster_id for group in made.lease_groups] == ["shop-eu", "shop-us"]
    assert SPEC_CLUSTER.lease_groups == (SPEC_CLUSTER,)
