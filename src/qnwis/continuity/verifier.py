"""The verifier: whether a failover succeeded, from reading the world again after it.

Success is what stands in this report, not that no activity failed. Missing data means not ok. That the old
primary does not answer is expected; the fencing evidence speaks for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from .confidence import Confidence, Signs, rate
from .evidence import ClusterEvidence, NodeEvidence, NodeState, root_of
from .http_actions import HttpFence
from .model import Model, sha256_digest
from .orders import FencingEvidence, FencingEvidenceType
from .outage import waited_for
from .patroni_actions import PatroniFailover, PatroniFenceCluster
from .plan import FlipDns, Plan, RejoinOldPrimary, RepointStandbys
from .policy import Policy
from .quorum import VOTING, QuorumView, assess, demands_quorum
from .topology import Cluster


class Aspect(StrEnum):
    CONSISTENCY = "consistency"
    POLICY = "policy"
    QUORUM = "quorum"
    FRESHNESS = "freshness"
    DNS = "dns"


class Check(Model):
    """One question to the world and its answer."""

    aspect: Aspect
    name: str
    ok: bool
    detail: str
    """What was found, and, where it is not ok, what was expected."""


class VerificationReport(Model):
    report_id: str
    """Derived from the rest of the report: the same findings have the same id."""
    passed: bool
    consistency_ok: bool
    """Exactly one writable node, the target; the standbys follow it; the old primary is fenced."""
    policy_ok: bool
    quorum_ok: bool
    freshness_ok: bool
    """The evidence is newer than the run and complete, and the standbys have replayed it."""
    dns_ok: bool | None
    """None where the topology has no DNS service."""
    checks: tuple[Check, ...]
    confidence: Confidence

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.ok)


@dataclass(frozen=True)
class World:
    """What the checks look at."""

    plan: Plan
    cluster: Cluster
    policy: Policy
    before: ClusterEvidence
    after: ClusterEvidence
    was: Mapping[str, NodeEvidence]
    quorum: QuorumView
    fencing: FencingEvidence | None
    dns: Mapping[str, tuple[str, ...]] | None
    elapsed_ms: float
    epoch: int

    def state(self, node_id: str) -> NodeState | None:
        """What the node itself says now; None when it did not answer, or another node answered for it."""
        return self._states.get(node_id)

    @cached_property
    def _states(self) -> Mapping[str, NodeState]:
        states = {seen.node_id: seen.state for seen in self.after.nodes}
        return {n: state for n, state in states.items() if state is not None and state.node_id == n}

    @cached_property
    def target(self) -> NodeState | None:
        return self.state(self.plan.failover_target_id)

    @cached_property
    def standbys(self) -> tuple[str, ...]:
        """The standbys that must follow the target now.

        One that was away before the run and still does not answer is left out: the run did not lose it, and
        quorum and `min_healthy_nodes` judge whether the cluster can do without it.
        """
        if self.cluster.by_http:
            return tuple(n for n in _others(self.plan, self.cluster) if not self._is_silent_as_before(n))
        if self.cluster.by_patroni:
            return tuple(n for n in _followers(self.plan, self.cluster) if not self._is_silent_as_before(n))
        planned = [n for a in self.plan.actions if isinstance(a, RepointStandbys) for n in a.node_ids]
        planned += [a.node_id for a in self.plan.actions if isinstance(a, RejoinOldPrimary)]
        return tuple(n for n in planned if not self._is_silent_as_before(n))

    @cached_property
    def replay_lags_bytes(self) -> Mapping[str, int | None]:
        """Of each of `standbys`; None where not known."""
        end = None if self.target is None else self.target.write_lsn

        def lag(state: NodeState | None) -> int | None:
            if state is None or state.replay_lsn is None or end is None:
                return None
            # The two were read one after the other, so a standby can seem to be ahead.
            return max(0, end - state.replay_lsn)

        return {node_id: lag(self.state(node_id)) for node_id in self.standbys}

    def _is_silent_as_before(self, n: str) -> bool:
        return self._was_away(n) and self.state(n) is None

    def root(self, state: NodeState) -> str | None:
        """Whom a standby follows in the end."""
        return root_of(self.cluster, self.after, state)

    def _was_away(self, node_id: str) -> bool:
        seen = self.was.get(node_id)
        return seen is not None and seen.state is None and seen.status not in VOTING


def _followers(plan: Plan, cluster: Cluster) -> tuple[str, ...]:
    """Of a cluster by Patroni: all others follow the target, but for what a plan left behind fenced or
    dead."""
    gone = {n for a in plan.actions if isinstance(a, PatroniFenceCluster) for n in a.node_ids}
    gone |= {a.leader for a in plan.actions if isinstance(a, PatroniFailover)}
    gone.add(plan.failover_target_id)
    return tuple(node.node_id for node in cluster.nodes if node.node_id not in gone)


def _others(plan: Plan, cluster: Cluster) -> tuple[str, ...]:
    """Of an application: all but the target and what was fenced."""
    gone = {a.node_id for a in plan.actions if isinstance(a, HttpFence)} | {plan.failover_target_id}
    return tuple(node.node_id for node in cluster.nodes if node.node_id not in gone)


def verify(
    plan: Plan,
    cluster: Cluster,
    policy: Policy,
    before: ClusterEvidence,
    after: ClusterEvidence,
    *,
    fencing: FencingEvidence | None,
    dns: Mapping[str, tuple[str, ...]] | None,
    elapsed_ms: float,
    epoch: int,
) -> VerificationReport:
    """Compare the world after a run with the plan, the policy and the world before it.

    `dns` is what each authoritative server answers; None means that nobody asked, which is fine only where
    the topology has no DNS service. `elapsed_ms` is what the run took of what `outage.waited_for` counts,
    without its verification; `epoch` is the run's.
    """
    world = World(
        plan=plan,
        cluster=cluster,
        policy=policy,
        before=before,
        after=after,
        was={e.node_id: e for e in before.nodes},
        quorum=assess(cluster.without(plan.lost), after),
        fencing=fencing,
        dns=dns,
        elapsed_ms=elapsed_ms,
        epoch=epoch,
    )
    checks = tuple(check for questions in QUESTIONS for check in questions(world))
    failed = {check.aspect for check in checks if not check.ok}
    report = VerificationReport(
        report_id="",
        passed=not failed,
        consistency_ok=Aspect.CONSISTENCY not in failed,
        policy_ok=Aspect.POLICY not in failed,
        quorum_ok=Aspect.QUORUM not in failed,
        freshness_ok=Aspect.FRESHNESS not in failed,
        dns_ok=None if cluster.dns is None else Aspect.DNS not in failed,
        checks=checks,
        confidence=rate(_signs(world, checks)),
    )
    report_id = "verify-" + sha256_digest(report).removeprefix("sha256:")[:12]
    return report.model_copy(update={"report_id": report_id})


# --- Consistency --------------------------------------------------------------------------------------------


def consistency(w: World) -> Iterator[Check]:
    yield _one_writable_node(w)
    if w.cluster.by_http:  # it has no epoch, no timeline, and does not say whom it follows
        yield _old_primary_fenced(w)
        for node_id in w.standbys:
            yield _stands_by(w, node_id)
        return
    yield _epoch_obeyed(w)
    yield _timeline_advanced(w)
    yield _old_primary_fenced(w)
    for node_id in w.standbys:
        yield _standby_follows(w, node_id)


def _one_writable_node(w: World) -> Check:
    writable = [e.node_id for e in w.after.nodes if e.state is not None and e.state.writable]
    target_id = w.plan.failover_target_id
    return Check(
        aspect=Aspect.CONSISTENCY,
        name="one_writable_node",
        ok=writable == [target_id] and w.target is not None,
        detail=f"writable are {writable}, expected exactly the target {target_id}",
    )


def _epoch_obeyed(w: World) -> Check:
    found = None if w.target is None else w.target.epoch
    return Check(
        aspect=Aspect.CONSISTENCY,
        name="epoch_obeyed",
        ok=found is not None and found >= w.epoch,
        detail=f"{w.plan.failover_target_id} has epoch {_known(found)}, expected at least {w.epoch}",
    )


def _timeline_advanced(w: World) -> Check:
    timelines = [
        e.state.timeline for e in w.before.nodes if e.state is not None and e.state.timeline is not None
    ]
    was, now = max(timelines, default=None), None if w.target is None else w.target.timeline
    return Check(
        aspect=Aspect.CONSISTENCY,
        name="timeline_advanced",
        ok=was is not None and now is not None and now > was,
        detail=f"{w.plan.failover_target_id} is on timeline {_known(now)}, expected above {_known(was)}",
    )


def _old_primary_fenced(w: World) -> Check:
    old, evidence = w.plan.primary_node_id, w.fencing
    if evidence is None:
        ok, detail = False, f"there is no fencing evidence for {old}"
    elif evidence.type is FencingEvidenceType.NONE or evidence.holder != old or evidence.epoch != w.epoch:
        ok = False
        detail = (
            f"the evidence is of type {evidence.type} for {evidence.holder} in epoch {evidence.epoch}, "
            f"expected one for {old} in epoch {w.epoch}"
        )
    else:
        ok, detail = True, f"{old}: {evidence.type}, says {evidence.source}"
    return Check(aspect=Aspect.CONSISTENCY, name="old_primary_fenced", ok=ok, detail=detail)


def _stands_by(w: World, node_id: str) -> Check:
    state = w.state(node_id)
    said = "does not answer" if state is None else "accepts writes" if state.writable else "does not write"
    return Check(
        aspect=Aspect.CONSISTENCY,
        name=f"stands_by:{node_id}",
        ok=state is not None and not state.writable,
        detail=f"{node_id} {said}",
    )


def _standby_follows(w: World, node_id: str) -> Check:
    state, target, target_id = w.state(node_id), w.target, w.plan.failover_target_id
    if state is None:
        detail = f"{node_id} does not answer"
    elif w.root(state) != target_id:
        detail = f"{node_id} follows {_known(w.root(state))}, expected {target_id}"
    elif not state.streaming:
        detail = f"{node_id} is pointed at {target_id} and does not stream from it yet"
    elif target is None or target.system_identifier is None:
        detail = f"the system identifier of {target_id} is not known"
    elif state.system_identifier != target.system_identifier:
        detail = (
            f"{node_id} has system identifier {_known(state.system_identifier)}, "
            f"expected {target.system_identifier}"
        )
    else:
        return Check(
            aspect=Aspect.CONSISTENCY,
            name=f"standby_follows:{node_id}",
            ok=True,
            detail=f"{node_id} streams from {target_id}",
        )
    return Check(aspect=Aspect.CONSISTENCY, name=f"standby_follows:{node_id}", ok=False, detail=detail)


# --- Policy and quorum --------------------------------------------------------------------------------------


def policy_limits(w: World) -> Iterator[Check]:
    limit_ms = w.policy.max_failover_time_s * 1000
    took = "the run took" if waited_for(w.plan) == w.plan.actions else "the service waited"
    yield Check(
        aspect=Aspect.POLICY,
        name="within_time",
        ok=w.elapsed_ms <= limit_ms,
        detail=f"{took} {w.elapsed_ms:.0f} ms, allowed are {limit_ms:.0f} ms",
    )
    healthy = w.quorum.healthy_nodes
    yield Check(
        aspect=Aspect.POLICY,
        name="enough_healthy_nodes",
        ok=healthy >= w.policy.min_healthy_nodes,
        detail=f"{healthy} nodes are healthy, at least {w.policy.min_healthy_nodes} must be",
    )


def quorum_held(w: World) -> Iterator[Check]:
    demanded = demands_quorum(w.policy)
    yield Check(
        aspect=Aspect.QUORUM,
        name="quorum_held",
        ok=w.quorum.has_quorum or not demanded,
        detail=(
            f"{w.quorum.voting_nodes} of {w.quorum.total_nodes} nodes vote, "
            f"the quorum is {w.quorum.quorum_size}" + ("" if demanded else "; the policy does not require it")
        ),
    )


# --- Freshness ----------------------------------------------------------------------------------------------


def freshness(w: World) -> Iterator[Check]:
    yield _evidence_newer(w)
    yield _evidence_complete(w)
    for node_id in () if w.cluster.by_http else w.standbys:
        yield _standby_replayed(w, node_id)


def _evidence_newer(w: World) -> Check:
    before, after = w.before.taken_at, w.after.taken_at
    stale = [
        e.node_id
        for e in w.after.nodes
        if e.state is not None and (before is None or e.observed_at is None or e.observed_at <= before)
    ]
    return Check(
        aspect=Aspect.FRESHNESS,
        name="evidence_newer",
        ok=before is not None and after is not None and after > before and not stale,
        detail=(
            f"taken {_known(after)}, expected after {_known(before)}"
            + (f"; the readings of {stale} are older" if stale else "")
        ),
    )


def _evidence_complete(w: World) -> Check:
    needed = (w.plan.failover_target_id, *w.standbys)
    silent = [node_id for node_id in needed if w.state(node_id) is None]
    return Check(
        aspect=Aspect.FRESHNESS,
        name="evidence_complete",
        ok=not silent,
        detail=f"no answer from {silent}" if silent else f"target and {len(w.standbys)} standbys answered",
    )


def _standby_replayed(w: World, node_id: str) -> Check:
    lag, most = w.replay_lags_bytes[node_id], w.policy.max_lag_bytes
    return Check(
        aspect=Aspect.FRESHNESS,
        name=f"standby_replayed:{node_id}",
        ok=lag is not None and lag <= most,
        detail=(
            f"the replay lag of {node_id} is not known"
            if lag is None
            else f"{node_id} is {lag} bytes behind, allowed are {most}"
        ),
    )


# --- DNS ----------------------------------------------------------------------------------------------------


def dns_moved(w: World) -> Iterator[Check]:
    if w.cluster.dns is None:
        return
    expected = tuple(a.to_address for a in w.plan.actions if isinstance(a, FlipDns))
    for server in w.cluster.dns.places:
        answer = None if w.dns is None else w.dns.get(server)
        yield Check(
            aspect=Aspect.DNS,
            name=f"dns_moved:{server}",
            ok=answer is not None and tuple(answer) == expected,
            detail=f"{server} answers {_known(answer and list(answer))}, expected {list(expected)}",
        )


QUESTIONS = (consistency, policy_limits, quorum_held, freshness, dns_moved)


def _signs(w: World, checks: tuple[Check, ...]) -> Signs:
    lags = w.replay_lags_bytes.values()
    known = [lag for lag in lags if lag is not None]
    worst = max(known) if known and len(known) == len(lags) else None
    return Signs(
        checks_passed=sum(check.ok for check in checks),
        checks_total=len(checks),
        consistent=all(check.ok for check in checks if check.aspect is Aspect.CONSISTENCY),
        fencing=None if w.fencing is None else w.fencing.type,
        lag_share=None if worst is None else worst / max(1, w.policy.max_lag_bytes),
        quorum_margin=w.quorum.margin,
        evidence_age_s=_evidence_age_s(w.after),
    )


def _evidence_age_s(evidence: ClusterEvidence) -> float | None:
    """From the oldest reading to the newest, seconds: how far apart the parts of the picture are."""
    times = [e.observed_at for e in evidence.nodes if e.observed_at is not None]
    if not times or evidence.taken_at is None:
        return None
    return (max(*times, evidence.taken_at) - min(times)).total_seconds()


def _known(value: object) -> object:
    return "not known" if value is None else value
