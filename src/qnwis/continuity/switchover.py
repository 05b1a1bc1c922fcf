"""The planner of a switchover: the primary is well, and the service is moved away from it without a loss.

The same topology, policy and evidence as for a failover; other rules, and a longer plan: what can be done
ahead is done ahead, so that writes stand still only while the primary stops and the target is promoted.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from .evidence import ClusterEvidence, current_primary, root_of
from .http_plan import http_switchover_actions
from .http_service import http_refusal_to_move, keeps_position
from .model import sha256_digest
from .patroni import refusal_to_move
from .patroni_plan import switchover_actions
from .plan import (
    Action,
    FlipDns,
    LowerTtl,
    Plan,
    PrepareNodes,
    PromoteTarget,
    RejoinOldPrimary,
    ReleasePrimary,
    RepointStandbys,
    RestoreTtl,
    VerifyService,
)
from .planner import (
    Planning,
    plan_is_fast_enough,
    primary_is_unknown,
    regions_decide_alone,
    standbys_left,
    topology_digest,
)
from .policy import Policy
from .quorum import assess
from .refusal import Refusal
from .run import Maintenance
from .targets import Candidate, Survey, basis_of, rank, survey
from .topology import Cluster, Node, service_address


def make_switchover(
    cluster: Cluster,
    policy: Policy,
    evidence: ClusterEvidence,
    maintenance: Maintenance,
    *,
    trigger_reason: str,
) -> Planning:
    """Plan to move the service from the primary that serves it, or say which rule forbids it."""
    quorum, basis = assess(cluster, evidence), basis_of(evidence)
    if cluster.is_active_active:
        return Planning(refusal=regions_decide_alone(cluster), basis=basis, quorum=quorum)
    primary_id = current_primary(cluster, evidence)
    if primary_id not in {node.node_id for node in cluster.nodes} or primary_id is None:
        return Planning(refusal=primary_is_unknown(evidence), basis=basis, quorum=quorum)
    view = survey(cluster, policy, evidence, primary_id)
    candidates = rank(view)
    target = _target(candidates, maintenance)
    refusal = (
        _primary_serves(view)
        or _quorum_holds(policy, quorum.has_quorum, quorum.voting_nodes, quorum.quorum_size)
        or _target_is_suitable(target, candidates, maintenance)
        or _target_streams(view, target, evidence)
        or _standbys_answer(view)
        or (target and refusal_to_move(cluster, view.seen, primary_id, target.node_id))
        or (target and http_refusal_to_move(cluster, view.seen, primary_id, target.node_id))
    )
    plan = None
    if refusal is None and target is not None:
        plan = Plan(
            cluster_id=cluster.cluster_id,
            policy_id=policy.policy_id,
            topology_digest=topology_digest(cluster),
            policy_digest=sha256_digest(policy),
            trigger_reason=trigger_reason,
            primary_node_id=primary_id,
            failover_target_id=target.node_id,
            actions=tuple(_actions(cluster, policy, cluster.node(primary_id), cluster.node(target.node_id))),
        )
        if (refusal := plan_is_fast_enough(plan, policy)) is not None:
            plan = None
    return Planning(
        plan=plan,
        refusal=refusal,
        basis=basis,
        primary_node_id=primary_id,
        quorum=quorum,
        candidates=candidates,
        predicted_loss_bytes=0 if plan is not None and _loses_nothing(cluster, plan) else None,
    )


def _loses_nothing(cluster: Cluster, plan: Plan) -> bool:
    """The target has all before it is promoted, or the run goes back. Of an application that is known only
    where both nodes tell a position."""
    return not cluster.by_http or keeps_position(cluster, plan.primary_node_id, plan.failover_target_id)


def window_refusal(
    maintenance: Maintenance, plan: Plan, *, started_at: datetime, now: datetime, extended_s: float = 0.0
) -> Refusal | None:
    """Why what is dangerous does not begin now: it would not end within the window."""
    if maintenance.window_s is None:
        return None
    length = timedelta(seconds=maintenance.window_s + extended_s)
    ends_at = window_begins_at(maintenance, started_at) + length
    needed = timedelta(milliseconds=plan.estimated_total_ms)
    if now + needed <= ends_at:
        return None
    return Refusal(
        rule="window_too_short",
        message=f"The window ends at {ends_at.isoformat()}, in {(ends_at - now).total_seconds():.0f} s, and"
        f" the plan is estimated at {needed.total_seconds():.0f} s",
        values={"ends_at": ends_at.isoformat(), "estimated_total_ms": plan.estimated_total_ms},
        remedy="Start it earlier, give it a longer window, or extend the window while it waits.",
    )


def window_begins_at(maintenance: Maintenance, started_at: datetime) -> datetime:
    return maintenance.not_before or started_at


def _target(candidates: tuple[Candidate, ...], maintenance: Maintenance) -> Candidate | None:
    if maintenance.target_node_id is None:
        return next((c for c in candidates if c.eligible), None)
    return next((c for c in candidates if c.node_id == maintenance.target_node_id), None)


def _primary_serves(view: Survey) -> Refusal | None:
    state = view.primary.state
    if state is not None and state.writable:
        return None
    return Refusal(
        rule="primary_not_serving",
        message=f"The primary {view.primary.node_id} does not accept writes: nothing is to be handed over.",
        values={"node_id": view.primary.node_id, "answers": state is not None},
        remedy="Bring it back, or fail over: `qnwis-continuity execute`.",
    )


def _quorum_holds(policy: Policy, has_quorum: bool, voting: int, size: int) -> Refusal | None:
    """Without the policy's word, too: the target needs a majority's grant, or nobody serves."""
    if has_quorum:
        return None
    return Refusal(
        rule="no_quorum",
        message=f"Quorum is not achieved: {voting} nodes vote, {size} are needed.",
        values={"voting_nodes": voting, "quorum_size": size},
        remedy="Bring nodes back before the primary is moved on purpose.",
    )


def _target_is_suitable(
    target: Candidate | None, candidates: tuple[Candidate, ...], maintenance: Maintenance
) -> Refusal | None:
    if target is not None and target.eligible:
        return None
    wanted = maintenance.target_node_id
    why = "; ".join(f"{c.node_id} {c.reason}" for c in candidates if wanted in (None, c.node_id))
    return Refusal(
        rule="no_suitable_target",
        message=f"No suitable failover target found: {why or f'{wanted} is no node besides the primary'}.",
        values={c.node_id: c.reason for c in candidates},
        remedy="Check the status, the replication and the log position of the standbys.",
    )


def _target_streams(view: Survey, target: Candidate | None, evidence: ClusterEvidence) -> Refusal | None:
    """What the primary writes last reaches the target by its own stream. An application tells of none."""
    assert target is not None, "the rule before has refused"
    if view.cluster.by_http:
        return None
    state = view.seen[target.node_id].state
    if (
        state is not None
        and state.streaming
        and root_of(view.cluster, evidence, state) == view.primary.node_id
    ):
        return None
    return Refusal(
        rule="target_does_not_stream",
        message=f"{target.node_id} does not stream from {view.primary.node_id}",
        values={"target": target.node_id, "upstream": None if state is None else state.upstream},
        remedy="Let it follow the primary, or choose another target.",
    )


def _standbys_answer(view: Survey) -> Refusal | None:
    """A primary that stops waits for each standby that is connected, for seconds if one hangs."""
    state = view.primary.state
    connected = {standby.application_name for standby in state.standbys} if state is not None else set()
    hanging = [
        node.node_id
        for node in view.standbys
        if node.node_id in connected
        and ((seen := view.seen[node.node_id].state) is None or not seen.database_up)
    ]
    if not hanging:
        return None
    return Refusal(
        rule="standby_hangs",
        message=f"{', '.join(hanging)} is connected to {view.primary.node_id} and does not answer: the"
        " primary would wait for it before it stops",
        values={"standbys": [*hanging]},
        remedy="Bring it back, or stop it, before the primary is moved on purpose.",
    )


def steady_state_refusal(
    plan: Plan, cluster: Cluster, policy: Policy, evidence: ClusterEvidence
) -> Refusal | None:
    """What has changed since the plan was made and would make it dangerous to begin; asked before the
    primary is touched."""
    same_target = Maintenance(target_node_id=plan.failover_target_id)
    again = make_switchover(cluster, policy, evidence, same_target, trigger_reason=plan.trigger_reason)
    if again.refusal is not None or again.primary_node_id == plan.primary_node_id:
        return again.refusal
    return Refusal(
        rule="primary_moved",
        message=f"The plan is to move {plan.primary_node_id}'s service, and {again.primary_node_id} serves.",
        values={"planned": plan.primary_node_id, "serves": again.primary_node_id},
        remedy="Plan again.",
    )


def _actions(cluster: Cluster, policy: Policy, primary: Node, target: Node) -> Iterator[Action]:
    """In this order; without a DNS service there is no TTL to change."""
    if cluster.by_patroni:
        yield from switchover_actions(cluster, policy, primary, target)
        return
    if cluster.by_http:
        yield from http_switchover_actions(cluster, policy, primary, target)
        return
    estimates, limits, dns = policy.estimates_ms, policy.switchover, cluster.dns
    low_s = 0 if dns is None else min(limits.ttl_s, dns.ttl_s)
    lowered = dns is not None and low_s < dns.ttl_s
    if dns is not None and lowered:
        yield LowerTtl(
            action_id="1-lower-ttl",
            record=dns.fqdn,
            from_ttl_s=dns.ttl_s,
            to_ttl_s=low_s,
            # One old TTL later no client holds the address for longer than the new one.
            estimate_ms=estimates.flip_dns + dns.ttl_s * 1000,
        )
    yield PrepareNodes(
        action_id="2-prepare",
        node_ids=(primary.node_id, target.node_id),
        estimate_ms=estimates.prepare_nodes,
    )
    yield ReleasePrimary(
        action_id=f"3-release-{primary.node_id}",
        node_id=primary.node_id,
        target=target.node_id,
        drain_s=limits.drain_s,
        estimate_ms=estimates.release_primary,
    )
    yield PromoteTarget(
        action_id=f"4-promote-{target.node_id}",
        node_id=target.node_id,
        estimate_ms=estimates.promote_target,
    )
    yield FlipDns(
        action_id="5-flip-dns",
        record=None if dns is None else dns.fqdn,
        from_address=service_address(primary),
        to_address=service_address(target),
        ttl_s=low_s,
        estimate_ms=0 if dns is None else estimates.flip_dns + low_s * 1000,
    )
    # They follow the target while it is promoted; clients need not wait until that is seen.
    yield RepointStandbys(
        action_id="6-repoint-standbys",
        node_ids=standbys_left(cluster, primary, target),
        upstream=target.node_id,
        estimate_ms=estimates.repoint_standbys,
    )
    yield RejoinOldPrimary(
        action_id=f"7-rejoin-{primary.node_id}",
        node_id=primary.node_id,
        upstream=target.node_id,
        estimate_ms=estimates.rejoin_old_primary,
    )
    if dns is not None and lowered:
        yield RestoreTtl(
            action_id="8-restore-ttl",
            record=dns.fqdn,
            to_ttl_s=dns.ttl_s,
            estimate_ms=estimates.flip_dns,
        )
    yield VerifyService(
        action_id="9-verify-service", node_id=target.node_id, estimate_ms=estimates.verify_service
    )
