"""The planner: the specification's plan, the rules that refuse, the choice of a target, what is not lost."""

from __future__ import annotations

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from qnwis.continuity.evidence import ClusterEvidence, NodeState, with_degraded
from qnwis.continuity.plan import FlipDns, Plan, RepointStandbys
from qnwis.continuity.planner import (
    Planning,
    healthy_primary_refusal,
    make_plan,
    plan_fits,
    service_address,
    topology_digest,
)
from qnwis.continuity.policy import Policy, StepEstimates, Strategy
from qnwis.continuity.promotion import missing_log, promotion_refusal
from qnwis.continuity.run import Maintenance
from qnwis.continuity.switchover import make_switchover
from qnwis.continuity.targets import Basis
from qnwis.continuity.topology import Cluster, Deployment, NodeStatus, Replication, ReplicationMode
from tests.unit.continuity.scenes import (
    DEGRADED,
    FAILED,
    HEALTHY,
    SPEC_CLUSTER,
    SPEC_POLICY,
    SYNCHRONOUS,
    UNKNOWN,
    changed,
    cluster,
    clusters,
    evidence,
    live_evidence,
    node,
    on_file,
    policy,
    primary,
    spec_plan,
    standby,
    with_dns,
    witness,
)

SYNC = changed(SPEC_CLUSTER, replication=SYNCHRONOUS.model_dump())
ANY = policy(min_healthy_nodes=0)
"""A policy that leaves the decision to the other rules."""


def planned(topology: Cluster, limits: Policy, said: ClusterEvidence) -> Plan:
    planning = make_plan(topology, limits, said, trigger_reason="test")
    assert planning.plan is not None, planning.refusal
    return planning.plan


def refused(topology: Cluster, limits: Policy, said: ClusterEvidence) -> Planning:
    planning = make_plan(topology, limits, said, trigger_reason="test")
    assert planning.plan is None
    assert planning.refusal is not None
    assert planning.predicted_loss_bytes is None
    return planning


def rule(planning: Planning) -> str:
    assert planning.refusal is not None
    return planning.refusal.rule


# --- The specification's plan -------------------------------------------------------------------------------


def test_the_specifications_files_plan_node_1_to_node_2() -> None:
    plan = spec_plan()
    assert (plan.primary_node_id, plan.failover_target_id) == ("node-1", "node-2")
    assert [(a.action_id, a.kind) for a in plan.actions] == [
        ("1-fence-node-1", "fence_primary"),
        ("2-promote-node-2", "promote_target"),
        ("3-repoint-standbys", "repoint_standbys"),
        ("4-flip-dns", "flip_dns"),
        ("5-verify-service", "verify_service"),
    ]


def test_a_standby_that_is_away_is_still_to_be_repointed() -> None:
    plan = planned(SPEC_CLUSTER, ANY, on_file(SPEC_CLUSTER, node_3=FAILED))
    repoint = plan.actions[2]
    assert isinstance(repoint, RepointStandbys)
    assert (repoint.node_ids, repoint.upstream) == (("node-3",), "node-2")


def test_a_witness_is_never_repointed() -> None:
    topology = cluster(node("a", "primary"), node("b"), node("w", "witness"))
    plan = planned(topology, ANY, on_file(topology))
    assert plan.failover_target_id == "b"
    assert isinstance(plan.actions[2], RepointStandbys)
    assert plan.actions[2].node_ids == ()


def test_the_record_moves_between_the_databases_addresses_and_costs_its_ttl() -> None:
    topology = with_dns(SPEC_CLUSTER, ttl_s=7)
    nodes = [n.model_dump() for n in topology.nodes]
    nodes[0]["database"] = {"host": "127.0.0.11"}
    flip = planned(changed(topology, nodes=nodes), SPEC_POLICY, on_file(SPEC_CLUSTER)).actions[3]
    assert isinstance(flip, FlipDns)
    assert (flip.record, flip.from_address, flip.to_address) == ("db.example.org.", "127.0.0.11", "10.0.1.11")
    assert flip.estimate_ms == SPEC_POLICY.estimates_ms.flip_dns + 7_000


def test_without_dns_there_is_a_step_but_no_record_and_no_wait() -> None:
    flip = spec_plan().actions[3]
    assert isinstance(flip, FlipDns)
    assert (flip.record, flip.estimate_ms) == (None, 0)


def test_an_absolute_name_is_taken_as_it_is() -> None:
    flip = spec_plan(with_dns(SPEC_CLUSTER, name="pg.example.net.")).actions[3]
    assert isinstance(flip, FlipDns)
    assert flip.record == "pg.example.net."


def test_across_the_regions_of_an_active_active_cluster_nothing_is_promoted_and_within_one_it_is() -> None:
    topology = cluster(
        node("a", "primary", "eu", weight=50), node("b", region="eu"), node("c", "primary", "us", weight=50),
        deployment=Deployment.ACTIVE_ACTIVE, cluster_id="shop",
    )  # fmt: skip
    for refusal in (
        refused(topology, ANY, on_file(topology)),
        refused(topology, ANY, evidence(topology, primary("c"))),
    ):
        assert rule(refusal) == "regions_decide_alone" and "shop-eu, shop-us" in str(refusal.refusal)
    moved = make_switchover(
        topology, ANY, evidence(topology, primary("a")), Maintenance(), trigger_reason="test"
    )
    assert rule(moved) == "regions_decide_alone"
    group = topology.lease_group("eu")
    assert planned(group, ANY, on_file(group)).failover_target_id == "b"


@pytest.mark.parametrize("has_witness", [True, False])
def test_the_active_passive_picture(has_witness: bool) -> None:
    picture = [
        node("node-1", "primary", "us-east-1", priority=100),
        node("node-2", region="us-east-1", priority=90),
        node("node-3", region="us-west-2", priority=80),
        node("node-4", region="us-west-2", priority=70),
    ]
    if has_witness:
        picture.append(node("witness", "witness", "eu-central-1"))
    topology = cluster(*picture)
    limits = policy(region_priority=("us-east-1", "us-west-2"), min_healthy_nodes=2)
    region_lost = on_file(topology, node_1=FAILED, node_2=FAILED)
    assert planned(topology, limits, on_file(topology, node_1=FAILED)).failover_target_id == "node-2"
    if has_witness:
        assert planned(topology, limits, region_lost).failover_target_id == "node-3"
    else:
        no = refused(topology, limits, region_lost)
        assert rule(no) == "no_quorum"
        assert no.refusal is not None
        assert "us-east-1" in no.refusal.remedy
        assert "witness in a third region: 3 of 5" in no.refusal.remedy


def test_a_witness_is_advised_only_where_it_would_help() -> None:
    topology = cluster(node("node-1", "primary", "a"), node("node-2", region="a"), node("node-3", region="b"))
    no = refused(topology, ANY, on_file(topology, node_1=FAILED, node_2=FAILED)).refusal
    assert no is not None
    assert "witness" not in no.remedy


# --- Rules --------------------------------------------------------------------------------------------------


def test_two_writers_make_the_primary_unknown() -> None:
    no = refused(SPEC_CLUSTER, ANY, evidence(SPEC_CLUSTER, primary("node-1"), primary("node-2"))).refusal
    assert no is not None
    assert (no.rule, no.values["writable"]) == ("primary_unknown", ["node-1", "node-2"])


def test_a_primary_that_the_topology_does_not_have_is_unknown() -> None:
    said = evidence(SPEC_CLUSTER, standby("node-2", upstream="node-9"), standby("node-3", upstream="node-9"))
    assert rule(refused(SPEC_CLUSTER, ANY, said)) == "primary_unknown"


def test_without_quorum_nothing_starts() -> None:
    no = refused(SPEC_CLUSTER, ANY, on_file(SPEC_CLUSTER, node_1=FAILED, node_3=UNKNOWN)).refusal
    assert no is not None
    assert no.rule == "no_quorum"
    assert no.values["not_voting"] == ["node-1", "node-3"]


@pytest.mark.parametrize(
    ("strategy", "outcome"),
    [(Strategy.AUTOMATIC, None), (Strategy.MANUAL, None), (Strategy.QUORUM_BASED, "no_quorum_of_observers")],
)
def test_require_quorum_false_relaxes_only_the_quorum_of_nodes(
    strategy: Strategy, outcome: str | None
) -> None:
    limits = policy(strategy=strategy, require_quorum=False)
    said = on_file(SPEC_CLUSTER, node_1=FAILED, node_3=FAILED)
    planning = make_plan(SPEC_CLUSTER, limits, said, trigger_reason="test")
    assert (planning.refusal and planning.refusal.rule) == outcome


def test_quorum_based_counts_only_those_who_answer_now() -> None:
    limits = policy(strategy=Strategy.QUORUM_BASED)
    said = evidence(SPEC_CLUSTER, standby("node-2"), statuses={"node-3": HEALTHY})
    assert rule(refused(SPEC_CLUSTER, limits, said)) == "no_quorum_of_observers"
    assert planned(SPEC_CLUSTER, policy(), said).failover_target_id == "node-2"


def test_min_healthy_nodes_is_counted_without_the_primary() -> None:
    assert planned(SPEC_CLUSTER, policy(min_healthy_nodes=2), on_file(SPEC_CLUSTER))
    no = refused(SPEC_CLUSTER, policy(min_healthy_nodes=3), on_file(SPEC_CLUSTER))
    assert rule(no) == "too_few_healthy_nodes"
    degraded = on_file(SPEC_CLUSTER, node_3=DEGRADED)
    assert rule(refused(SPEC_CLUSTER, policy(min_healthy_nodes=2), degraded)) == "too_few_healthy_nodes"


def test_a_standby_that_streams_from_nobody_while_the_primary_writes_takes_over_only_by_an_override() -> None:
    far = [primary("node-1", 10**9), standby("node-2", streaming=False), standby("node-3", streaming=False)]
    said = with_degraded(SPEC_CLUSTER, evidence(SPEC_CLUSTER, *far))
    assert rule(refused(SPEC_CLUSTER, policy(min_healthy_nodes=2), said)) == "too_few_healthy_nodes"
    no = refused(SPEC_CLUSTER, policy(min_healthy_nodes=0), said)
    assert rule(no) == "no_suitable_target" and "node-2 is degraded: it streams from nobody" in str(
        no.refusal
    )

    forced = make_plan(SPEC_CLUSTER, policy(min_healthy_nodes=2), said, trigger_reason="x", override=True)
    assert forced.plan is not None and forced.predicted_loss_bytes == 10**9 - 1000

    near = [primary("node-1", 10**9), standby("node-2", streaming=False), standby("node-3", 10**9)]
    said = with_degraded(SPEC_CLUSTER, evidence(SPEC_CLUSTER, *near))
    for override in (False, True):
        found = make_plan(SPEC_CLUSTER, policy(), said, trigger_reason="x", override=override)
        assert found.plan is not None and found.plan.failover_target_id == "node-3"


def test_no_target_says_so_in_the_specifications_words_with_each_reason() -> None:
    topology = cluster(node("node-1", "primary"), node("node-2"), node("w", "witness"))
    planning = refused(topology, ANY, on_file(topology, node_2=DEGRADED))
    no = planning.refusal
    assert no is not None
    assert no.rule == "no_suitable_target"
    assert no.message.startswith("No suitable failover target found: ")
    assert "node-2 is degraded" in no.message
    assert "w is a witness" in no.message
    assert [c.node_id for c in planning.candidates] == ["node-2", "w"]


def test_a_cluster_of_one_has_no_target() -> None:
    topology = cluster(node("node-1", "primary"))
    assert rule(refused(topology, ANY, on_file(topology))) == "no_suitable_target"


def test_a_plan_that_takes_longer_than_allowed_is_refused() -> None:
    estimates = StepEstimates(
        fence_primary=1, promote_target=1, repoint_standbys=1, flip_dns=1, verify_service=1
    )
    topology = with_dns(SPEC_CLUSTER, ttl_s=5)  # 5 + 5000 ms
    said = on_file(topology)
    assert planned(topology, policy(max_failover_time_s=5.005, estimates_ms=estimates), said)
    no = refused(topology, policy(max_failover_time_s=5.004, estimates_ms=estimates), said)
    assert rule(no) == "too_slow"


def test_the_message_stays_readable_for_a_large_cluster() -> None:
    topology = cluster(node("node-1", "primary"), *(node(f"s-{i}", status=DEGRADED) for i in range(500)))
    no = refused(topology, ANY, on_file(topology)).refusal
    assert no is not None
    assert "and 490 more" in no.message
    assert len(no.values) == 500


# --- Target selection ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"region": "region-1", "site": "site-b"}, {"region": "region-2", "site": "site-a"}),
        ({"region": "region-2"}, {"region": "region-3", "priority": 9}),  # region-3 is not listed
        ({"site": "site-a"}, {"site": "site-b", "priority": 9}),
        ({"site": "site-b"}, {"site": "site-c", "priority": 9}),  # site-c is not listed
        ({"priority": 2}, {"priority": 1, "capacity": 900.0}),
        ({"capacity": 100.0}, {"capacity": 50.0}),
    ],
)
def test_the_order_of_preference(better: dict[str, object], worse: dict[str, object]) -> None:
    limits = policy(region_priority=("region-1", "region-2"), site_priority=("site-a", "site-b"))
    for names in (("x", "y"), ("y", "x")):  # whichever is first by id or in the file
        good, bad = node(names[0], **better), node(names[1], **worse)  # type: ignore[arg-type]
        for order in ((good, bad), (bad, good)):
            topology = cluster(node("a", "primary"), *order)
            assert planned(topology, limits, on_file(topology)).failover_target_id == names[0]


def test_of_equals_the_one_with_more_log_is_taken_unless_the_primary_still_writes() -> None:
    topology = cluster(node("a", "primary"), node("b"), node("c"))
    behind, ahead = standby("b", 1000, upstream="a"), standby("c", 1400, upstream="a")
    assert planned(topology, ANY, evidence(topology, behind, ahead)).failover_target_id == "c"
    writing = evidence(topology, primary("a", 1500), behind, ahead)
    assert planned(topology, ANY, writing).failover_target_id == "b"


def test_equals_are_told_apart_by_their_ids() -> None:
    topology = cluster(node("a", "primary"), node("c"), node("b"))
    assert planned(topology, ANY, on_file(topology)).failover_target_id == "b"


def test_a_returned_old_primary_is_a_standby_like_any_other() -> None:
    said = evidence(SPEC_CLUSTER, standby("node-1", upstream="node-2"), standby("node-3", upstream="node-2"))
    assert planned(SPEC_CLUSTER, ANY, said).primary_node_id == "node-2"
    assert planned(SPEC_CLUSTER, SPEC_POLICY, said).failover_target_id == "node-1"


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (None, "did not answer (connection refused)"),
        (standby("node-3"), "answered as 'node-3'"),
        (standby("node-2", database_up=False), "has its database down"),
        (standby("node-2", in_recovery=False), "is not in recovery"),
        (standby("node-2", in_recovery=None), "does not say whether it is in recovery"),
        (standby("node-2", system_identifier="666"), "has system identifier 666, expected 7001"),
        (standby("node-2", timeline=None), "does not say its timeline"),
        (standby("node-2", receive_lsn=None), "does not say its timeline"),
        (standby("node-2", timeline=0), "is on timeline 0, behind 1"),
        (standby("node-2", member=False), "is no member of the cluster; add it first"),
        (standby("node-2", lsn=899), "is 101 bytes behind the most advanced standby, allowed are 100"),
    ],
)
def test_a_live_standby_with_anything_missing_or_wrong_is_passed_over(
    state: NodeState | None, reason: str
) -> None:
    four = cluster(node("node-1", "primary"), node("node-2", priority=9), node("node-3"), node("node-4"))
    said = evidence(four, standby("node-3"), standby("node-4"), statuses={"node-2": HEALTHY})
    nodes = tuple(e.model_copy(update={"state": state}) if e.node_id == "node-2" else e for e in said.nodes)
    planning = make_plan(
        four, policy(max_lag_bytes=100), said.model_copy(update={"nodes": nodes}), trigger_reason="test"
    )
    assert planning.plan is not None
    assert planning.plan.failover_target_id == "node-3"
    passed_over = next(c for c in planning.candidates if c.node_id == "node-2")
    assert not passed_over.eligible
    assert reason in passed_over.reason


def test_a_mixture_of_file_and_live_evidence_is_judged_as_live() -> None:
    said = evidence(SPEC_CLUSTER, standby("node-2"), standby("node-3"))
    nodes = tuple(
        e.model_copy(update={"source": "file", "state": None}) if e.node_id == "node-2" else e
        for e in said.nodes
    )
    planning = make_plan(SPEC_CLUSTER, ANY, said.model_copy(update={"nodes": nodes}), trigger_reason="test")
    assert planning.basis is Basis.LIVE
    assert planning.plan is not None
    assert planning.plan.failover_target_id == "node-3"


# --- What is lost -------------------------------------------------------------------------------------------


def test_asynchronous_predicts_the_loss_that_is_known() -> None:
    limits = policy(max_lag_bytes=100)
    said = evidence(SPEC_CLUSTER, standby("node-2", 900), standby("node-3", 1000))
    planning = make_plan(SPEC_CLUSTER, limits, said, trigger_reason="test")
    assert planning.plan is not None
    assert (planning.plan.failover_target_id, planning.predicted_loss_bytes) == ("node-2", 100)
    said = evidence(SPEC_CLUSTER, primary("node-1", 1500), standby("node-2", 900), standby("node-3", 1000))
    assert make_plan(SPEC_CLUSTER, limits, said, trigger_reason="test").predicted_loss_bytes == 600


def test_a_file_predicts_no_loss_because_it_knows_none() -> None:
    planning = make_plan(SYNC, SPEC_POLICY, on_file(SYNC), trigger_reason="test")
    assert planning.plan is not None
    assert (planning.basis, planning.predicted_loss_bytes) == (Basis.FILE, None)
    assert "not known" in planning.notes[0]


def test_synchronous_takes_the_most_advanced_however_another_is_preferred() -> None:
    said = evidence(SYNC, standby("node-2", 999), standby("node-3", 1000))
    planning = make_plan(SYNC, SPEC_POLICY, said, trigger_reason="test")
    assert planning.plan is not None
    assert (planning.plan.failover_target_id, planning.predicted_loss_bytes) == ("node-3", 0)


def test_synchronous_refuses_when_the_silent_standby_may_hold_the_last_write() -> None:
    no = refused(
        SYNC, ANY, evidence(SYNC, primary("node-1", writable=False), standby("node-2", 1000))
    ).refusal
    assert no is not None
    assert no.rule == "acknowledged_writes_uncertain"
    assert "only by node-3 would be lost" in no.message
    assert (no.values["answering"], no.values["needed"], no.values["silent"]) == (1, 2, ["node-3"])


def test_while_the_primary_writes_a_moving_difference_does_not_decide() -> None:
    said = evidence(SYNC, primary("node-1", 1010), standby("node-2", 1000), standby("node-3", 1005))
    planning = make_plan(SYNC, SPEC_POLICY, said, trigger_reason="test")
    assert planning.plan is not None
    assert (planning.plan.failover_target_id, planning.predicted_loss_bytes) == ("node-2", 0)
    assert "compared again" in planning.notes[0]


@pytest.mark.parametrize(
    "other",
    [
        standby("node-3", 5000, database_up=False),
        standby("node-3", 5000, in_recovery=False),
        standby("node-3", 5000, system_identifier="666"),
        standby("node-3", receive_lsn=None),
        standby("node-3", timeline=None),
    ],
)
def test_what_is_not_a_running_standby_of_this_database_neither_counts_nor_leads(other: NodeState) -> None:
    old = primary("node-1", writable=False, database_up=False)
    no = refused(SYNC, ANY, evidence(SYNC, old, standby("node-2", 1000), other)).refusal
    assert no is not None
    assert (no.rule, no.values["silent"]) == ("acknowledged_writes_uncertain", ["node-3"])
    assert no.values["most_advanced_lsn"] == 1000


def test_one_node_answering_for_two_counts_once() -> None:
    said = evidence(SYNC, standby("node-2"), standby("node-3"))
    nodes = (*said.nodes[:2], said.nodes[2].model_copy(update={"state": standby("node-2")}))
    assert (
        rule(refused(SYNC, ANY, said.model_copy(update={"nodes": nodes}))) == "acknowledged_writes_uncertain"
    )


@given(st.data())
def test_no_acknowledged_write_is_ever_lost_in_synchronous_replication(data: st.DataObject) -> None:
    standbys = data.draw(st.integers(1, 6), label="standbys")
    acks = data.draw(st.integers(1, standbys), label="required_acks")
    names = [f"s-{i}" for i in range(standbys)]
    topology = cluster(
        node("p", "primary"),
        *(node(name, priority=data.draw(st.integers(0, 2))) for name in names),
        replication=Replication(mode=ReplicationMode.SYNCHRONOUS, required_acks=acks),
    )
    received = {name: data.draw(st.integers(0, 5), label=name) for name in names}
    acknowledged = sorted(received.values(), reverse=True)[acks - 1]
    answering = data.draw(st.sets(st.sampled_from(names)), label="answering")
    said = evidence(topology, *(standby(name, received[name], upstream="p") for name in sorted(answering)))
    planning = make_plan(
        topology, policy(require_quorum=False, min_healthy_nodes=0), said, trigger_reason="t"
    )
    if planning.plan is not None:
        assert received[planning.plan.failover_target_id] >= acknowledged
    if len(answering) == standbys:
        assert planning.plan is not None


# --- Over all worlds ----------------------------------------------------------------------------------------

limits = st.builds(
    Policy,
    policy_id=st.just("policy"),
    name=st.just("Policy"),
    strategy=st.sampled_from(Strategy),
    require_quorum=st.booleans(),
    min_healthy_nodes=st.integers(0, 2),
    region_priority=st.permutations(["region-1", "region-2"]).map(tuple),
    site_priority=st.just(("site-b", "site-a")),
    max_lag_bytes=st.sampled_from([0, 1000]),
)


@given(clusters(), st.sampled_from([0, 1000]), st.data())
def test_a_plan_names_only_a_node_that_can_take_over(
    topology: Cluster, max_lag_bytes: int, data: st.DataObject
) -> None:
    bounds = policy(require_quorum=False, min_healthy_nodes=0, max_lag_bytes=max_lag_bytes)
    said = data.draw(live_evidence(topology))
    planning = make_plan(topology, bounds, said, trigger_reason="test")
    assert (planning.plan is None) != (planning.refusal is None)
    event(
        "planned" if planning.plan is not None else f"refused: {planning.refusal and planning.refusal.rule}"
    )
    if planning.plan is None:
        return
    seen = said.of(planning.plan.failover_target_id)
    state = seen.state
    assert seen.status is NodeStatus.HEALTHY
    assert topology.node(seen.node_id).holds_data
    assert state is not None
    assert state.database_up
    assert state.in_recovery
    assert state.timeline is not None
    assert state.receive_lsn is not None
    for other in (e.state for e in said.nodes):
        if other is None or not other.database_up or not other.in_recovery or other.timeline is None:
            continue
        if other.receive_lsn is None or {other.system_identifier, state.system_identifier} == {
            "7001",
            "7002",
        }:
            continue
        if None in (other.system_identifier, state.system_identifier):
            continue
        allowed = 0 if topology.replication.mode is ReplicationMode.SYNCHRONOUS else bounds.max_lag_bytes
        assert other.timeline <= state.timeline
        if other.timeline == state.timeline:
            assert other.receive_lsn - state.receive_lsn <= allowed


@given(clusters(), limits, st.data())
def test_the_order_of_evidence_and_the_files_statuses_do_not_change_the_plan(
    topology: Cluster, bounds: Policy, data: st.DataObject
) -> None:
    said = data.draw(live_evidence(topology))
    shuffled = said.model_copy(update={"nodes": tuple(data.draw(st.permutations(said.nodes)))})
    restated = changed(topology, nodes=[{**n.model_dump(), "status": "unknown"} for n in topology.nodes])
    one = make_plan(topology, bounds, said, trigger_reason="test")
    other = make_plan(restated, bounds, shuffled, trigger_reason="test")
    assert one == other


@given(clusters(), limits)
def test_the_target_is_the_best_of_the_eligible(topology: Cluster, bounds: Policy) -> None:
    planning = make_plan(topology, bounds, on_file(topology), trigger_reason="test")
    eligible = [c for c in planning.candidates if c.eligible]
    assert [c.rank for c in eligible] == list(range(1, len(eligible) + 1))
    assert len(planning.candidates) == len(topology.nodes) - 1
    healthy = {n.node_id for n in topology.nodes[1:] if n.holds_data and n.status is HEALTHY}
    assert {c.node_id for c in eligible} == healthy
    if planning.plan is not None:
        assert planning.plan.failover_target_id == eligible[0].node_id


def test_log_positions_that_merely_moved_do_not_change_the_digest() -> None:
    early, late = (evidence(SYNC, standby("node-2", lsn), standby("node-3", lsn)) for lsn in (1000, 2000))
    assert planned(SYNC, SPEC_POLICY, early).digest == planned(SYNC, SPEC_POLICY, late).digest


def test_the_topologys_digest_covers_all_but_the_statuses_and_how_often_a_watch_speaks_up() -> None:
    statuses = changed(
        SPEC_CLUSTER, nodes=[{**n.model_dump(), "status": "failed"} for n in SPEC_CLUSTER.nodes]
    )
    assert topology_digest(statuses) == topology_digest(SPEC_CLUSTER)
    seldom = changed(SPEC_CLUSTER, heartbeat={"watch_timeout_sec": 30})
    assert topology_digest(seldom) == topology_digest(SPEC_CLUSTER)
    assert topology_digest(changed(SPEC_CLUSTER, heartbeat={"interval_sec": 4})) != topology_digest(seldom)
    hostnames = changed(SPEC_CLUSTER, nodes=[{**n.model_dump(), "hostname": "x"} for n in SPEC_CLUSTER.nodes])
    assert topology_digest(hostnames) != topology_digest(SPEC_CLUSTER)


# --- Asked when a run starts, and before it promotes --------------------------------------------------------


def test_a_primary_that_answers_and_writes_is_not_cut_off() -> None:
    no = healthy_primary_refusal(evidence(SPEC_CLUSTER, primary("node-1")).of("node-1"))
    assert no is not None
    assert no.rule == "primary_is_healthy"


@pytest.mark.parametrize("state", [None, primary("node-1", writable=False, database_up=False)])
def test_a_primary_that_is_silent_or_does_not_write_may_be(state: NodeState | None) -> None:
    said = evidence(SPEC_CLUSTER, *([] if state is None else [state]))
    assert healthy_primary_refusal(said.of("node-1")) is None


def test_a_submitted_plan_fits_when_planning_again_gives_its_digest() -> None:
    again = make_plan(SPEC_CLUSTER, SPEC_POLICY, on_file(SPEC_CLUSTER, node_1=FAILED), trigger_reason="test")
    assert plan_fits(spec_plan(), again) is None


@pytest.mark.parametrize(
    ("topology", "bounds", "reason", "differing"),
    [
        (with_dns(SPEC_CLUSTER), SPEC_POLICY, "test", {"topology_digest", "actions"}),
        (SPEC_CLUSTER, SPEC_POLICY.model_copy(update={"cooldown_s": 1}), "test", {"policy_digest"}),
        (SPEC_CLUSTER, SPEC_POLICY, "another", {"trigger_reason"}),
        (
            SPEC_CLUSTER,
            SPEC_POLICY.model_copy(update={"region_priority": ("region-2",)}),
            "test",
            {"policy_digest", "failover_target_id", "actions"},
        ),
    ],
)
def test_each_difference_of_a_plan_that_no_longer_fits_is_named(
    topology: Cluster, bounds: Policy, reason: str, differing: set[str]
) -> None:
    again = make_plan(topology, bounds, on_file(topology), trigger_reason=reason)
    no = plan_fits(spec_plan(), again)
    assert no is not None
    assert no.rule == "plan_no_longer_fits"
    assert set(no.values) == differing


def test_a_plan_that_was_tampered_with_does_not_fit() -> None:
    plan = spec_plan()
    tampered = plan.model_copy(update={"actions": plan.actions[1:]})
    no = plan_fits(
        tampered, make_plan(SPEC_CLUSTER, SPEC_POLICY, on_file(SPEC_CLUSTER), trigger_reason="test")
    )
    assert no is not None
    assert "actions" in no.values


def test_a_plan_does_not_fit_when_planning_again_is_refused() -> None:
    again = make_plan(SPEC_CLUSTER, SPEC_POLICY, on_file(SPEC_CLUSTER, node_3=FAILED), trigger_reason="test")
    no = plan_fits(spec_plan(), again)
    assert no is not None
    assert "too_few_healthy_nodes" in no.message


def may_promote(*said: NodeState, topology: Cluster = SYNC) -> str | None:
    no = promotion_refusal(spec_plan(topology), topology, SPEC_POLICY, evidence(topology, *said))
    return None if no is None else no.rule


def test_a_fenced_primarys_target_is_promoted_only_if_it_is_still_the_most_advanced() -> None:
    assert may_promote(standby("node-2", 1000), standby("node-3", 1000)) is None
    assert may_promote(standby("node-2", 1000), standby("node-3", 1001)) == "target_no_longer_suitable"
    assert may_promote(standby("node-2", 1000)) == "acknowledged_writes_uncertain"
    assert may_promote(standby("node-2", 1000), topology=SPEC_CLUSTER) is None


@pytest.mark.parametrize(
    ("said", "missing"),
    [
        ((standby("node-2", 1000), standby("node-3", 1001)), ("node-3", 1001)),
        ((standby("node-2", 1000), standby("node-3", 1000)), None),
        ((standby("node-2", 1001), standby("node-3", 1000)), None),
        ((standby("node-2", 1000), standby("node-3", 900, timeline=2)), None),  # another history
        ((standby("node-2", receive_lsn=None), standby("node-3", 1001)), None),  # nobody knows
        ((standby("node-2", 1000), standby("node-3", 1001), primary("node-1")), None),  # it still writes
        ((standby("node-3", 1001),), None),
    ],
)
def test_a_target_takes_the_log_that_another_standby_has_beyond_it(
    said: tuple[NodeState, ...], missing: tuple[str, int] | None
) -> None:
    assert missing_log(spec_plan(SYNC), SYNC, SPEC_POLICY, evidence(SYNC, *said)) == missing


def test_a_primary_that_writes_after_its_fencing_stops_the_promotion() -> None:
    assert may_promote(primary("node-1"), standby("node-2"), standby("node-3")) == "primary_still_writes"


def test_a_file_is_no_ground_for_a_promotion() -> None:
    no = promotion_refusal(spec_plan(), SPEC_CLUSTER, SPEC_POLICY, on_file(SPEC_CLUSTER))
    assert no is not None
    assert no.rule == "evidence_not_live"


def test_witnesses_count_for_the_quorum_of_observers_and_never_as_standbys() -> None:
    topology = cluster(
        node("node-1", "primary"), node("node-2"), node("w", "witness"), replication=SYNCHRONOUS
    )
    said = evidence(topology, standby("node-2"), witness("w"))
    limits_now = policy(strategy=Strategy.QUORUM_BASED, min_healthy_nodes=2)
    assert planned(topology, limits_now, said).failover_target_id == "node-2"


def test_an_address_is_the_databases_or_the_hosts() -> None:
    assert service_address(node("a", hostname="h")) == "h"
    assert service_address(node("a", hostname="h", database={"host": "d"})) == "d"
