"""Applications that bring their own promote and demote: what may begin, and what counts as evidence."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from qnwis.continuity.assessment import assess
from qnwis.continuity.evidence import ClusterEvidence, current_primary
from qnwis.continuity.http_service import not_demoted, others_write
from qnwis.continuity.leaving import leave
from qnwis.continuity.managers import agents_only_refusal
from qnwis.continuity.model import sha256_digest
from qnwis.continuity.orders import FencingEvidenceType
from qnwis.continuity.override import GiveUp
from qnwis.continuity.planner import Planning, make_plan, topology_digest
from qnwis.continuity.promotion import http_promotion_refusal
from qnwis.continuity.readiness import evaluate
from qnwis.continuity.readiness_facts import (
    DnsRecord,
    DnsTrial,
    Facts,
    Grade,
    Guarded,
    Past,
    RecordAnswer,
    UpdateAnswer,
    Verified,
)
from qnwis.continuity.run import Assessment, Detection, FailoverRequest, Maintenance
from qnwis.continuity.simulate import rehearse
from qnwis.continuity.switchover import make_switchover
from qnwis.continuity.topology import Cluster
from qnwis.continuity.verifier import verify
from tests.unit.continuity.application_scenes import HOOK, by_http, says
from tests.unit.continuity.scenes import NOON, evidence, fenced, policy, with_dns

CLUSTER, FENCED = by_http(), by_http(fencing=HOOK)
POLICY = policy(min_healthy_nodes=1)
SERVER = "127.0.0.1:53"
WELL = evidence(CLUSTER, says("t1", writable=True), says("t2", writable=False))
DEAD = evidence(CLUSTER, says("t2", writable=False))


def failover(cluster: Cluster, seen: ClusterEvidence, **fields: Any) -> Planning:
    return make_plan(cluster, POLICY, seen, trigger_reason="r", **fields)


def switchover(cluster: Cluster = CLUSTER, seen: ClusterEvidence = WELL) -> Planning:
    return make_switchover(cluster, POLICY, seen, Maintenance(), trigger_reason="r")


def rule(made: Planning | Assessment) -> str | None:
    return None if made.refusal is None else made.refusal.rule


def kinds(made: Planning) -> list[str]:
    assert made.plan is not None, made.refusal
    return [action.kind for action in made.plan.actions]


def asked(**fields: Any) -> FailoverRequest:
    return FailoverRequest(cluster_id="prod", initiated_by="ann", reason="r", **fields)


# Plans


def test_a_planned_move_demotes_before_it_promotes_and_says_what_it_knows_of_the_loss() -> None:
    made = switchover()
    assert kinds(made) == ["http_demote", "http_promote", "flip_dns", "verify_service"]
    assert made.predicted_loss_bytes == 0
    assert switchover(by_http(position=False)).predicted_loss_bytes is None


def test_a_dead_node_without_a_hook_is_refused_and_with_one_switched_off() -> None:
    refused = failover(CLUSTER, DEAD)
    assert rule(refused) == "http_node_cannot_be_fenced"
    assert refused.refusal is not None and "fencing.url" in refused.refusal.remedy
    assert kinds(failover(FENCED, DEAD)) == ["http_fence", "http_promote", "flip_dns", "verify_service"]


def test_a_person_may_state_that_the_dead_node_is_off_and_nobody_else_is_given_up() -> None:
    made = failover(CLUSTER, DEAD, override=True, give_up=GiveUp(node_ids=("t1",), attested_by="ann"))
    assert kinds(made)[0] == "http_fence" and made.plan is not None
    assert made.plan.actions[0].model_dump()["attested_by"] == "ann"
    on_nobodys_word = GiveUp(node_ids=("t1",))
    assert rule(failover(CLUSTER, DEAD, override=True, give_up=on_nobodys_word)) == "http_node_not_attested"


def test_a_node_that_answers_and_does_not_write_is_demoted_before_another_is_promoted() -> None:
    quiet = evidence(CLUSTER, says("t1", writable=False), says("t2", writable=False))
    assert kinds(failover(CLUSTER, quiet))[0] == "http_demote"
    assert kinds(failover(FENCED, quiet))[0] == "http_fence"


def test_whoever_is_silent_may_be_the_one_that_writes_whatever_the_topology_says() -> None:
    """The service had moved to t2 before that died; t1 is the primary of the topology alone."""
    only_t1 = evidence(FENCED, says("t1", writable=False))
    assert current_primary(FENCED, only_t1) == "t2"
    made = failover(FENCED, only_t1)
    assert made.plan is not None and made.plan.failover_target_id == "t1"
    assert made.plan.actions[0].model_dump()["node_id"] == "t2"


def test_two_silent_nodes_of_three_stop_everything_and_so_does_a_second_writer() -> None:
    three = by_http("t1", "t2", "t3", fencing=HOOK)
    assert rule(failover(three, evidence(three, says("t3", writable=False)))) == "primary_unknown"
    both = evidence(CLUSTER, says("t1", writable=True), says("t2", writable=True))
    assert rule(switchover(seen=both)) == "primary_unknown"
    third_silent = evidence(three, says("t1", writable=True), says("t2", writable=False))
    assert rule(switchover(three, third_silent)) == "http_node_may_write"


# Evidence


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ((says("t1", writable=True), says("t2", writable=False)), "t1 still accepts writes"),
        ((says("t2", writable=False),), "t1 does not answer"),
        ((says("t1", writable=False), says("t2", writable=False, position=6)), "t2 is at position 6"),
        ((says("t1", writable=False),), "positions of t1 and t2 are not known"),
    ],
)
def test_what_does_not_count_as_demoted(states: Any, told: str) -> None:
    refusal = not_demoted(CLUSTER, evidence(CLUSTER, *states), old="t1", target="t2")
    assert refusal is not None and refusal.rule == "http_node_not_demoted" and told in refusal.message


def test_what_counts_as_demoted() -> None:
    quiet = evidence(CLUSTER, says("t1", writable=False), says("t2", writable=False))
    assert not_demoted(CLUSTER, quiet, old="t1", target="t2") is None
    without = by_http(position=False)
    behind = evidence(without, says("t1", writable=False), says("t2", writable=False, position=1))
    assert not_demoted(without, behind, old="t1", target="t2") is None


def test_nobody_is_promoted_beside_a_writer_or_beside_a_silent_node_that_was_not_fenced() -> None:
    assert others_write(CLUSTER, DEAD, target="t2", left="t1") is None
    beside = others_write(CLUSTER, WELL, target="t2", left="t1")
    assert beside is not None and beside.values == {"writable": ["t1"], "silent": []}
    three = by_http("t1", "t2", "t3")
    silent = others_write(three, evidence(three, says("t2", writable=False)), target="t2", left="t1")
    assert silent is not None and silent.values == {"writable": [], "silent": ["t3"]}


def test_the_promotion_asks_that_again_and_whether_the_target_still_answers() -> None:
    plan = switchover().plan
    assert plan is not None
    writes = http_promotion_refusal(plan, CLUSTER, POLICY, WELL)
    assert writes is not None and writes.rule == "http_node_may_write"
    quiet = evidence(CLUSTER, says("t1", writable=False), says("t2", writable=False))
    assert http_promotion_refusal(plan, CLUSTER, POLICY, quiet) is None
    gone = http_promotion_refusal(plan, CLUSTER, POLICY, evidence(CLUSTER, says("t1", writable=False)))
    assert gone is not None and gone.rule == "target_no_longer_suitable"


# On paper, and verified


@pytest.mark.parametrize("seen", [WELL, DEAD])
def test_a_plan_is_rehearsed_on_paper(seen: ClusterEvidence) -> None:
    made = switchover() if seen is WELL else failover(FENCED, seen)
    assert made.plan is not None
    played = rehearse(made.plan, FENCED if seen is DEAD else CLUSTER, POLICY, seen)
    assert played.refusal is None, played


def test_the_verifier_wants_the_target_alone_to_write_and_the_others_to_be_seen() -> None:
    plan = switchover().plan
    assert plan is not None

    def failures(*states: Any, proof: FencingEvidenceType = FencingEvidenceType.RELEASED) -> list[str]:
        after = evidence(CLUSTER, *states, at=NOON + timedelta(seconds=5))
        word = fenced("t1", kind=proof)
        return [
            check.name
            for check in verify(
                plan, CLUSTER, POLICY, WELL, after, fencing=word, dns=None, elapsed_ms=10, epoch=1
            ).failures
        ]

    moved = (says("t1", writable=False), says("t2", writable=True))
    assert failures(*moved) == []
    assert "old_primary_fenced" in failures(*moved, proof=FencingEvidenceType.NONE)
    assert "one_writable_node" in failures(says("t1", writable=True), says("t2", writable=True))
    assert "stands_by:t1" in failures(says("t2", writable=True))


# By itself, and what is not for such clusters


def test_nothing_fails_over_by_itself_without_a_hook() -> None:
    detected = Detection(node_id="t1", vantages=("default",), misses=3, detected_at=NOON)
    request = asked(automatic=True, detection=detected)
    assert rule(assess(request, CLUSTER, POLICY, DEAD)) == "http_needs_fencing_hook"
    assert assess(request, FENCED, POLICY, DEAD).plan is not None


def test_what_is_not_for_applications_is_refused_by_name() -> None:
    there_and_back = Maintenance(back_after_s=0, drill=True)
    assert rule(assess(asked(maintenance=there_and_back), CLUSTER, POLICY, WELL)) == "managed_by_http"
    assert rule(assess(asked(override=True), FENCED, POLICY, DEAD)) == "managed_by_http"
    left = leave(CLUSTER, POLICY, WELL, "east", reason="flood")
    assert left is not None and left.refusal is not None and left.refusal.rule == "managed_by_http"
    for what in ("rejoin", "member", "break-glass", "simulate"):
        refusal = agents_only_refusal(CLUSTER, what)
        assert refusal is not None and what in refusal.message


def test_it_is_ready_though_nobody_asks_it_for_what_databases_are_asked_for() -> None:
    topology = with_dns(by_http(fencing=HOOK))
    facts = Facts(
        cluster=topology,
        policy=POLICY,
        evidence=evidence(topology, says("t1", writable=True), says("t2", writable=False)),
        dns=DnsTrial(answers=(UpdateAnswer(server=SERVER, accepted=True),), tried_at=NOON),
        record=DnsRecord(
            answers=(RecordAnswer(server=SERVER, addresses=("host-t1",), ttl_s=1),), asked_at=NOON
        ),
        past=Past(
            verified=Verified(
                run_id="run-7",
                at=NOON,
                topology_digest=topology_digest(topology),
                policy_digest=sha256_digest(POLICY),
            )
        ),
        guarded=Guarded(heard=topology.vantages),
        now=NOON,
    )
    found = evaluate(facts)
    assert found.grade is Grade.READY, [c for c in found.checks if c.counts and c.grade is not Grade.READY]
    asked_of_databases = {"replication lag", "archive", "logical slots", "idle slots"}
    assert asked_of_databases <= {c.name for c in found.checks if not c.counts}
    demanding = facts.model_copy(update={"policy": policy(min_healthy_nodes=1, max_backup_age_s=60)})
    assert evaluate(demanding).grade is Grade.NOT_EVALUATED, "the policy demands what nobody can say"
    silent = facts.model_copy(update={"evidence": evidence(topology)})
    assert evaluate(silent).grade is Grade.NOT_READY
