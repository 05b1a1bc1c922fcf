"""Readiness: whether a failover would work now, a check a line, each with its reason, its values and its age.

Read `CHECKS` as the list. Missing data never gives Ready. The overall is the worst of the checks that count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from pydantic import JsonValue

from .addresses import is_loopback
from .evidence import ClusterEvidence
from .losses import Loss, advice, losses
from .model import sha256_digest
from .planner import Planning, make_plan, topology_digest
from .quorum import VOTING
from .readiness_facts import CALLERS, Check, Facts, Grade, Readiness
from .readiness_regions import REGION_CHECKS
from .readiness_upkeep import backup_is_fresh as fresh_backup
from .readiness_upkeep import log_is_archived as archived
from .readiness_upkeep import logical_slots_survive as slots_survive
from .readiness_upkeep import nobody_is_waited_for as no_idle_slots
from .reprotect import protections
from .targets import Basis, survey
from .topology import Cluster, ReplicationMode, majority, service_address

DRILL_DUE = timedelta(days=90)
"""A cluster whose last drill is longer ago has changed more than people remember."""

CERTIFICATE_DUE = timedelta(days=30)
CALLERS_WITHIN = timedelta(days=1)


def evaluate(facts: Facts) -> Readiness:
    """Every check, in order."""
    planning = None
    if facts.evidence is not None and not facts.cluster.is_active_active:
        made = make_plan(facts.cluster, facts.policy, facts.evidence, trigger_reason="readiness")
        planning = made if made.basis is Basis.LIVE else None  # a file's own statuses are no evidence
    look = _Look(facts, planning)
    if facts.cluster.is_active_active:
        checks = (*(check(facts) for check in REGION_CHECKS), *(check(look) for check in OF_ANY_CLUSTER))
    else:
        checks = tuple(check(look) for check in CHECKS)
    grades = list(Grade)
    return Readiness(
        cluster_id=facts.cluster.cluster_id,
        grade=max((check.grade for check in checks if check.counts), key=grades.index),
        checks=checks,
        evaluated_at=facts.now,
        topology_digest=topology_digest(facts.cluster),
        policy_digest=sha256_digest(facts.policy),
        unverified_since_edit=_edited(facts),
    )


@dataclass(frozen=True)
class _Look:
    """What the checks look at."""

    facts: Facts
    planning: Planning | None
    """None without live evidence."""

    @property
    def evidence_age_s(self) -> float | None:
        taken_at = None if self.facts.evidence is None else self.facts.evidence.taken_at
        return None if taken_at is None else _age_s(self.facts, taken_at)


# --- The checks ---------------------------------------------------------------------------------------------


def target_exists(look: _Look) -> Check:
    """A failover away from the present primary can be planned."""
    name, planning = "target exists", look.planning
    if planning is None:
        return _unknown(name, "no agent was asked")
    values: dict[str, JsonValue] = {
        "primary": planning.primary_node_id,
        "candidates": {c.node_id: c.reason for c in planning.candidates},
    }
    if planning.plan is None:
        refusal = planning.refusal
        return Check(
            name=name,
            grade=Grade.NOT_READY,
            reason=str(refusal),
            values={**values, "rule": refusal and refusal.rule},
            age_s=look.evidence_age_s,
        )
    target = planning.plan.failover_target_id
    return Check(
        name=name,
        grade=Grade.READY,
        reason=f"{target} would take over from {planning.primary_node_id}",
        values={**values, "target": target},
        age_s=look.evidence_age_s,
    )


def lag_in_bounds(look: _Look) -> Check:
    """The standbys have the primary's log, up to what the policy lets a target miss."""
    name, facts, planning = "replication lag", look.facts, look.planning
    if facts.cluster.by_http:
        reason = "an application replicates by itself, and has no log whose positions are compared"
        return Check(name=name, grade=Grade.NOT_EVALUATED, reason=reason, counts=False)
    if planning is None or facts.evidence is None or planning.primary_node_id is None:
        return _unknown(name, "the primary is not known")
    view = survey(facts.cluster, facts.policy, facts.evidence, planning.primary_node_id)
    primary, allowed = view.primary.state, view.allowed_lag_bytes
    if primary is None or primary.write_lsn is None or primary.timeline is None:
        return _unknown(name, f"the primary {planning.primary_node_id} does not say its log position")
    lags: dict[str, JsonValue] = {}
    within: list[str] = []
    behind: list[str] = []
    silent: list[str] = []
    for node in (node for node in view.standbys if node.holds_data):
        position = view.positions.get(node.node_id)
        if position is None or position.timeline != primary.timeline:
            lags[node.node_id] = None
            silent.append(f"{node.node_id} does not say its position on timeline {primary.timeline}")
            continue
        lag = lags[node.node_id] = max(0, primary.write_lsn - position.lsn)
        (within if lag <= allowed else behind).append(f"{node.node_id} is {lag} bytes behind")
    grade = Grade.READY if not behind and not silent else Grade.WARNING
    if not within:
        grade = Grade.NOT_EVALUATED if silent and not behind else Grade.NOT_READY
    told = "; ".join([*behind, *silent] or within) or "no standby holds data"
    return Check(
        name=name,
        grade=grade,
        reason=f"{told}; allowed are {allowed} bytes",
        values={"lag_bytes": lags, "allowed_bytes": allowed},
        age_s=look.evidence_age_s,
    )


def standbys_stream(look: _Look) -> Check:
    """Every node that holds data is the primary or streams from it, else why not; and where the topology says
    so, commits wait for one."""
    name, facts = "standbys", look.facts
    if facts.evidence is None or look.planning is None:
        return _unknown(name, "no agent was asked")
    found = protections(facts.cluster, facts.evidence)
    if any(one.primary is None for one in found):
        return _unknown(name, "no primary accepts writes")
    unawaited = _waits_for_none(facts.cluster, facts.evidence, look.planning.primary_node_id)
    whole = all(one.whole for one in found)
    return Check(
        name=name,
        grade=Grade.NOT_READY if unawaited else Grade.READY if whole else Grade.WARNING,
        reason="; ".join([*unawaited, *(one.in_words for one in found)]),
        values={
            "wanted": sum(one.wanted for one in found),
            "there": [node_id for one in found for node_id in one.there],
            "remedies": {each.node_id: each.remedy for one in found for each in one.missing},
        },
        age_s=look.evidence_age_s,
    )


def _waits_for_none(cluster: Cluster, evidence: ClusterEvidence, primary: str | None) -> list[str]:
    """What is said where commits wait for no standby though the topology promises it: each failover is then
    planned as one without a loss."""
    state = None if primary is None else evidence.of(primary).state
    if cluster.replication.mode is not ReplicationMode.SYNCHRONOUS or state is None or not state.standbys:
        return []
    if any(standby.sync_state in ("sync", "quorum") for standby in state.standbys):
        return []
    return [
        f"commits of {primary} wait for no standby, and by the topology they wait for"
        f" {cluster.replication.required_acks}: give every agent (or Patroni) the same replication"
    ]


def survives_each_node(look: _Look) -> Check:
    if look.facts.cluster.by_patroni:
        reason = "Patroni fails over within a region by itself; its DCS is not looked at"
        return Check(name="loss of any node", grade=Grade.NOT_EVALUATED, reason=reason, counts=False)
    if look.facts.cluster.by_http:
        advised = advice(look.facts.cluster, ())
        reason = "; ".join(advised) or "the fencing hook switches the old node off, and another is promoted"
        return Check(name="loss of any node", grade=Grade.WARNING if advised else Grade.READY, reason=reason)
    found = losses(look.facts.cluster)[: len(look.facts.cluster.nodes)]
    return _survival(look, "loss of any node", found, otherwise=Grade.NOT_READY)


def survives_each_region(look: _Look) -> Check:
    """Many clusters are not made to survive that, so it is no more than a warning."""
    cluster = look.facts.cluster
    found = losses(cluster)[len(cluster.nodes) :]
    if cluster.by_patroni and len({node.region for node in cluster.nodes}) > 1:
        advised = advice(cluster, ())
        reason = "; ".join(advised) or "a person has the region left; the fencing hook fences it"
        grade = Grade.WARNING if advised else Grade.READY
        return Check(name="loss of any region", grade=grade, reason=reason)
    if cluster.by_http:
        reason = "a region is not evacuated with an application; its service is moved by itself"
        return Check(name="loss of any region", grade=Grade.NOT_EVALUATED, reason=reason, counts=False)
    if not found:
        reason = "all nodes are in one region, and its loss is the loss of all"
        return Check(name="loss of any region", grade=Grade.WARNING, reason=reason)
    return _survival(look, "loss of any region", found, otherwise=Grade.WARNING)


def dns_takes_updates(look: _Look) -> Check:
    """Whether a failover's update would be taken where updates go: the first of the servers."""
    name, service, trial = "DNS credentials", look.facts.cluster.dns, look.facts.dns
    if service is None:
        reason = "no DNS service is configured, so people move the clients themselves"
        return Check(name=name, grade=Grade.WARNING, reason=reason)
    first = service.places[0]
    # Of regions with a record each there are several answers of one place: a refusal is what counts.
    answers = [] if trial is None else [answer for answer in trial.answers if answer.server == first]
    if trial is None or not answers:
        return _unknown(name, f"not tried: {first}")
    refused = [answer.reason for answer in answers if not answer.accepted]
    return Check(
        name=name,
        grade=Grade.NOT_READY if refused else Grade.READY,
        reason="; ".join(refused) or f"{first} would take an update",
        values={"server": first, "refused": list(refused)},
        age_s=_age_s(look.facts, trial.tried_at),
    )


def dns_points_to_the_primary(look: _Look) -> Check:
    """Every server sends clients to the primary, for as long as the topology says. From another address the
    compare-and-swap of a failover would not move the record."""
    name, service, record, planning = "DNS record", look.facts.cluster.dns, look.facts.record, look.planning
    if service is None:
        return Check(
            name=name, grade=Grade.NOT_EVALUATED, reason="no DNS service is configured", counts=False
        )
    if planning is None or planning.primary_node_id is None:
        return _unknown(name, "the primary is not known")
    primary = look.facts.cluster.node(planning.primary_node_id)
    address, answers = service_address(primary), () if record is None else record.answers
    faults: list[tuple[Grade, str]] = []
    for server in service.places:
        said = next((answer for answer in answers if answer.server == server), None)
        if said is None or said.addresses is None:
            faults.append(
                (Grade.NOT_EVALUATED, said.reason if said is not None else f"{server} was not asked")
            )
        elif said.addresses != (address,):
            found = ", ".join(said.addresses) or "no address"
            faults.append(
                (Grade.NOT_READY, f"{server} answers {found}, and {primary.node_id} is at {address}")
            )
        elif said.ttl_s != service.ttl_s:
            faults.append((Grade.WARNING, f"{server} answers a TTL of {said.ttl_s} s, not {service.ttl_s} s"))
    right = f"every server answers {address} for {service.ttl_s} s, which is {primary.node_id}"
    return Check(
        name=name,
        grade=max((grade for grade, _ in faults), key=list(Grade).index, default=Grade.READY),
        reason="; ".join(told for _, told in faults) or right,
        values={
            "primary": primary.node_id,
            "address": address,
            "ttl_s": service.ttl_s,
            "answers": {a.server: None if a.addresses is None else list(a.addresses) for a in answers},
            "ttls_s": {a.server: a.ttl_s for a in answers},
        },
        age_s=None if record is None else _age_s(look.facts, record.asked_at),
    )


def capacity_is_enough(look: _Look) -> Check:
    """The target can carry what the primary carries."""
    name, planning = "standby capacity", look.planning
    if planning is None or planning.plan is None:
        return _unknown(name, "there is no target")
    primary = look.facts.cluster.node(planning.plan.primary_node_id)
    target = look.facts.cluster.node(planning.plan.failover_target_id)
    return Check(
        name=name,
        grade=Grade.READY if target.capacity >= primary.capacity else Grade.WARNING,
        reason=f"{target.node_id} has {target.capacity:g}, {primary.node_id} has {primary.capacity:g}",
        values={"target": target.capacity, "primary": primary.capacity},
        age_s=look.evidence_age_s,
    )


def drilled_lately(look: _Look) -> Check:
    name, past = "last drill", look.facts.past
    if past is None:
        return _unknown(name, "the audit trail could not be read")
    if past.last_drill_at is None and look.facts.cluster.by_http:
        reason = "a drill with its own way back is not for an application; move the service there and back"
        return Check(name=name, grade=Grade.NOT_EVALUATED, reason=reason, counts=False)
    if past.last_drill_at is None:
        return Check(name=name, grade=Grade.WARNING, reason="no drill yet")
    age_s = _age_s(look.facts, past.last_drill_at)
    return Check(
        name=name,
        grade=Grade.READY if age_s <= DRILL_DUE.total_seconds() else Grade.WARNING,
        reason=f"{age_s / 86400:.1f} days ago; due every {DRILL_DUE.days} days",
        values={"last_drill_at": past.last_drill_at.isoformat(), "due_days": DRILL_DUE.days},
        age_s=age_s,
    )


def configuration_is_verified(look: _Look) -> Check:
    """The topology and the policy are those under which a run or a drill was verified."""
    name, past = "configuration", look.facts.past
    if past is None:
        return _unknown(name, "the audit trail could not be read")
    if past.verified is None:
        return Check(name=name, grade=Grade.WARNING, reason="no run or drill has verified it yet")
    edited = _edited(look.facts)
    run = f"run {past.verified.run_id} of {past.verified.at:%Y-%m-%d %H:%M} UTC"
    return Check(
        name=name,
        grade=Grade.WARNING if edited else Grade.READY,
        reason=f"unverified since edit: {', '.join(edited)} differ from what {run} verified"
        if edited
        else f"verified by {run}",
        values={"verified": past.verified.model_dump(mode="json"), "edited": list(edited)},
        age_s=_age_s(look.facts, past.verified.at),
    )


def somebody_watches(look: _Look) -> Check:
    """Whether a failure would be found. People can fail over without; nothing does by itself."""
    said, name, vantages = look.facts.guarded, "guardian", look.facts.cluster.vantages
    if said is None:
        return _unknown(name, "its guardian does not answer; a worker must poll for it")
    if said.missing is not None:
        start = f"`qnwis-continuity guardian start {look.facts.cluster.cluster_id}`"
        reason = f"nobody watches: {said.missing}; {start}"
        return Check(name=name, grade=Grade.WARNING, reason=reason, age_s=0)
    silent = {v: said.abstaining.get(v, "not heard from yet") for v in vantages if v not in said.heard}
    speak, need = len(vantages) - len(silent), majority(len(vantages))
    told = [f"{vantage}: {why}" for vantage, why in silent.items()]
    if speak < need:
        told.insert(0, f"no failure is found: {speak} of {len(vantages)} vantages speak, and it takes {need}")
    if said.paused is not None:
        told.append(f"paused {said.paused}")
    return Check(
        name=name,
        grade=Grade.WARNING if told else Grade.READY,
        reason="; ".join(told) or f"it watches from {', '.join(vantages)}",
        values={"abstaining": dict(silent), "paused": said.paused},
        age_s=0,
    )


def files_are_usable(look: _Look) -> Check:
    """A run that needs one of them and cannot read it is refused."""
    bad = look.facts.unusable
    if bad:
        return Check(name="files", grade=Grade.NOT_READY, reason="; ".join(bad), values={"files": list(bad)})
    return Check(name="files", grade=Grade.READY, reason="people, hooks and channels can be read", age_s=0)


def certificates_are_valid(look: _Look) -> Check:
    """Whoever shows one that has ended is spoken to by nobody."""
    seen, name, now = look.facts.certificates, "certificates", look.facts.now
    if seen is None:
        return _without_certificates(look.facts.cluster)
    ends = {one.owner: one.not_after for one in seen if one.not_after is not None}
    ended = sorted(owner for owner, end in ends.items() if end <= now)
    soon = sorted(owner for owner, end in ends.items() if now < end <= now + CERTIFICATE_DUE)
    values: dict[str, JsonValue] = {owner: end.isoformat() for owner, end in ends.items()}
    if ended:
        reason = f"ended: {', '.join(ended)}; replace them with `qnwis-continuity pki rotate`"
        return Check(name=name, grade=Grade.NOT_READY, reason=reason, values=values, age_s=0)
    if unseen := [f"{one.owner} ({one.reason})" for one in seen if one.not_after is None]:
        return Check(
            name=name, grade=Grade.NOT_EVALUATED, reason=f"not seen: {', '.join(unseen)}", values=values
        )
    if soon:
        reason = f"within {CERTIFICATE_DUE.days} days ends that of {', '.join(soon)}; `pki rotate`"
        return Check(name=name, grade=Grade.WARNING, reason=reason, values=values, age_s=0)
    first = min(ends, key=lambda owner: ends[owner])
    reason = f"the first to end is that of {first}, at {ends[first]:%Y-%m-%d}"
    return Check(name=name, grade=Grade.READY, reason=reason, values=values, age_s=0)


def _without_certificates(cluster: Cluster) -> Check:
    urls = {node.node_id: urlsplit(node.agent_url) for node in cluster.nodes if node.has_agent}
    open_ = [n for n, url in urls.items() if url.scheme == "http" and not is_loopback(url.hostname or "")]
    reason = "agents speak plain HTTP; `qnwis-continuity pki` makes certificates and an allowlist"
    if not open_:
        return Check(name="certificates", grade=Grade.NOT_EVALUATED, reason=reason, counts=False)
    return Check(
        name="certificates",
        grade=Grade.WARNING,
        reason=f"whoever reaches {', '.join(open_)} can order a promotion: {reason}",
        values={"plain_http": list(open_)},
        age_s=0,
    )


def callers_are_known(look: _Look) -> Check:
    """Somebody without a listed certificate knocked: a mistake of ours, or no mistake."""
    said, name, now = look.facts.refused, CALLERS, look.facts.now
    if said is None:
        reason = "agents answer whoever asks"
        return Check(name=name, grade=Grade.NOT_EVALUATED, reason=reason, counts=False)
    lately = {
        node_id: one
        for node_id, one in said.items()
        if one.last_at is not None and now - one.last_at <= CALLERS_WITHIN
    }
    if not lately:
        return Check(name=name, grade=Grade.READY, reason="no agent refused anybody within a day", age_s=0)
    told = [
        f"{node_id} ({', '.join(f'{rule} {times}' for rule, times in sorted(one.counts.items()))})"
        for node_id, one in sorted(lately.items())
    ]
    reason = f"refused within a day: {'; '.join(told)}; the agents' logs say whom"
    values: dict[str, JsonValue] = {node_id: {**one.counts} for node_id, one in lately.items()}
    return Check(name=name, grade=Grade.WARNING, reason=reason, values=values, age_s=0)


def log_is_archived(look: _Look) -> Check:
    return archived(look.facts, None if look.planning is None else look.planning.primary_node_id)


def logical_slots_survive(look: _Look) -> Check:
    planning = look.planning
    plan = None if planning is None else planning.plan
    return slots_survive(
        look.facts,
        None if planning is None else planning.primary_node_id,
        None if plan is None else plan.failover_target_id,
    )


def nobody_is_waited_for(look: _Look) -> Check:
    return no_idle_slots(look.facts)


def backup_is_fresh(look: _Look) -> Check:
    return fresh_backup(look.facts)


OF_ANY_CLUSTER: tuple[Callable[[_Look], Check], ...] = (
    dns_takes_updates,
    somebody_watches,
    files_are_usable,
    certificates_are_valid,
    callers_are_known,
)
"""Of an active/active cluster too, besides `REGION_CHECKS`."""

CHECKS: tuple[Callable[[_Look], Check], ...] = (
    target_exists,
    lag_in_bounds,
    standbys_stream,
    survives_each_node,
    survives_each_region,
    dns_takes_updates,
    dns_points_to_the_primary,
    capacity_is_enough,
    log_is_archived,
    logical_slots_survive,
    nobody_is_waited_for,
    backup_is_fresh,
    drilled_lately,
    configuration_is_verified,
    somebody_watches,
    files_are_usable,
    certificates_are_valid,
    callers_are_known,
)


# --- What they need -----------------------------------------------------------------------------------------


def _survival(look: _Look, name: str, found: Sequence[Loss], *, otherwise: Grade) -> Check:
    """Whether the cluster, as it is now, goes on or fails over after each of these losses."""
    facts = look.facts
    if look.planning is None or facts.evidence is None:
        return _unknown(name, "no agent was asked")
    seen = {node.node_id: node.status for node in facts.evidence.nodes}
    voting = {node.node_id for node in facts.cluster.nodes if seen.get(node.node_id) in VOTING}
    stopped = {loss.what: why for loss in found if (why := _why_it_stops(loss, voting)) is not None}
    told = "; ".join(f"{what}: {why}" for what, why in stopped.items())
    return Check(
        name=name,
        grade=otherwise if stopped else Grade.READY,
        reason=told or f"{len(found)} losses would be survived, one at a time",
        values={"voting": sorted(voting), "quorum": facts.cluster.quorum, "stopped": dict(stopped)},
        age_s=look.evidence_age_s,
    )


def _why_it_stops(loss: Loss, voting: set[str]) -> str | None:
    if loss.why:
        return loss.why
    left = len(voting - set(loss.node_ids))
    return None if left >= loss.quorum else f"{left} voting nodes would be left, the quorum is {loss.quorum}"


def _edited(facts: Facts) -> tuple[str, ...]:
    verified = None if facts.past is None else facts.past.verified
    if verified is None:
        return ()
    present = {
        "topology_digest": topology_digest(facts.cluster),
        "policy_digest": sha256_digest(facts.policy),
    }
    return tuple(name for name, digest in present.items() if digest != getattr(verified, name))


def _unknown(name: str, why: str) -> Check:
    return Check(name=name, grade=Grade.NOT_EVALUATED, reason=why)


def _age_s(facts: Facts, at: datetime) -> float:
    return max(0.0, (facts.now - at).total_seconds())
