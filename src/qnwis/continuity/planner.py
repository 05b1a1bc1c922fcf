"""The planner: topology, policy and evidence in; one plan or one refusal out.

Read `RULES` as the specification's list of what must hold before a failover starts. The first rule that
refuses ends the planning; every refusal names the values it compared. `targets` decides who takes over.

The planner does not ask whether the primary is ill: a plan for a healthy one is what a drill, a dry run and
planned work start from. That question is `healthy_primary_refusal`, for whoever starts a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from .evidence import ClusterEvidence, NodeEvidence, current_primary
from .http_plan import http_failover_actions
from .http_service import http_fencing_refusal, http_refusal_to_move
from .model import Model, sha256_digest
from .outage import estimated_outage_ms, waited_for
from .override import GiveUp, given_up_refusal, suspended_notes
from .patroni import fencing_refusal, refusal_to_move
from .patroni_plan import failover_actions
from .plan import (
    Action,
    FencePrimary,
    FlipDns,
    ForceMembership,
    Plan,
    PromoteTarget,
    RepointStandbys,
    VerifyService,
)
from .policy import Policy, Strategy
from .quorum import VOTING, QuorumView, assess
from .refusal import Refusal
from .targets import Basis, Candidate, Survey, basis_of, coverage_refusal, predicted_loss_bytes, rank, survey
from .topology import Cluster, Manager, Node, NodeStatus, majority, service_address

REASONS_IN_A_MESSAGE = 10
"""A message is for a person: of a thousand reasons it shows these, the values hold them all."""


class Planning(Model):
    """What planning came to: exactly one of `plan` and `refusal`, and all that led there."""

    plan: Plan | None = None
    refusal: Refusal | None = None
    basis: Basis
    primary_node_id: str | None = None
    quorum: QuorumView
    candidates: tuple[Candidate, ...] = ()
    """Every node besides the primary: the target first, then the eligible in order, then the others."""
    predicted_loss_bytes: int | None = None
    """Log that the plan is known to lose, bytes; None without a plan, or where positions are not known."""
    notes: tuple[str, ...] = ()
    """What could not be known, for people and for the record."""


@dataclass(frozen=True)
class Situation:
    """What the rules look at."""

    cluster: Cluster
    policy: Policy
    quorum: QuorumView
    primary_id: str
    survey: Survey
    candidates: tuple[Candidate, ...]
    give_up: GiveUp | None = None

    def status(self, node: Node) -> NodeStatus:
        return self.survey.seen[node.node_id].status


def make_plan(
    cluster: Cluster,
    policy: Policy,
    evidence: ClusterEvidence,
    *,
    trigger_reason: str,
    override: bool = False,
    give_up: GiveUp | None = None,
    leaving: str | None = None,
) -> Planning:
    """Plan a failover away from the current primary, or say which rule forbids it.

    `override`: go past the rules that a policy makes (`PASSABLE`), and note each. What keeps acknowledged
    writes and a single primary is no such rule. `give_up`, of an override: the nodes without which the
    cluster goes on; then writes that only those hold are lost (`PASSABLE_WHEN_GIVEN_UP`). `leaving`: a region
    in which no target may be.
    """
    lost = give_up.node_ids if give_up is not None else ()
    quorum, basis = assess(cluster.without(lost), evidence), basis_of(evidence)
    primary_id = _current_primary(cluster, evidence)
    if cluster.is_active_active:
        return Planning(refusal=regions_decide_alone(cluster), basis=basis, quorum=quorum)
    if primary_id is None:
        return Planning(refusal=primary_is_unknown(evidence), basis=basis, quorum=quorum)

    # A lag that an override passes is a predicted loss, which the plan's readers see.
    limits = policy.without_limits() if override else policy
    view = survey(cluster, limits, evidence, primary_id, leaving=leaving)
    situation = Situation(cluster, policy, quorum, primary_id, view, rank(view), give_up)
    refusals = [(rule, no) for rule in RULES if (no := rule(situation)) is not None]
    passable = PASSABLE | (PASSABLE_WHEN_GIVEN_UP if give_up is not None else frozenset())
    passed = [no for rule, no in refusals if override and rule in passable]
    refusal = next((no for _, no in refusals if no not in passed), None)
    plan = None if refusal is not None else _plan(situation, trigger_reason)
    if plan is not None and (slow := plan_is_fast_enough(plan, policy)) is not None:
        if override:
            passed.append(slow)
        else:
            refusal, plan = slow, None
    return Planning(
        plan=plan,
        refusal=refusal,
        basis=basis,
        primary_node_id=primary_id,
        quorum=quorum,
        candidates=situation.candidates,
        predicted_loss_bytes=None if plan is None else predicted_loss_bytes(view, plan.failover_target_id),
        notes=(
            *(_notes_of(give_up, cluster, evidence) if give_up is not None else ()),
            *(f"passed by the override: {no}" for no in passed),
            *_notes(view),
        ),
    )


# --- The rules, in the order in which they are asked --------------------------------------------------------


def primary_is_unknown(evidence: ClusterEvidence) -> Refusal:
    """Asked before all others, which compare the primary with the rest."""
    states = [e.state for e in evidence.nodes if e.state is not None]
    writable: list[JsonValue] = [state.node_id for state in states if state.writable]
    upstreams: dict[str, JsonValue] = {st.node_id: st.upstream for st in states if st.upstream is not None}
    return Refusal(
        rule="primary_unknown",
        message=(
            f"The current primary is not known: writable nodes are {writable}, "
            f"the standbys follow {upstreams}."
        ),
        values={"writable": writable, "upstreams": upstreams},
        remedy="Find out which node of the topology serves writes, and make every standby follow it.",
    )


def regions_decide_alone(cluster: Cluster) -> Refusal:
    """Of an active/active cluster as a whole nothing is promoted; asked before all others."""
    groups: list[JsonValue] = [cluster.lease_group(node.region).cluster_id for node in cluster.primaries]
    return Refusal(
        rule="regions_decide_alone",
        message=f"{cluster.cluster_id} is active/active: each region has its own primary, and nothing is"
        " promoted across regions",
        values={"lease_groups": groups},
        remedy=f"Within a region, name its lease group ({', '.join(map(str, groups))}). Where a region is"
        " lost, evacuate it: its weight goes to the others.",
    )


def the_lost_are_gone(s: Situation) -> Refusal | None:
    """An override gives up nodes that nobody hears of, the primary among them, and no others."""
    if s.give_up is None:
        return None
    return given_up_refusal(s.give_up, s.cluster, s.survey.seen, s.primary_id)


def quorum_is_there(s: Situation) -> Refusal | None:
    """Policy `require_quorum`: enough nodes of the cluster are operational."""
    if not s.policy.require_quorum or s.quorum.has_quorum:
        return None
    not_voting = [node for node in s.cluster.nodes if s.status(node) not in VOTING]
    return Refusal(
        rule="no_quorum",
        message=(
            f"Quorum is not achieved: {s.quorum.voting_nodes} of {s.quorum.total_nodes} nodes vote, "
            f"{s.quorum.quorum_size} are needed."
        ),
        values={
            "total_nodes": s.quorum.total_nodes,
            "voting_nodes": s.quorum.voting_nodes,
            "quorum_size": s.quorum.quorum_size,
            "not_voting": [node.node_id for node in not_voting],
        },
        remedy=_quorum_remedy(s, not_voting),
    )


def observers_hold_the_quorum(s: Situation) -> Refusal | None:
    """Strategy `quorum_based`: a quorum answers for itself now, whatever `require_quorum` says."""
    if s.policy.strategy is not Strategy.QUORUM_BASED:
        return None
    on_file = s.survey.basis is Basis.FILE
    observers = [
        node.node_id
        for node in s.cluster.nodes
        if s.status(node) in VOTING and (on_file or s.survey.seen[node.node_id].state is not None)
    ]
    if len(observers) >= s.quorum.quorum_size:
        return None
    return Refusal(
        rule="no_quorum_of_observers",
        message=(
            f"Strategy quorum_based needs {s.quorum.quorum_size} nodes that answer now, "
            f"{len(observers)} of {s.quorum.total_nodes} do."
        ),
        values={"observers": list(observers), "quorum_size": s.quorum.quorum_size},
        remedy="Bring nodes back until a quorum answers; require_quorum does not relax this strategy.",
    )


def enough_healthy_nodes_remain(s: Situation) -> Refusal | None:
    """Policy `min_healthy_nodes`, counted without the primary."""
    healthy = [node.node_id for node in s.survey.standbys if s.status(node) is NodeStatus.HEALTHY]
    if len(healthy) >= s.policy.min_healthy_nodes:
        return None
    return Refusal(
        rule="too_few_healthy_nodes",
        message=(
            f"Without the primary {s.primary_id}, {len(healthy)} healthy nodes remain; "
            f"policy {s.policy.policy_id} wants at least {s.policy.min_healthy_nodes}."
        ),
        values={"healthy": list(healthy), "min_healthy_nodes": s.policy.min_healthy_nodes},
        remedy="Bring nodes back, or lower min_healthy_nodes in the policy.",
    )


def acknowledged_writes_are_held(s: Situation) -> Refusal | None:
    """Synchronous replication: no write that a client was told is safe may be missing."""
    return coverage_refusal(s.survey)


def a_target_is_suitable(s: Situation) -> Refusal | None:
    if any(c.eligible for c in s.candidates):
        return None
    return Refusal(
        rule="no_suitable_target",
        message=f"No suitable failover target found: {_reasons(s.candidates)}.",
        values={c.node_id: c.reason for c in s.candidates},
        remedy="Check the status, the replication and the log position of the standbys.",
    )


def patroni_lets_it_move(s: Situation) -> Refusal | None:
    """Where Patroni manages the nodes: its own state, and whether an old region can be fenced."""
    target = next((c.node_id for c in s.candidates if c.eligible), None)
    if target is None:
        return None
    return refusal_to_move(s.cluster, s.survey.seen, s.primary_id, target) or fencing_refusal(
        s.cluster, s.primary_id, target, s.give_up
    )


def the_application_lets_it_move(s: Situation) -> Refusal | None:
    """Where an application brings its own promote and demote: whether no other node may write, and whether
    there can be evidence that the old one does not."""
    target = next((c.node_id for c in s.candidates if c.eligible), None)
    if target is None or s.survey.basis is Basis.FILE:
        return None
    return http_refusal_to_move(s.cluster, s.survey.seen, s.primary_id, target) or http_fencing_refusal(
        s.cluster, s.survey.seen, s.primary_id, s.give_up
    )


RULES: tuple[Callable[[Situation], Refusal | None], ...] = (
    the_lost_are_gone,
    quorum_is_there,
    observers_hold_the_quorum,
    enough_healthy_nodes_remain,
    acknowledged_writes_are_held,
    a_target_is_suitable,
    patroni_lets_it_move,
    the_application_lets_it_move,
)


PASSABLE = frozenset({enough_healthy_nodes_remain})
"""Limits that a policy sets for ordinary days; an emergency override may pass them."""
PASSABLE_WHEN_GIVEN_UP = frozenset({acknowledged_writes_are_held})
"""What is on no other node is lost with the nodes that are given up; the plan's readers see it."""


def plan_is_fast_enough(plan: Plan, policy: Policy) -> Refusal | None:
    """Policy `max_failover_time_s`; asked last, because it needs the plan."""
    limit_ms, outage_ms = policy.max_failover_time_s * 1000, estimated_outage_ms(plan)
    if outage_ms <= limit_ms:
        return None
    return Refusal(
        rule="too_slow",
        message=(
            f"From the end of the service on {plan.primary_node_id} until it is verified elsewhere, the plan"
            f" is estimated at {outage_ms} ms; policy {policy.policy_id} allows {limit_ms:g} ms."
        ),
        values={
            "estimated_outage_ms": outage_ms,
            "estimated_total_ms": plan.estimated_total_ms,
            "max_failover_time_s": policy.max_failover_time_s,
            "estimates_ms": {action.action_id: action.estimate_ms for action in waited_for(plan)},
        },
        remedy="Lower the record's TTL or the estimates if they are too high, or raise max_failover_time_s.",
    )


# --- The plan -----------------------------------------------------------------------------------------------


def _plan(s: Situation, trigger_reason: str) -> Plan:
    primary, target = s.cluster.node(s.primary_id), s.cluster.node(s.candidates[0].node_id)
    return Plan(
        cluster_id=s.cluster.cluster_id,
        policy_id=s.policy.policy_id,
        topology_digest=topology_digest(s.cluster),
        policy_digest=sha256_digest(s.policy),
        trigger_reason=trigger_reason,
        primary_node_id=primary.node_id,
        failover_target_id=target.node_id,
        actions=_actions(s.cluster, s.policy, primary, target, s.give_up),
    )


def _actions(
    cluster: Cluster, policy: Policy, primary: Node, target: Node, give_up: GiveUp | None
) -> tuple[Action, ...]:
    """Always these five, in this order; an override that gives nodes up forces where others fence. Patroni is
    asked for what it does, and an application for its own demote and promote."""
    attested_by = give_up.attested_by if give_up is not None else None
    if cluster.by_http:
        return tuple(http_failover_actions(cluster, policy, primary, target, attested_by=attested_by))
    if cluster.by_patroni:
        return tuple(failover_actions(cluster, policy, primary, target, attested_by=attested_by))
    estimates, dns = policy.estimates_ms, cluster.dns
    lost = give_up.node_ids if give_up is not None else ()
    return (
        FencePrimary(
            action_id=f"1-fence-{primary.node_id}",
            node_id=primary.node_id,
            estimate_ms=estimates.fence_primary,
        )
        if give_up is None
        else ForceMembership(
            action_id="1-force-membership",
            node_id=primary.node_id,
            lost=lost,
            members=tuple(node.node_id for node in cluster.without(lost).nodes),
            attested_by=give_up.attested_by,
            estimate_ms=estimates.fence_primary,
        ),
        PromoteTarget(
            action_id=f"2-promote-{target.node_id}",
            node_id=target.node_id,
            estimate_ms=estimates.promote_target,
        ),
        RepointStandbys(
            action_id="3-repoint-standbys",
            node_ids=tuple(n for n in standbys_left(cluster, primary, target) if n not in lost),
            upstream=target.node_id,
            estimate_ms=estimates.repoint_standbys,
        ),
        FlipDns(
            action_id="4-flip-dns",
            record=None if dns is None else dns.fqdn,
            from_address=service_address(primary),
            to_address=service_address(target),
            ttl_s=0 if dns is None else dns.ttl_s,
            # Clients keep the old address for one TTL; without a record there is nothing to wait for.
            estimate_ms=0 if dns is None else estimates.flip_dns + dns.ttl_s * 1000,
        ),
        VerifyService(
            action_id="5-verify-service", node_id=target.node_id, estimate_ms=estimates.verify_service
        ),
    )


def standbys_left(cluster: Cluster, primary: Node, target: Node) -> tuple[str, ...]:
    """All that could follow the target. Evidence does not shorten the list: a standby that is away now may
    be back when the run asks it, and one that is not must not hold the run up."""
    return tuple(
        node.node_id
        for node in cluster.nodes
        if node.holds_data and node.node_id not in (primary.node_id, target.node_id)
    )


def topology_digest(cluster: Cluster) -> str:
    """`sha256:<hex>` of the topology without its nodes' `status`, which is evidence, and without how often a
    watch speaks up, which is no matter of a plan. What only clusters without agents have is left out of
    others, whose digests stay what they were before there was such a thing."""
    besides = {"manager"} if cluster.manager is Manager.AGENTS else set()
    of_nodes = {"status"} | ({"patroni", "http"} - {cluster.manager.value})
    without: dict[str, Any] = {
        "nodes": {"__all__": of_nodes},
        "heartbeat": {"watch_timeout_sec"},
        **dict.fromkeys(besides, True),
    }
    return sha256_digest(cluster.model_dump(mode="json", exclude=without))


# --- Asked when a run starts --------------------------------------------------------------------------------


def healthy_primary_refusal(primary: NodeEvidence) -> Refusal | None:
    """Refuse to cut off a primary that answers and accepts writes, unless a person wants just that."""
    state = primary.state
    if state is None or not state.writable:
        return None
    return Refusal(
        rule="primary_is_healthy",
        message=(
            f"The primary {primary.node_id} answers and accepts writes "
            f"(timeline {state.timeline}, epoch {state.epoch})."
        ),
        values={"node_id": primary.node_id, "timeline": state.timeline, "epoch": state.epoch},
        remedy="To fence it and fail over all the same, ask with --even-if-healthy (even_if_healthy: true).",
    )


def plan_fits(plan: Plan, replanned: Planning) -> Refusal | None:
    """Whether planning again gives the same digest; else what differs.

    `replanned` is made with the plan's own `trigger_reason`, which is part of what the digest names.
    """
    if replanned.plan is None:
        return Refusal(
            rule="plan_no_longer_fits",
            message=f"Plan {plan.plan_id} no longer fits: planning again is refused. {replanned.refusal}",
            values={"refusal": replanned.refusal and replanned.refusal.model_dump(mode="json")},
            remedy="Remove the cause, or make a new plan.",
        )
    if replanned.plan.digest == plan.digest:
        return None
    submitted, now = plan.model_dump(mode="json"), replanned.plan.model_dump(mode="json")
    differing = [name for name in now if submitted[name] != now[name]]
    differences: dict[str, JsonValue] = {n: {"submitted": submitted[n], "now": now[n]} for n in differing}
    told = [f"{n} was {submitted[n]}, is now {now[n]}" for n in differing if n != "actions"]
    told += ["the actions differ"] if "actions" in differing else []
    return Refusal(
        rule="plan_no_longer_fits",
        message=f"Plan {plan.plan_id} no longer fits: {'; '.join(told)}.",
        values=differences,
        remedy=f"Look at the new plan {replanned.plan.plan_id}, and execute that.",
    )


# --- What the above need ------------------------------------------------------------------------------------


def _current_primary(cluster: Cluster, evidence: ClusterEvidence) -> str | None:
    """As the evidence has it, if the topology knows that node at all."""
    primary_id = current_primary(cluster, evidence)
    return primary_id if any(node.node_id == primary_id for node in cluster.nodes) else None


def _notes_of(give_up: GiveUp, cluster: Cluster, evidence: ClusterEvidence) -> Iterable[str]:
    if cluster.manager is not Manager.AGENTS:
        lost = ", ".join(give_up.node_ids)
        return (f"The plan rests on the word of {give_up.attested_by or 'nobody'} that {lost} are off.",)
    return suspended_notes(give_up, cluster, evidence)


def _notes(view: Survey) -> tuple[str, ...]:
    if view.basis is Basis.FILE:
        return ("Log positions and timelines are not known: the statuses come from a file.",)
    if view.cluster.by_http:
        return (
            "The application replicates by itself: what the target lacks is lost, how much is not known.",
        )
    if not view.synchronous:
        return (
            "Replication is asynchronous: what the primary sent to nobody is lost, how much is not known.",
        )
    if view.primary_writes:
        return ("The primary still writes: log positions must be compared again once it is fenced.",)
    return ()


def _reasons(candidates: tuple[Candidate, ...]) -> str:
    told = "; ".join(f"{c.node_id} {c.reason}" for c in candidates[:REASONS_IN_A_MESSAGE])
    left = len(candidates) - REASONS_IN_A_MESSAGE
    return f"{told}; and {left} more" if left > 0 else told or "the cluster has no other node"


def _quorum_remedy(s: Situation, not_voting: list[Node]) -> str:
    """What would bring the quorum back; for the loss of a whole region, a witness elsewhere would."""
    missing = s.quorum.quorum_size - s.quorum.voting_nodes
    bring_back = (
        f"Check the nodes and the network; {missing} more must answer. Where they are gone for good, an"
        " emergency override may give them up, each by name (--override --lost NODE)."
    )
    away = {node.node_id for node in not_voting}
    alive_regions = {node.region for node in s.cluster.nodes if node.node_id not in away}
    lost_regions = sorted({node.region for node in not_voting} - alive_regions)
    votes, nodes = s.quorum.voting_nodes + 1, s.quorum.total_nodes + 1
    if not lost_regions or votes < max(majority(nodes), s.cluster.quorum_size or 0):
        return bring_back
    return (
        f"{bring_back} To survive the loss of a whole region ({', '.join(lost_regions)}), "
        f"add a witness in a third region: {votes} of {nodes} nodes would hold the quorum."
    )
