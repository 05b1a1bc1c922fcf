"""The verifier: a good failover passes; each thing that can be wrong after one fails a check by its name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.confidence import Band
from qnwis.continuity.evidence import ClusterEvidence, NodeState
from qnwis.continuity.orders import FencingEvidence, FencingEvidenceType
from qnwis.continuity.planner import make_plan
from qnwis.continuity.policy import Strategy
from qnwis.continuity.topology import NodeRole
from qnwis.continuity.verifier import VerificationReport, verify
from tests.unit.continuity.scenes import (
    FAILED,
    HEALTHY,
    NOON,
    SPEC_CLUSTER,
    SPEC_POLICY,
    UNKNOWN,
    changed,
    evidence,
    fenced,
    node,
    on_file,
    policy,
    primary,
    spec_plan,
    standby,
    with_dns,
)

CLUSTER = with_dns(SPEC_CLUSTER, servers=("127.0.0.1:53", "127.0.0.2:53"))
PLAN = spec_plan(CLUSTER)
BEFORE = evidence(CLUSTER, standby("node-2"), standby("node-3"))
LATER = NOON + timedelta(seconds=2)
TARGET = primary("node-2", 2000, timeline=2, epoch=1)
FOLLOWER = standby("node-3", 2000, upstream="node-2", timeline=2, epoch=1)
MOVED = {"127.0.0.1:53": ("10.0.1.11",), "127.0.0.2:53": ("10.0.1.11",)}


def after(*said: NodeState, **fields: Any) -> ClusterEvidence:
    return evidence(CLUSTER, *said, **{"at": LATER, **fields})


AFTER = after(TARGET, FOLLOWER)


def report(
    now: ClusterEvidence = AFTER,
    *,
    before: ClusterEvidence = BEFORE,
    limits: Any = SPEC_POLICY,
    fencing: FencingEvidence | None = fenced(),  # noqa: B008 - a value
    dns: Mapping[str, tuple[str, ...]] | None = MOVED,
    elapsed_ms: float = 2_000,
    epoch: int = 1,
) -> VerificationReport:
    return verify(
        PLAN, CLUSTER, limits, before, now, fencing=fencing, dns=dns, elapsed_ms=elapsed_ms, epoch=epoch
    )


def failed(found: VerificationReport) -> set[str]:
    assert found.passed == (not found.failures)
    return {check.name for check in found.failures}


def replaced(state: NodeState, **fields: Any) -> NodeState:
    return state.model_copy(update=fields)


def test_a_good_failover_passes_with_very_high_confidence() -> None:
    found = report()
    assert failed(found) == set()
    assert (found.consistency_ok, found.policy_ok, found.quorum_ok, found.freshness_ok) == (True,) * 4
    assert found.dns_ok is True
    assert (found.confidence.score, found.confidence.band) == (95, Band.VERY_HIGH)


def test_without_dns_there_is_no_answer_about_it() -> None:
    plan = spec_plan()
    found = verify(
        plan, SPEC_CLUSTER, SPEC_POLICY, BEFORE, AFTER, fencing=fenced(), dns=None, elapsed_ms=1, epoch=1
    )
    assert (found.passed, found.dns_ok) == (True, None)


# --- Consistency --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ((TARGET, FOLLOWER, primary("node-1")), {"one_writable_node"}),
        ((TARGET, replaced(FOLLOWER, writable=True)), {"one_writable_node"}),
        ((replaced(TARGET, writable=False), FOLLOWER), {"one_writable_node"}),
        ((replaced(TARGET, epoch=0), FOLLOWER), {"epoch_obeyed"}),
        ((replaced(TARGET, timeline=1), FOLLOWER), {"timeline_advanced"}),
        ((replaced(TARGET, timeline=None), FOLLOWER), {"timeline_advanced"}),
        ((TARGET, replaced(FOLLOWER, upstream="node-1")), {"standby_follows:node-3"}),
        ((TARGET, replaced(FOLLOWER, upstream=None)), {"standby_follows:node-3"}),
        ((TARGET, replaced(FOLLOWER, streaming=False)), {"standby_follows:node-3"}),
        ((TARGET, replaced(FOLLOWER, system_identifier="666")), {"standby_follows:node-3"}),
        ((TARGET, replaced(FOLLOWER, system_identifier=None)), {"standby_follows:node-3"}),
        ((replaced(TARGET, system_identifier=None), FOLLOWER), {"standby_follows:node-3"}),
    ],
)
def test_each_inconsistency_fails_its_check_and_ruins_confidence(
    said: tuple[NodeState, ...], names: set[str]
) -> None:
    found = report(after(*said))
    assert failed(found) == names
    assert not found.consistency_ok
    assert found.confidence.band is Band.VERY_LOW


@pytest.mark.parametrize(
    "evidence_given",
    [None, fenced(kind=FencingEvidenceType.NONE), fenced(holder="node-3"), fenced(epoch=0)],
    ids=["nothing", "none", "another holder", "another epoch"],
)
def test_an_old_primary_that_nobody_proved_fenced_fails(evidence_given: FencingEvidence | None) -> None:
    assert failed(report(fencing=evidence_given)) == {"old_primary_fenced"}


def test_an_old_primary_that_came_back_as_a_standby_is_fine() -> None:
    assert report(after(TARGET, FOLLOWER, standby("node-1", upstream="node-2", timeline=2))).passed


def test_a_timeline_that_was_not_known_before_cannot_be_seen_to_advance() -> None:
    silent = evidence(CLUSTER, statuses={n.node_id: UNKNOWN for n in CLUSTER.nodes})
    assert "timeline_advanced" in failed(report(before=silent))


def test_a_target_that_does_not_answer_fails_all_that_needs_it() -> None:
    assert failed(report(after(FOLLOWER))) >= {
        "one_writable_node",
        "epoch_obeyed",
        "timeline_advanced",
        "standby_follows:node-3",
        "evidence_complete",
        "enough_healthy_nodes",
        "quorum_held",
    }


def test_another_node_answering_for_the_target_is_no_answer() -> None:
    nodes = tuple(
        e.model_copy(update={"state": replaced(TARGET, node_id="node-3")}) if e.node_id == "node-2" else e
        for e in AFTER.nodes
    )
    found = report(AFTER.model_copy(update={"nodes": nodes}))
    assert {"one_writable_node", "evidence_complete"} <= failed(found)


def test_a_standby_that_went_silent_during_the_run_fails_by_name() -> None:
    found = report(after(TARGET, statuses={"node-3": HEALTHY}))
    assert failed(found) == {"standby_follows:node-3", "evidence_complete", "standby_replayed:node-3"}


@pytest.mark.parametrize("status", [FAILED, UNKNOWN])
def test_a_standby_that_was_away_before_the_run_does_not_fail_it(status: Any) -> None:
    limits = policy(require_quorum=False, min_healthy_nodes=1)
    before = evidence(CLUSTER, standby("node-2"), statuses={"node-3": status})
    assert failed(report(after(TARGET), before=before, limits=limits)) == set()


def test_a_standby_that_only_its_agent_was_silent_about_is_missed() -> None:
    before = evidence(CLUSTER, standby("node-2"), statuses={"node-3": HEALTHY})
    limits = policy(require_quorum=False, min_healthy_nodes=1)
    assert "standby_follows:node-3" in failed(report(after(TARGET), before=before, limits=limits))


def test_one_standby_of_unknown_lag_costs_the_marks_of_all() -> None:
    four = changed(CLUSTER, nodes=[*CLUSTER.nodes, node("node-4", region="region-2")], quorum_size=3)
    plan = make_plan(four, SPEC_POLICY, on_file(four), trigger_reason="test").plan
    assert plan is not None
    blind = standby("node-4", upstream="node-2", replay_lsn=None)
    found = verify(
        plan, four, SPEC_POLICY, BEFORE, evidence(four, TARGET, FOLLOWER, blind, at=LATER),
        fencing=fenced(), dns=MOVED, elapsed_ms=1, epoch=1,
    )  # fmt: skip
    assert failed(found) == {"standby_replayed:node-4"}
    assert {m.name: m.points for m in found.confidence.marks}["replication"] == 0


def test_a_standby_that_was_away_and_is_back_must_follow() -> None:
    before = evidence(CLUSTER, standby("node-2"))
    found = report(after(TARGET, replaced(FOLLOWER, upstream="node-1")), before=before)
    assert failed(found) == {"standby_follows:node-3"}


# --- Policy, quorum, freshness, DNS -------------------------------------------------------------------------


def test_a_run_that_overran_its_time_fails_the_policy() -> None:
    assert report(elapsed_ms=60_000).passed
    found = report(elapsed_ms=60_001)
    assert failed(found) == {"within_time"}
    assert (found.policy_ok, found.consistency_ok, found.confidence.band) == (False, True, Band.LOW)


def test_too_few_healthy_nodes_fail_the_policy() -> None:
    assert failed(report(limits=policy(min_healthy_nodes=3))) == {"enough_healthy_nodes"}


def test_the_quorum_is_held_where_the_policy_demands_it() -> None:
    lost = after(TARGET, FOLLOWER, statuses={"node-3": UNKNOWN})
    assert failed(report(lost, limits=policy())) == {"quorum_held"}
    assert not report(lost, limits=policy()).quorum_ok
    assert report(lost, limits=policy(require_quorum=False)).passed
    based = policy(require_quorum=False, strategy=Strategy.QUORUM_BASED)
    assert failed(report(lost, limits=based)) == {"quorum_held"}


def test_evidence_from_before_the_run_proves_nothing() -> None:
    assert failed(report(AFTER.model_copy(update={"taken_at": NOON}))) == {"evidence_newer"}
    assert failed(report(AFTER.model_copy(update={"taken_at": None}))) == {"evidence_newer"}
    assert failed(report(before=BEFORE.model_copy(update={"taken_at": None}))) == {"evidence_newer"}


@pytest.mark.parametrize("observed_at", [NOON, None])
def test_one_reading_from_before_the_run_is_enough_to_fail(observed_at: Any) -> None:
    nodes = tuple(
        e.model_copy(update={"observed_at": observed_at}) if e.node_id == "node-3" else e for e in AFTER.nodes
    )
    found = report(AFTER.model_copy(update={"nodes": nodes}))
    assert failed(found) == {"evidence_newer"}
    assert "node-3" in found.failures[0].detail


@pytest.mark.parametrize(
    ("target", "follower", "ok"),
    [
        ({}, {"replay_lsn": 1900}, True),
        ({}, {"replay_lsn": 1899}, False),
        ({}, {"replay_lsn": 2100}, True),  # read a moment later than the target
        ({}, {"replay_lsn": None}, False),
        ({"write_lsn": None}, {}, False),
    ],
)
def test_standbys_have_replayed_within_the_policys_lag(
    target: dict[str, Any], follower: dict[str, Any], ok: bool
) -> None:
    limits = policy(max_lag_bytes=100)
    found = report(after(replaced(TARGET, **target), replaced(FOLLOWER, **follower)), limits=limits)
    assert failed(found) == (set() if ok else {"standby_replayed:node-3"})
    assert found.freshness_ok == ok


@pytest.mark.parametrize(
    ("dns", "servers"),
    [
        (None, {"127.0.0.1:53", "127.0.0.2:53"}),
        ({}, {"127.0.0.1:53", "127.0.0.2:53"}),
        ({"127.0.0.1:53": ("10.0.1.11",)}, {"127.0.0.2:53"}),
        ({**MOVED, "127.0.0.2:53": ("10.0.1.10",)}, {"127.0.0.2:53"}),
        ({**MOVED, "127.0.0.1:53": ("10.0.1.11", "10.0.1.10")}, {"127.0.0.1:53"}),
        ({**MOVED, "127.0.0.1:53": ()}, {"127.0.0.1:53"}),
    ],
)
def test_every_authoritative_server_answers_only_the_new_address(
    dns: dict[str, tuple[str, ...]] | None, servers: set[str]
) -> None:
    found = report(dns=dns)
    assert failed(found) == {f"dns_moved:{server}" for server in servers}
    assert found.dns_ok is False


# --- The report ---------------------------------------------------------------------------------------------


def test_the_same_findings_have_the_same_id_and_others_another() -> None:
    assert report().report_id == report().report_id
    assert report().report_id != report(elapsed_ms=2_001).report_id


def test_a_report_survives_its_own_json() -> None:
    assert VerificationReport.model_validate_json(report().model_dump_json()) == report()


@given(st.data())
def test_forgetting_any_fact_never_turns_a_failure_into_a_pass(data: st.DataObject) -> None:
    """Whatever is wrong with the world, an agent that says less about it does not help."""
    said = [
        data.draw(
            st.builds(
                replaced,
                st.just(state),
                writable=st.booleans(),
                upstream=st.sampled_from(["node-1", "node-2"]),
                streaming=st.booleans(),
                timeline=st.sampled_from([1, 2]),
                epoch=st.sampled_from([0, 1]),
                system_identifier=st.sampled_from(["7001", "666"]),
                replay_lsn=st.just(2000),
                role=st.just(NodeRole.SECONDARY),
            )
        )
        for state in (TARGET, FOLLOWER)
    ]
    forgotten = data.draw(
        st.sampled_from(["upstream", "timeline", "system_identifier", "write_lsn", "replay_lsn"])
    )
    index = data.draw(st.sampled_from([0, 1]))
    less = [replaced(s, **{forgotten: None}) if i == index else s for i, s in enumerate(said)]
    full, partial = report(after(*said)), report(after(*less))
    assert failed(full) <= failed(partial)
    assert partial.confidence.score <= full.confidence.score
