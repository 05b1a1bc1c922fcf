"""The switchover's plan: what is done ahead, what must hold, and when it does not begin."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.evidence import ClusterEvidence, NodeState, StandbyConnection, with_degraded
from qnwis.continuity.executor import Do, Finish, Outcome, OutcomeStatus, RunEnd, Undo, advance
from qnwis.continuity.modelled import ModelledCluster, play
from qnwis.continuity.orders import FencingEvidence, FencingEvidenceType
from qnwis.continuity.plan import Plan
from qnwis.continuity.planner import Planning
from qnwis.continuity.run import Maintenance
from qnwis.continuity.simulate import rehearse
from qnwis.continuity.switchover import make_switchover, steady_state_refusal, window_refusal
from qnwis.continuity.topology import Cluster

from .scenes import (
    NOON,
    SPEC_CLUSTER,
    SYNCHRONOUS,
    changed,
    clusters,
    evidence,
    live_evidence,
    policy,
    primary,
    standby,
    with_dns,
)

SYNC = with_dns(changed(SPEC_CLUSTER, replication=SYNCHRONOUS.model_dump()), ttl_s=60)
LIMITS = policy(max_failover_time_s=300)
CONNECTED = tuple(
    StandbyConnection(application_name=name, state="streaming", sync_state="quorum")
    for name in ("node-2", "node-3")
)


def well(*changed: NodeState, without: str = "") -> ClusterEvidence:
    """All nodes answer, and the standbys stream; `changed` replaces what some of them say."""
    said = {
        "node-1": primary("node-1", standbys=CONNECTED),
        "node-2": standby("node-2"),
        "node-3": standby("node-3"),
        **{state.node_id: state for state in changed},
    }
    said.pop(without, None)
    return evidence(SYNC, *said.values())


def made(said: ClusterEvidence, *, topology: Cluster = SYNC, target: str | None = None) -> Planning:
    maintenance = Maintenance(target_node_id=target)
    return make_switchover(topology, LIMITS, said, maintenance, trigger_reason="new kernel")


def test_planned_maintenance_neither_goes_to_nor_counts_a_standby_that_streams_from_nobody() -> None:
    assert made(well()).plan == plan()
    said = with_degraded(SYNC, well(standby("node-2", streaming=False)))
    found = made(said).plan
    assert found is not None and found.failover_target_id == "node-3"
    refused = made(said, target="node-2").refusal
    assert refused is not None and "node-2 is degraded: it streams from nobody" in refused.message

    limits = policy(max_failover_time_s=300, min_healthy_nodes=3)
    assert rehearse(plan(), SYNC, limits, well()).refusal is None
    on_paper = rehearse(found, SYNC, limits, said).refusal
    assert on_paper is not None and "2 nodes are healthy, at least 3 must be" in on_paper.message


def plan(said: ClusterEvidence | None = None) -> Plan:
    found = made(said or well()).plan
    assert found is not None
    return found


def test_everything_that_can_be_is_done_ahead_and_the_ttl_comes_back() -> None:
    kinds = [action.kind for action in plan().actions]
    assert kinds == [
        "lower_ttl",
        "prepare_nodes",
        "release_primary",
        "promote_target",
        "flip_dns",
        "repoint_standbys",
        "rejoin_old_primary",
        "restore_ttl",
        "verify_service",
    ]
    assert made(well()).predicted_loss_bytes == 0


def test_a_ttl_that_is_low_already_and_a_cluster_without_dns_change_none() -> None:
    for topology in (with_dns(SYNC, ttl_s=1), changed(SYNC, dns=None)):
        found = made(well(), topology=topology).plan
        assert found is not None
        assert not {"lower_ttl", "restore_ttl"} & {action.kind for action in found.actions}


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        (well(primary("node-1", writable=False, standbys=CONNECTED)), "primary_not_serving"),
        (well(standby("node-2", upstream="node-3", streaming=True)), "target_does_not_stream"),
        (well(standby("node-2", streaming=False)), "target_does_not_stream"),
        (well(standby("node-3", database_up=False)), "standby_hangs"),
        (well(without="node-3"), "standby_hangs"),
    ],
)
def test_what_would_make_it_dangerous_refuses_it(said: ClusterEvidence, rule: str) -> None:
    refusal = made(said).refusal
    assert refusal is not None and refusal.rule == rule


def test_a_chosen_target_that_does_not_fit_is_refused_and_not_replaced() -> None:
    for target in ("node-1", "node-9"):
        refusal = made(well(), target=target).refusal
        assert refusal is not None and refusal.rule == "no_suitable_target"
    found = made(well(), target="node-3").plan
    assert found is not None and found.failover_target_id == "node-3"


def test_the_steady_state_is_what_the_plan_was_made_from() -> None:
    assert steady_state_refusal(plan(), SYNC, LIMITS, well()) is None
    lost = steady_state_refusal(plan(), SYNC, LIMITS, well(without="node-2"))
    assert lost is not None and lost.rule == "no_suitable_target"
    moved = well(
        standby("node-1", upstream="node-3"), standby("node-2", upstream="node-3"), primary("node-3")
    )
    gone = steady_state_refusal(plan(), SYNC, LIMITS, moved)
    assert gone is not None and gone.rule == "primary_moved"


@pytest.mark.parametrize(("after_s", "fits"), [(0, True), (400, True), (600, False)])
def test_it_begins_only_where_the_window_has_time_for_it(after_s: int, fits: bool) -> None:
    maintenance = Maintenance(window_s=600)
    now = NOON + timedelta(seconds=after_s)
    refusal = window_refusal(maintenance, plan(), started_at=NOON, now=now)
    assert (refusal is None) is fits
    assert window_refusal(maintenance, plan(), started_at=NOON, now=now, extended_s=600) is None
    assert window_refusal(Maintenance(), plan(), started_at=NOON, now=now) is None


def test_on_paper_it_ends_verified_with_the_old_primary_a_standby() -> None:
    world = ModelledCluster.of(SYNC, well())
    played = play(
        plan(),
        LIMITS,
        world,
        before=well(),
        epoch=5,
        started_at=NOON,
        duration_ms=lambda action: float(action.estimate_ms),
    )
    assert played.completed and played.report is not None and played.report.passed, played.report
    assert world.states["node-1"].upstream == "node-2"


statuses = st.sampled_from([OutcomeStatus.SUCCEEDED, OutcomeStatus.FAILED, OutcomeStatus.UNKNOWN])


@given(st.lists(statuses, min_size=12, max_size=12), st.booleans())
def test_whatever_happens_it_is_undone_before_the_promotion_and_completed_past_it(
    ends: list[OutcomeStatus], stops: bool
) -> None:
    made_plan, log, left = plan(), list[Outcome](), list(ends)
    while True:
        match advance(made_plan, log, stop="enough" if stops and log else None):
            case Finish(end=end):
                break
            case Undo(action=action):
                log.append(Outcome(action_id=action.action_id, status=OutcomeStatus.UNDONE))
            case Do(action=action):
                status = left.pop(0) if left else OutcomeStatus.SUCCEEDED
                fencing = None
                if action.kind == "release_primary" and status is OutcomeStatus.SUCCEEDED:
                    fencing = FencingEvidence(
                        type=FencingEvidenceType.RELEASED,
                        holder="node-1",
                        epoch=5,
                        source="test",
                        detail="",
                        at=NOON,
                    )
                log.append(Outcome(action_id=action.action_id, status=status, fencing=fencing))
    last = {outcome.action_id: outcome.status for outcome in log}
    promoted = last.get("4-promote-node-2")
    if end in {RunEnd.COMPLETED, RunEnd.INCOMPLETE}:
        assert promoted is OutcomeStatus.SUCCEEDED
    else:
        assert promoted in {None, OutcomeStatus.FAILED}
        for reversible in ("1-lower-ttl", "3-release-node-1"):
            assert last.get(reversible) in {None, OutcomeStatus.FAILED, OutcomeStatus.UNDONE}


@given(st.data())
def test_no_evidence_that_is_missing_ever_plans_a_switchover(data: st.DataObject) -> None:
    topology = data.draw(clusters())
    said = data.draw(live_evidence(topology))  # of standbys whose primary is dead
    planning = make_switchover(topology, LIMITS, said, Maintenance(), trigger_reason="test")
    writable = [n.node_id for n in said.nodes if n.state is not None and n.state.writable]
    assert planning.plan is None or planning.plan.primary_node_id in writable
