"""Clusters that Patroni manages: who may take over, in which order regions change, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.assessment import assess
from qnwis.continuity.evidence import ClusterEvidence, current_primary
from qnwis.continuity.executor import FENCES, Do, Finish, Outcome, OutcomeStatus, RunEnd, advance
from qnwis.continuity.leaving import come_back, leave
from qnwis.continuity.modelled import ModelledCluster
from qnwis.continuity.override import GiveUp
from qnwis.continuity.patroni import demoted_refusal, refusal_to_move
from qnwis.continuity.plan import VerifyService
from qnwis.continuity.planner import Planning, make_plan
from qnwis.continuity.promotion import patroni_promotion_refusal
from qnwis.continuity.run import Detection, FailoverRequest, Maintenance
from qnwis.continuity.simulate import rehearse
from qnwis.continuity.switchover import make_switchover
from qnwis.continuity.targets import rank, survey
from qnwis.continuity.topology import Cluster, Database
from qnwis.continuity.verifier import VerificationReport, verify
from tests.unit.continuity.patroni_scenes import (
    EAST,
    HOOK,
    WELL,
    WEST,
    by_patroni,
    follows,
    leads,
    said,
    word,
    worlds,
)
from tests.unit.continuity.scenes import NOON, policy, with_dns

CLUSTER = by_patroni()
FENCED = by_patroni(fencing=HOOK)
POLICY = policy()
SERVED = said(CLUSTER, *WELL)
EAST_LOST = said(CLUSTER, follows("w1"), follows("w2"))


def switchover(evidence: ClusterEvidence = SERVED, target: str | None = None) -> Planning:
    return make_switchover(
        CLUSTER, POLICY, evidence, Maintenance(target_node_id=target), trigger_reason="test"
    )


def failover(evidence: ClusterEvidence, topology: Cluster = CLUSTER, **fields: Any) -> Planning:
    return make_plan(topology, POLICY, evidence, trigger_reason="test", **fields)


def kinds(planning: Planning) -> list[str]:
    assert planning.plan is not None, planning.refusal
    return [action.kind for action in planning.plan.actions]


def rule(planning: Planning) -> str:
    assert planning.refusal is not None, planning.plan
    return planning.refusal.rule


# Who is the primary


def test_a_region_that_follows_another_has_no_primary_of_its_own() -> None:
    assert current_primary(CLUSTER, SERVED) == "e1"
    upstreams = {n.node_id: n.state.upstream for n in SERVED.nodes if n.state is not None}
    assert upstreams == {"e1": None, "e2": "e1", "w1": "e1", "w2": "w1"}


def test_a_silent_primary_is_known_by_who_follows_its_address() -> None:
    assert current_primary(CLUSTER, EAST_LOST) == "e1"


def test_a_region_that_follows_an_address_outside_the_topology_is_no_standby_of_it() -> None:
    strange = word("w1", standby_of="10.9.9.9:5432")
    lost = said(CLUSTER, follows("w1", patroni=strange), follows("w2", patroni=strange))
    assert rule(failover(lost, FENCED)) == "primary_unknown"


def test_behind_an_address_that_a_region_shares_its_leader_is_followed() -> None:
    topology = by_address_of_region()
    behind = word("w1", standby_of="10.0.0.100:5432")
    moved = said(
        topology,
        follows("e1", patroni=word("e1", leader="e2")),
        leads("e2", patroni=word("e2", leader="e2")),
        follows("w1", patroni=behind),
    )
    assert moved.of("w1").state is not None and moved.of("w1").state.upstream == "e2"


# Plans


def test_within_a_region_patroni_is_asked_to_switch_over() -> None:
    assert kinds(switchover()) == ["patroni_switchover", "flip_dns", "verify_service"]
    assert switchover().plan.failover_target_id == "e2"  # type: ignore[union-attr]


def by_address_of_region() -> Cluster:
    """Each region is reached at an address of its own, which leads to its leader."""
    addresses = {"east": "10.0.0.100", "west": "10.0.0.200"}
    nodes = [
        node.model_copy(update={"database": Database(host=addresses[node.region], port=5432)})
        for node in CLUSTER.nodes
    ]
    return by_patroni(nodes=tuple(nodes))


def test_with_a_name_its_ttl_is_lowered_before_a_region_is_left_and_restored_after() -> None:
    named = with_dns(by_address_of_region(), ttl_s=30)
    follow = [
        follows(name, patroni=word(name, standby_of="10.0.0.100:5432" if name in WEST else None))
        for name in ("e2", *WEST)
    ]
    served = said(named, leads("e1"), *follow)

    def to(target: str) -> list[str]:
        wanted = Maintenance(target_node_id=target)
        return kinds(make_switchover(named, POLICY, served, wanted, trigger_reason="test"))

    assert to("w1")[0] == "lower_ttl" and to("w1")[-2:] == ["restore_ttl", "verify_service"]
    assert to("e2") == ["patroni_switchover", "flip_dns", "verify_service"], "the address stays"


def test_to_another_region_the_old_one_is_demoted_before_the_new_one_is_promoted() -> None:
    made = switchover(target="w1")
    assert kinds(made) == [
        "patroni_demote_cluster",
        "patroni_promote_cluster",
        "flip_dns",
        "verify_service",
    ]
    assert made.plan is not None
    demote = made.plan.actions[0].model_dump()
    assert demote["upstream_host"] == "10.0.0.3" and demote["node_ids"] == EAST


def test_a_dead_leader_is_left_within_its_region_where_that_has_another_member() -> None:
    dead = said(CLUSTER, follows("e2"), follows("w1"), follows("w2"))
    made = failover(dead)
    assert kinds(made) == ["patroni_failover", "flip_dns", "verify_service"]
    assert made.plan is not None and made.plan.failover_target_id == "e2"


def test_a_lost_region_is_fenced_before_another_one_is_promoted() -> None:
    made = failover(EAST_LOST, FENCED)
    assert kinds(made)[:2] == ["patroni_fence_cluster", "patroni_promote_cluster"]
    assert made.plan is not None and made.plan.actions[0].model_dump()["node_ids"] == EAST


def test_a_lost_region_that_nothing_can_fence_is_not_left() -> None:
    assert rule(failover(EAST_LOST)) == "region_cannot_be_fenced"


@pytest.mark.parametrize(
    ("lost", "attested_by"), [(("e1",), "ann"), (("e1", "e2"), None)], ids=["not all", "nobody states it"]
)
def test_a_persons_word_is_of_all_members_of_the_region(
    lost: tuple[str, ...], attested_by: str | None
) -> None:
    silent = said(CLUSTER, follows("w1"), follows("w2"))
    gone = GiveUp(node_ids=lost, attested_by=attested_by)
    made = failover(silent, override=True, give_up=gone)
    assert rule(made) in ("region_not_attested", "survivor_silent")


def test_with_a_persons_word_a_lost_region_is_left() -> None:
    gone = GiveUp(node_ids=EAST, attested_by="ann")
    made = failover(EAST_LOST, override=True, give_up=gone)
    assert kinds(made)[:2] == ["patroni_fence_cluster", "patroni_promote_cluster"]
    assert made.plan is not None and made.plan.actions[0].model_dump()["attested_by"] == "ann"
    assert any("rests on the word of ann" in note for note in made.notes)


# What is refused


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("patroni_paused", {"paused": True}),
        ("patroni_members_differ", {"members": ("e1", "e2", "e9")}),
    ],
)
def test_what_patroni_says_of_its_cluster_can_forbid_to_begin(name: str, fields: dict[str, Any]) -> None:
    other = said(CLUSTER, WELL[0], follows("e2", patroni=word("e2", **fields)), *WELL[2:])
    assert rule(switchover(other)) == name
    dead = said(CLUSTER, follows("e2", patroni=word("e2", **fields)), *WELL[2:])
    assert rule(failover(dead)) == name
    assert rule(failover(dead, override=True)) == name, "an emergency does not go past it"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"patroni": word("e2", nofailover=True)}, "nofailover"),
        ({"patroni": word("e2", synchronous=True)}, "synchronous_mode"),
        ({"patroni": word("e2", max_lag_bytes=100), "lsn": 800}, "maximum_lag_on_failover is 100"),
        ({"patroni": None}, "known to no Patroni"),
    ],
)
def test_whom_patroni_would_not_take_is_no_target(fields: dict[str, Any], told: str) -> None:
    unfit = said(CLUSTER, WELL[0], follows("e2", **fields), *WELL[2:])
    made = switchover(unfit, target="e2")
    assert rule(made) == "no_suitable_target"
    assert made.refusal is not None and told in made.refusal.message


def test_a_synchronous_standby_may_take_over() -> None:
    fit = word("e2", synchronous=True, sync_standby=True, max_lag_bytes=0)
    made = switchover(said(CLUSTER, WELL[0], follows("e2", patroni=fit), *WELL[2:]))
    assert made.plan is not None and made.plan.failover_target_id == "e2"


def test_in_another_region_only_its_standby_leader_takes_over() -> None:
    made = switchover(target="w2")
    assert rule(made) == "no_suitable_target"
    assert made.refusal is not None and "w1 is" in made.refusal.message


def test_an_old_region_that_came_back_as_a_primary_is_seen_and_nothing_begun() -> None:
    """West leads on a later timeline; east was switched on as it had been."""
    west = {"timeline": 2, "epoch": 2}
    back = said(
        CLUSTER,
        leads("e1"),
        leads("w1", patroni=word("w1", standby_of=None), **west),
        follows("w2", patroni=word("w2", standby_of=None), **west),
    )
    assert current_primary(CLUSTER, back) == "w1"
    assert rule(switchover(back, target="w2")) == "two_primaries"


def test_a_leader_that_patroni_moved_meanwhile_is_no_second_one() -> None:
    plan = switchover().plan
    assert plan is not None
    moved = said(CLUSTER, follows("e1"), leads("e2"), *WELL[2:])
    seen = {node.node_id: node for node in moved.nodes}
    refusal = refusal_to_move(CLUSTER, seen, "e1", "w1")
    assert refusal is not None and refusal.rule == "leader_moved"


def test_no_automaton_fails_over_what_patroni_manages() -> None:
    detected = Detection(node_id="e1", vantages=("default",), misses=3, detected_at=NOON)
    request = FailoverRequest(
        cluster_id="prod", initiated_by="guardian", reason="r", automatic=True, detection=detected
    )
    made = assess(request, CLUSTER, POLICY, EAST_LOST)
    assert made.refusal is not None and made.refusal.rule == "patroni_fails_over"


# Regions


def test_a_region_is_left_by_a_switchover_while_it_serves_and_come_back_to() -> None:
    out = leave(CLUSTER, POLICY, SERVED, "east", reason="flood")
    assert out is not None and out.plan is not None and out.plan.failover_target_id == "w1"
    at_west = {"timeline": 2, "epoch": 2}
    follow = "10.0.0.3:5432"
    away = said(
        CLUSTER,
        follows("e1", patroni=word("e1", leader="e2", standby_of=follow), **at_west),
        follows("e2", patroni=word("e2", leader="e2", standby_of=follow), **at_west),
        leads("w1", patroni=word("w1", standby_of=None), **at_west),
        follows("w2", patroni=word("w2", standby_of=None), **at_west),
    )
    back = come_back(CLUSTER, POLICY, away, "east", reason="dry")
    assert back is not None and back.plan is not None, back
    assert back.plan.failover_target_id == "e2", "whoever leads the region by now"


def test_a_demoted_region_counts_once_it_is_read_only_and_the_target_has_its_log() -> None:
    demoted = word("e1", standby_of="10.0.0.3:5432")

    def why(*states: Any) -> str:
        refusal = demoted_refusal(said(CLUSTER, *states), old="e1", region=EAST, target="w1")
        return "" if refusal is None else refusal.message

    done = follows("e1", 1000, patroni=demoted)
    assert why(done, follows("w1", 1000)) == ""
    assert "accepts writes" in why(leads("e1"), follows("w1"))
    assert "accepts writes" in why(done, leads("e2"), follows("w1"))
    assert "ended at 1000" in why(done, follows("w1", 999))
    assert "ended at 1000 of timeline 1" in why(done, follows("w1", 2000, timeline=2))
    assert "not seen to be in recovery" in why(follows("w1", 1000))
    assert "not seen to be that of a standby cluster" in why(follows("e1"), follows("w1"))


def test_a_region_is_not_promoted_while_any_member_of_the_other_one_writes() -> None:
    plan = switchover(target="w1").plan
    assert plan is not None
    follow = word("e1", leader="e2", standby_of="10.0.0.3:5432")

    def why(*east: Any) -> str | None:
        refusal = patroni_promotion_refusal(plan, CLUSTER, POLICY, said(CLUSTER, *east, *WELL[2:]), left=EAST)
        return None if refusal is None else refusal.rule

    assert why(follows("e1", patroni=follow), follows("e2")) is None
    assert why(follows("e1", patroni=follow), leads("e2")) == "old_region_writes"
    assert why(leads("e1"), follows("e2")) == "old_region_writes"


def test_what_patroni_refuses_leaves_all_as_it_was() -> None:
    plan = switchover().plan
    assert plan is not None
    asked = plan.actions[0].action_id
    refused = advance(plan, [Outcome(action_id=asked, status=OutcomeStatus.FAILED, detail="412")])
    assert isinstance(refused, Finish) and refused.end is RunEnd.UNTOUCHED
    again = advance(plan, [Outcome(action_id=asked, status=OutcomeStatus.UNKNOWN)])
    assert again == Do(plan.actions[0], again=True), "it may have happened: there is only forward"


@pytest.mark.parametrize(
    ("node_id", "fields"),
    [("e2", {"streaming": False}), ("e1", {"upstream": "10.9.9.9:5432"}), ("w2", {"replay_lsn": None})],
)
def test_verified_is_only_what_all_other_members_follow(node_id: str, fields: dict[str, Any]) -> None:
    made = switchover(target="w1")
    assert made.plan is not None
    paper = ModelledCluster.of(CLUSTER, SERVED)
    outcomes = [paper.carry_out(action, epoch=2, at=NOON) for action in made.plan.actions[:-1]]

    def report() -> VerificationReport:
        return verify(
            made.plan,
            CLUSTER,
            POLICY,
            SERVED,
            paper.evidence(NOON + timedelta(seconds=9)),
            fencing=outcomes[0].fencing,
            dns=None,
            elapsed_ms=1,
            epoch=2,
        )

    assert report().passed, report().failures
    paper.states[node_id] = paper.states[node_id].model_copy(update=fields)
    assert [check.name.partition(":")[2] for check in report().failures] == [node_id]


# What holds of every plan


@given(worlds(FENCED), st.sampled_from([None, *EAST, *WEST]))
def test_no_plan_promotes_a_region_before_the_other_one_is_demoted_or_fenced(
    world: ClusterEvidence, target: str | None
) -> None:
    for made in (
        make_plan(FENCED, POLICY, world, trigger_reason="test"),
        make_switchover(FENCED, POLICY, world, Maintenance(target_node_id=target), trigger_reason="test"),
    ):
        if made.plan is None:
            assert made.refusal is not None
            continue
        plan, order = made.plan, kinds(made)
        crosses = FENCED.node(plan.primary_node_id).region != FENCED.node(plan.failover_target_id).region
        assert crosses is ("patroni_promote_cluster" in order)
        if crosses:
            assert order[0] in ("patroni_demote_cluster", "patroni_fence_cluster")
            # The stepper does not go on to the promotion without evidence, whatever is said of the fence.
            fence = plan.actions[0]
            for status in OutcomeStatus:
                step = advance(plan, [Outcome(action_id=fence.action_id, status=status)])
                assert not (isinstance(step, Do) and step.action.kind == "patroni_promote_cluster")


@given(worlds(CLUSTER))
def test_who_may_take_over_obeys_patronis_rules(world: ClusterEvidence) -> None:
    view = survey(CLUSTER, POLICY, world, "e1")
    for candidate in rank(view):
        if not candidate.eligible:
            continue
        state = world.of(candidate.node_id).state
        assert state is not None and state.patroni is not None and not state.patroni.nofailover
        if candidate.node_id in WEST:
            assert state.patroni.leader == candidate.node_id and state.patroni.standby_of is not None
        else:
            assert state.patroni.sync_standby or not state.patroni.synchronous


@given(worlds(FENCED), st.sampled_from([None, *EAST, *WEST]))
def test_while_a_plan_is_played_two_nodes_never_write(world: ClusterEvidence, target: str | None) -> None:
    wanted = Maintenance(target_node_id=target)
    for made in (
        make_plan(FENCED, POLICY, world, trigger_reason="test"),
        make_switchover(FENCED, POLICY, world, wanted, trigger_reason="test"),
    ):
        if made.plan is None:
            continue
        paper = ModelledCluster.of(FENCED, world)
        for action in made.plan.actions:
            if isinstance(action, VerifyService):
                continue
            paper.carry_out(action, epoch=2, at=NOON)
            writable = [n for n, state in paper.states.items() if state.writable]
            assert len(writable) <= 1, (action.kind, writable)
        assert [n for n, state in paper.states.items() if state.writable] == [made.plan.failover_target_id]


@pytest.mark.parametrize("made", [switchover(), switchover(target="w1"), failover(EAST_LOST, FENCED)])
def test_a_plan_ends_verified_on_paper(made: Planning) -> None:
    assert made.plan is not None
    evidence = SERVED if made.plan.actions[0].kind not in FENCES - {"patroni_demote_cluster"} else EAST_LOST
    rehearsed = rehearse(made.plan, FENCED, POLICY, evidence)
    assert rehearsed.refusal is None, rehearsed
    assert "expected" not in rehearsed.summary, rehearsed.summary
