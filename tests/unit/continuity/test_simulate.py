"""The simulator: the specification's picture, every scenario's end, and the same bytes for the same seed."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnwis.config.registry import Registered, Registry
from qnwis.config.shipped import shipped
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.heartbeat import HeartbeatConfig
from qnwis.continuity.model import canonical_json
from qnwis.continuity.modelled import ModelledCluster
from qnwis.continuity.plan import Plan
from qnwis.continuity.planner import make_plan
from qnwis.continuity.policy import Policy, StepEstimates, Strategy
from qnwis.continuity.scenarios import at_rest
from qnwis.continuity.simulate import Rehearsal, Scenario, SimulationResult, rehearse, simulate
from qnwis.continuity.topology import (
    Cluster,
    Deployment,
    DnsService,
    Node,
    NodeRole,
    NodeStatus,
    Replication,
    ReplicationMode,
)

SEEDS = range(12)


@pytest.fixture(scope="module")
def shipped_files() -> Registered:
    """The specification's cluster.yaml and policy.yaml."""
    return Registry(shipped("config") / "continuity").load("prod-cluster")


def node(
    number: int, region: str, role: NodeRole = NodeRole.SECONDARY, status: NodeStatus = NodeStatus.HEALTHY
) -> Node:
    return Node(
        node_id=f"node-{number}",
        hostname=f"10.0.0.{number}",
        role=role,
        region=region,
        site=f"site-{number}",
        status=status,
        priority=110 - 10 * number,
    )


def active_passive(*, witness: bool) -> Cluster:
    """The specification's picture: two regions with two nodes each; optionally a witness in a third."""
    nodes = [
        node(1, "us-east-1", NodeRole.PRIMARY),
        node(2, "us-east-1"),
        node(3, "us-west-2"),
        node(4, "us-west-2"),
    ]
    regions = ["us-east-1", "us-west-2"]
    if witness:
        nodes.append(node(5, "eu-central-1", NodeRole.WITNESS))
        regions.append("eu-central-1")
    return Cluster(cluster_id="prod", name="Prod", regions=tuple(regions), nodes=tuple(nodes))


POLICY = Policy(
    policy_id="auto",
    name="Automatic",
    region_priority=("us-east-1", "us-west-2"),
    min_healthy_nodes=2,
)


def moved(result: SimulationResult) -> tuple[str, str]:
    assert result.failover is not None
    return result.failover.source_node, result.failover.target_node


def rule(result: SimulationResult) -> str | None:
    return None if result.refusal is None else result.refusal.rule


# ---- the specification's picture


@pytest.mark.parametrize("witness", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_node_1_lost_goes_to_node_2(seed: int, witness: bool) -> None:
    result = simulate(active_passive(witness=witness), POLICY, Scenario.PRIMARY_FAILURE, seed)
    assert result.success, result.verification
    assert moved(result) == ("node-1", "node-2")


@pytest.mark.parametrize("seed", SEEDS)
def test_us_east_1_lost_goes_to_node_3_when_a_witness_keeps_the_quorum(seed: int) -> None:
    result = simulate(active_passive(witness=True), POLICY, Scenario.REGION_FAILURE, seed)
    assert result.success, (result.refusal, result.verification)
    assert moved(result) == ("node-1", "node-3")


@pytest.mark.parametrize("seed", SEEDS)
def test_us_east_1_lost_is_refused_with_the_advice_to_add_a_witness(seed: int) -> None:
    result = simulate(active_passive(witness=False), POLICY, Scenario.REGION_FAILURE, seed)
    assert not result.success
    assert (rule(result), result.failover, result.verification) == ("no_quorum", None, None)
    assert result.refusal is not None
    assert "add a witness in a third region" in result.refusal.remedy


# ---- active/active: the specification's second picture, and larger ones


def active_active(*, us_nodes: int = 1, eu_capacity: float = 100.0) -> Cluster:
    """Two regions that are written in: node-1 with so many nodes beside it, and node-9 alone."""
    us = (node(1, "us", NodeRole.PRIMARY), *(node(n, "us") for n in range(2, 1 + us_nodes)))
    eu = node(9, "eu", NodeRole.PRIMARY).model_copy(update={"weight": 50, "capacity": eu_capacity})
    return Cluster(
        cluster_id="shop",
        name="Shop",
        deployment=Deployment.ACTIVE_ACTIVE,
        regions=("us", "eu"),
        nodes=(us[0].model_copy(update={"weight": 50}), *us[1:], eu),
    )


def happened(result: SimulationResult) -> list[str]:
    return [event.what for event in result.timeline]


@pytest.mark.parametrize(
    "scenario",
    [Scenario.PRIMARY_FAILURE, Scenario.REGION_FAILURE, Scenario.NETWORK_PARTITION, Scenario.CASCADING],
)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_weight_of_a_region_that_is_gone_goes_to_the_other(seed: int, scenario: Scenario) -> None:
    result = simulate(active_active(), POLICY, scenario, seed)
    assert (result.cluster_id, result.success, result.refusal, result.failover) == ("shop", True, None, None)
    assert result.weights is not None
    assert result.weights.told() == "eu 50 → 100, us 50 → 0"
    assert "us is lost: no node of it answers" in happened(result)
    assert any("a person leaves it" in what for what in happened(result))


def test_a_region_that_is_gone_is_refused_where_the_other_has_no_room_for_its_weight() -> None:
    result = simulate(active_active(eu_capacity=60.0), POLICY, Scenario.REGION_FAILURE, 42)
    assert (result.success, result.weights, rule(result)) == (False, None, "not_enough_capacity")


@pytest.mark.parametrize("seed", SEEDS)
def test_within_a_region_its_own_lease_group_fails_over(seed: int) -> None:
    result = simulate(active_active(us_nodes=3), POLICY, Scenario.PRIMARY_FAILURE, seed)
    assert result.success, (result.refusal, result.verification)
    assert (moved(result), result.weights) == (("node-1", "node-2"), None)
    assert "us decides alone, as shop-us; nothing is promoted across regions" in result.assumptions


def test_a_region_that_has_no_quorum_left_and_is_not_gone_keeps_its_refusal_and_a_person_can_leave_it() -> (
    None
):
    result = simulate(active_active(us_nodes=3), POLICY, Scenario.QUORUM_LOSS, 42)
    assert (result.success, result.weights, rule(result)) == (False, None, "no_quorum")
    leave = "a person can leave us (qnwis-continuity region evacuate us): eu 50 → 100, us 50 → 0"
    assert happened(result)[-1] == leave


def test_a_region_whose_primary_is_not_failed_keeps_its_weight() -> None:
    result = simulate(active_active(), POLICY, Scenario.FLAPPING, 42)
    assert (result.success, result.weights, rule(result)) == (False, None, "primary_not_failed")


# ---- the scenarios on the specification's files


def test_primary_failure_has_the_specifications_form(shipped_files: Registered) -> None:
    result = simulate(shipped_files.cluster, shipped_files.policy, Scenario.PRIMARY_FAILURE, 42)
    told = result.model_dump(mode="json")
    assert (told["scenario"], told["success"], told["refusal"], told["seed"]) == (
        "primary_failure",
        True,
        None,
        42,
    )
    assert told["failover"].keys() >= {"execution_id", "success", "actions_executed", "total_duration_ms"}
    assert told["failover"]["success"] is True
    # The specification's topology has no DNS service: that step has nothing to do, and is done.
    assert told["failover"]["actions_executed"] == 5
    verification = told["verification"]
    assert verification.keys() >= {"report_id", "passed", "consistency_ok", "policy_ok", "quorum_ok"}
    assert all(verification[name] for name in ("passed", "consistency_ok", "policy_ok", "quorum_ok"))
    assert moved(result) == ("node-1", "node-2")


def test_the_simulated_plan_is_the_planners(shipped_files: Registered) -> None:
    """One plan, four readers: what is simulated has the digest of what would be executed."""
    cluster, policy = shipped_files.cluster, shipped_files.policy
    result = simulate(cluster, policy, Scenario.PRIMARY_FAILURE, 1)
    world = at_rest_evidence(cluster, policy, lost={"node-1"})
    planned = make_plan(cluster, policy, world, trigger_reason="node-1 failed")
    assert planned.plan is not None and result.failover is not None
    assert result.failover.plan_digest == planned.plan.digest


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        (Scenario.PRIMARY_FAILURE, None),
        (Scenario.REGION_FAILURE, "no_quorum"),
        (Scenario.NETWORK_PARTITION, "partition_suspected"),
        (Scenario.QUORUM_LOSS, "no_quorum"),
        (Scenario.FLAPPING, "primary_not_failed"),
        (Scenario.CASCADING, "cooldown"),
    ],
)
def test_every_scenario_ends_as_it_should(
    shipped_files: Registered, scenario: Scenario, expected: str | None, seed: int
) -> None:
    result = simulate(shipped_files.cluster, shipped_files.policy, scenario, seed)
    assert rule(result) == expected
    assert result.success is (expected is None)


def test_flapping_never_reaches_the_threshold_and_shows_its_recoveries(shipped_files: Registered) -> None:
    for seed in SEEDS:
        result = simulate(shipped_files.cluster, shipped_files.policy, Scenario.FLAPPING, seed)
        told = [event.what for event in result.timeline]
        assert sum(what == "node-1: back" for what in told) >= 3
        assert sum("answers again" in what for what in told) == sum(what == "node-1: back" for what in told)
        assert not any("3 of 3" in what for what in told)
        assert result.refusal is not None
        assert result.refusal.values["most_misses"] in (1, 2)


def test_flapping_below_a_threshold_of_one_is_a_failure(shipped_files: Registered) -> None:
    touchy = shipped_files.cluster.model_copy(update={"heartbeat": HeartbeatConfig(failure_threshold=1)})
    assert simulate(touchy, shipped_files.policy, Scenario.FLAPPING, 3).success


def test_cascading_without_a_cooldown_fails_over_twice_where_enough_nodes_are_left() -> None:
    hasty = POLICY.model_copy(update={"cooldown_s": 0.0, "min_healthy_nodes": 1})
    result = simulate(active_passive(witness=True), hasty, Scenario.CASCADING, 5)
    assert result.success, (result.refusal, result.verification)
    assert moved(result) == ("node-2", "node-3")
    refused = simulate(active_passive(witness=False), hasty, Scenario.CASCADING, 5)
    assert (rule(refused), moved(refused)) == ("no_quorum", ("node-1", "node-2"))


def test_cascading_is_stopped_by_the_hourly_cap() -> None:
    capped = POLICY.model_copy(update={"cooldown_s": 0.0, "max_failovers_per_hour": 1})
    result = simulate(active_passive(witness=True), capped, Scenario.CASCADING, 5)
    assert rule(result) == "max_failovers_per_hour"
    assert result.verification is not None and result.verification.passed, "of the first failover"


# ---- what the policy changes


def test_require_quorum_false_relaxes_the_quorum_but_not_for_quorum_based() -> None:
    cluster = active_passive(witness=False)
    relaxed = POLICY.model_copy(update={"require_quorum": False})
    assert moved(simulate(cluster, relaxed, Scenario.REGION_FAILURE, 1)) == ("node-1", "node-3")
    strict = relaxed.model_copy(update={"strategy": Strategy.QUORUM_BASED})
    assert rule(simulate(cluster, strict, Scenario.REGION_FAILURE, 1)) == "no_quorum_of_observers"


def test_a_manual_policy_is_simulated_as_executed_by_a_person(shipped_files: Registered) -> None:
    manual = shipped_files.policy.model_copy(update={"strategy": Strategy.MANUAL})
    result = simulate(shipped_files.cluster, manual, Scenario.PRIMARY_FAILURE, 1)
    assert result.success
    assert any("a person executes the proposed plan" in event.what for event in result.timeline)


def test_a_plan_that_is_too_slow_is_refused(shipped_files: Registered) -> None:
    slow = shipped_files.policy.model_copy(update={"estimates_ms": StepEstimates(promote_target=60_000)})
    assert rule(simulate(shipped_files.cluster, slow, Scenario.PRIMARY_FAILURE, 1)) == "too_slow"


def test_synchronous_replication_refuses_where_acknowledged_writes_could_be_lost() -> None:
    synchronous = active_passive(witness=True).model_copy(
        update={"replication": Replication(mode=ReplicationMode.SYNCHRONOUS)}
    )
    assert simulate(synchronous, POLICY, Scenario.PRIMARY_FAILURE, 1).success
    assert rule(simulate(synchronous, POLICY, Scenario.REGION_FAILURE, 1)) == "acknowledged_writes_uncertain"


def test_a_node_that_the_file_calls_failed_is_gone_from_the_start(shipped_files: Registered) -> None:
    cluster = shipped_files.cluster
    nodes = tuple(
        n.model_copy(update={"status": NodeStatus.FAILED}) if n.node_id == "node-2" else n
        for n in cluster.nodes
    )
    result = simulate(
        cluster.model_copy(update={"nodes": nodes}), shipped_files.policy, Scenario.PRIMARY_FAILURE, 1
    )
    assert rule(result) == "no_quorum"


def test_dns_is_part_of_the_result_where_the_topology_has_it(shipped_files: Registered) -> None:
    dns = DnsService(zone="example.com", name="db", ttl_s=5, servers=("127.0.0.1:53", "127.0.0.2:53"))
    cluster = shipped_files.cluster.model_copy(update={"dns": dns})
    result = simulate(cluster, shipped_files.policy, Scenario.PRIMARY_FAILURE, 1)
    assert result.success
    assert result.failover is not None and result.failover.actions_executed == 5
    assert any("db.example.com. is 10.0.1.11" in event.what for event in result.timeline)
    assert result.assumptions == ("every effect on a node that is alive succeeds",)
    assert (
        len(simulate(shipped_files.cluster, shipped_files.policy, Scenario.PRIMARY_FAILURE, 1).assumptions)
        == 2
    )


# ---- detection


@given(
    st.builds(
        HeartbeatConfig,
        interval_sec=st.floats(0.2, 10),
        timeout_sec=st.floats(0.1, 15),
        failure_threshold=st.integers(1, 5),
        jitter_percent=st.floats(0, 50),
    ),
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=5, unique=True),
    st.integers(),
)
@settings(max_examples=60)
def test_detection_takes_as_long_as_the_thresholds_say(
    heartbeat: HeartbeatConfig, vantages: list[str], seed: int
) -> None:
    cluster = active_passive(witness=True).model_copy(
        update={"heartbeat": heartbeat, "vantages": tuple(vantages)}
    )
    result = simulate(cluster, POLICY, Scenario.PRIMARY_FAILURE, seed)
    assert result.detection_ms is not None
    interval_ms, jitter = heartbeat.interval_sec * 1000, heartbeat.jitter_percent / 100
    misses, timeout_ms = heartbeat.failure_threshold, heartbeat.timeout_sec * 1000
    least = timeout_ms + (misses - 1 - jitter) * interval_ms
    most = timeout_ms + (misses + jitter) * interval_ms
    assert least - 1 <= result.detection_ms <= most + 1
    sure = [event.what for event in result.timeline if "is failed, say" in event.what]
    assert sure == [f"node-1 is failed, say {len(vantages) // 2 + 1} of {len(vantages)} vantages"]


# ---- determinism


def test_the_same_seed_gives_the_same_bytes_in_every_process(shipped_files: Registered) -> None:
    script = (
        "from qnwis.config.registry import Registry\n"
        "from qnwis.config.shipped import shipped\n"
        "from qnwis.continuity.model import canonical_json\n"
        "from qnwis.continuity.simulate import Scenario, simulate\n"
        "r = Registry(shipped('config') / 'continuity').load('prod-cluster')\n"
        "for s in Scenario:\n"
        "    print(canonical_json(simulate(r.cluster, r.policy, s, 42)))\n"
    )
    path = os.pathsep.join(filter(None, sys.path))
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONPATH": path, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "4711")
    }
    here = "".join(
        canonical_json(simulate(shipped_files.cluster, shipped_files.policy, s, 42)) + "\n" for s in Scenario
    )
    assert outputs == {here.encode()}


def test_another_seed_gives_another_course(shipped_files: Registered) -> None:
    cluster, policy = shipped_files.cluster, shipped_files.policy
    courses = {canonical_json(simulate(cluster, policy, Scenario.PRIMARY_FAILURE, seed)) for seed in SEEDS}
    assert len(courses) == len(SEEDS)
    wide = Cluster(
        cluster_id="wide",
        name="Wide",
        regions=("r",),
        nodes=(node(1, "r", NodeRole.PRIMARY), *(node(n, "r") for n in range(2, 9))),
    )
    lost = {simulate(wide, POLICY, Scenario.QUORUM_LOSS, seed).timeline[0].what for seed in SEEDS}
    assert len(lost) > 3


# ---- any cluster, any policy


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    count = draw(st.integers(1, 9))
    roles = st.sampled_from([NodeRole.SECONDARY, NodeRole.SECONDARY, NodeRole.WITNESS])
    statuses = st.sampled_from(list(NodeStatus))
    regions = ("a", "b", "c")
    nodes = [node(1, draw(st.sampled_from(regions)), NodeRole.PRIMARY, draw(statuses))]
    nodes += [
        node(n, draw(st.sampled_from(regions)), draw(roles), draw(statuses)) for n in range(2, count + 1)
    ]
    return Cluster(
        cluster_id="any",
        name="Any",
        quorum_size=draw(st.none() | st.integers(count // 2 + 1, count)),
        regions=regions,
        nodes=tuple(draw(st.permutations(nodes))),
        replication=Replication(mode=draw(st.sampled_from(list(ReplicationMode)))),
        vantages=tuple(draw(st.lists(st.sampled_from("xyz"), min_size=1, max_size=3, unique=True))),
    )


policies = st.builds(
    Policy,
    policy_id=st.just("any"),
    name=st.just("Any"),
    strategy=st.sampled_from(list(Strategy)),
    require_quorum=st.booleans(),
    max_failover_time_s=st.sampled_from([10.0, 60.0]),
    min_healthy_nodes=st.integers(0, 4),
    max_lag_bytes=st.sampled_from([0, 1024, 2**24]),
    cooldown_s=st.sampled_from([0.0, 300.0]),
)


@given(clusters(), policies, st.sampled_from(list(Scenario)), st.integers(0, 2**32))
@settings(max_examples=300)
def test_any_simulation_ends_and_explains_itself(
    cluster: Cluster, policy: Policy, scenario: Scenario, seed: int
) -> None:
    result = simulate(cluster, policy, scenario, seed)
    passed = result.verification is not None and result.verification.passed
    assert result.success == (passed and result.refusal is None)
    assert result.success or result.refusal is not None or not passed
    assert (result.failover is None) == (result.verification is None)
    assert all(a.t_ms <= b.t_ms for a, b in pairwise(result.timeline))
    if result.failover is not None:
        target = cluster.node(result.failover.target_node)
        assert target.role is NodeRole.SECONDARY
        assert target.status in (NodeStatus.HEALTHY, NodeStatus.UNKNOWN)
        if scenario is Scenario.REGION_FAILURE:
            assert target.region != cluster.node(result.failover.source_node).region
    if scenario is Scenario.NETWORK_PARTITION and policy.strategy is not Strategy.MANUAL:
        assert not result.success, "a primary that a standby still hears, or without any standby, stays"
    assert simulate(cluster, policy, scenario, seed) == result


# ---- rehearsal of a real run's plan

AT = datetime(2025, 1, 11, 12, 0, tzinfo=UTC)


def at_rest_evidence(cluster: Cluster, policy: Policy, lost: set[str]) -> ClusterEvidence:
    world = at_rest_world(cluster, policy)
    world.lose(lost)
    return world.evidence(AT)


def at_rest_world(cluster: Cluster, policy: Policy) -> ModelledCluster:
    return at_rest(cluster, policy, Random(0))


def planned(cluster: Cluster, policy: Policy, evidence: ClusterEvidence) -> Plan:
    plan = make_plan(cluster, policy, evidence, trigger_reason="test").plan
    assert plan is not None
    return plan


def rehearsed(cluster: Cluster, policy: Policy, evidence: ClusterEvidence) -> Rehearsal:
    return rehearse(planned(cluster, policy, evidence), cluster, policy, evidence)


def test_a_good_plan_passes_its_rehearsal_in_the_time_of_its_estimates(shipped_files: Registered) -> None:
    cluster, policy = shipped_files.cluster, shipped_files.policy
    evidence = at_rest_evidence(cluster, policy, lost={"node-1"})
    rehearsal = rehearsed(cluster, policy, evidence)
    assert rehearsal.refusal is None
    assert rehearsal.expected_ms == planned(cluster, policy, evidence).estimated_total_ms
    assert rehearsal.summary == "5 actions in 16.0 s"


def test_a_rehearsal_refuses_what_would_cost_the_quorum(shipped_files: Registered) -> None:
    """The planner counts the primary's own vote; fencing it takes that away."""
    cluster = shipped_files.cluster
    policy = shipped_files.policy.model_copy(update={"min_healthy_nodes": 1})
    evidence = at_rest_evidence(cluster, policy, lost={"node-3"})
    rehearsal = rehearsed(cluster, policy, evidence)
    assert rehearsal.refusal is not None
    assert rehearsal.refusal.rule == "rehearsal_failed"
    assert "1 of 3 nodes vote, the quorum is 2" in rehearsal.refusal.message


def test_a_standby_that_is_away_or_alien_does_not_stand_in_the_way() -> None:
    """One dead replica must not block a whole failover."""
    cluster, policy = active_passive(witness=True), POLICY.model_copy(update={"min_healthy_nodes": 1})
    evidence = at_rest_evidence(cluster, policy, lost={"node-1", "node-4"})
    assert rehearsed(cluster, policy, evidence).refusal is None
    world = at_rest_world(cluster, policy)
    world.states["node-4"] = world.states["node-4"].model_copy(update={"system_identifier": "alien"})
    world.lose({"node-1"})
    rehearsal = rehearsed(cluster, policy, world.evidence(AT))
    assert rehearsal.refusal is None
    assert "node-4 has system identifier alien" in rehearsal.summary


def test_a_rehearsal_refuses_a_plan_whose_target_is_gone(shipped_files: Registered) -> None:
    cluster, policy = shipped_files.cluster, shipped_files.policy
    plan = planned(cluster, policy, at_rest_evidence(cluster, policy, lost={"node-1"}))
    later = at_rest_evidence(cluster, policy, lost={"node-1", "node-2"})
    rehearsal = rehearse(plan, cluster, policy, later)
    assert rehearsal.refusal is not None
    assert "node-2 is gone" in rehearsal.refusal.message
    assert rehearsal.summary.startswith("would end rolled_back")


def test_a_rehearsal_leaves_the_evidence_as_it_was(shipped_files: Registered) -> None:
    cluster, policy = shipped_files.cluster, shipped_files.policy
    evidence = at_rest_evidence(cluster, policy, lost={"node-1"})
    before = evidence.model_dump_json()
    rehearsed(cluster, policy, evidence)
    assert evidence.model_dump_json() == before


def test_modelled_evidence_is_new_at_each_reading(shipped_files: Registered) -> None:
    world = at_rest_world(shipped_files.cluster, shipped_files.policy)
    later = world.evidence(AT + timedelta(seconds=1))
    assert {n.observed_at for n in later.nodes} == {later.taken_at} == {AT + timedelta(seconds=1)}
