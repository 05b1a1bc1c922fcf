"""What-if: a failure on paper, and what the real rules make of it.

Only the world is modelled (`modelled`). Detector, guardian's rules, assessment, planner, stepper and
verifier are the ones that decide in production. The same cluster, policy, scenario and seed give the same
bytes, in every process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random

from pydantic import Field

from .assessment import assess
from .detection import Votes, judge_node, needs_evidence
from .evidence import ClusterEvidence
from .guardian_rules import Hold, PastRun, Propose, decide
from .heartbeat import NodeDetector, next_beat_s, observe
from .model import Model, sha256_digest
from .modelled import SOURCE, ModelledCluster, play
from .plan import Plan
from .policy import Policy
from .refusal import Refusal
from .run import Detection, FailoverRequest, RunOutcome
from .scenarios import Fault, at_rest, faults, first_primary
from .scenarios import Scenario as Scenario
from .topology import Cluster, NodeStatus
from .verifier import Aspect, Check, VerificationReport

BEGIN = datetime(2000, 1, 1, tzinfo=UTC)
"""When simulated time begins; any fixed moment would do."""
ESTIMATE_FACTORS = (0.7, 1.1)
"""A modelled action takes between these shares of its estimate."""
NAMES_IN_AN_EVENT = 3
MOST_BEATS = 100_000
"""Of all vantages, that a simulation through the API plays."""


class Event(Model):
    """One moment of a simulation."""

    t_ms: int
    """Since the watch began."""
    what: str


class SimulatedFailover(Model):
    execution_id: str
    success: bool
    """Every action of the plan succeeded, or had nothing to do."""
    actions_executed: int
    """Those that succeeded, or had nothing to do."""
    total_duration_ms: int
    """Simulated, from the start of the run; the time to detect is `detection_ms`."""
    plan_id: str
    plan_digest: str
    source_node: str
    target_node: str


class SimulatedVerification(Model):
    report_id: str
    passed: bool
    consistency_ok: bool
    policy_ok: bool
    quorum_ok: bool
    failures: tuple[str, ...] = ()


class SimulationResult(Model):
    """Form: specification, "POST /api/v1/continuity/simulate"; what goes beyond it comes after."""

    scenario: Scenario
    success: bool
    """The last failover that the scenario called for happened and passed its verification.

    False where a rule refused it; then `refusal` says which, and refusing may well be right.
    """
    failover: SimulatedFailover | None = None
    """The last one that was carried out."""
    verification: SimulatedVerification | None = None
    refusal: Refusal | None = None
    seed: int
    cluster_id: str
    policy_id: str
    detection_ms: int | None = None
    """From the first failure until a majority of the vantages called the primary failed."""
    assumptions: tuple[str, ...] = ()
    """Where the model goes beyond what the topology says."""
    timeline: tuple[Event, ...] = ()


class Rehearsal(Model):
    """What a run's own plan would come to on paper, from the evidence of this moment."""

    summary: str
    refusal: Refusal | None = None
    """Set when the verification would fail for a reason that carrying the plan out cannot change."""
    expected_ms: int = Field(ge=0)


def rehearse(plan: Plan, cluster: Cluster, policy: Policy, evidence: ClusterEvidence) -> Rehearsal:
    """Play the plan once with each action taking its estimate.

    A standby that would not follow is no reason to refuse: the service would come back without it.
    """
    started_at = evidence.taken_at or BEGIN
    world = ModelledCluster.of(cluster, evidence)
    epoch = 1 + max((n.state.epoch for n in evidence.nodes if n.state is not None), default=0)
    played = play(
        plan,
        policy,
        world,
        before=evidence,
        epoch=epoch,
        started_at=started_at,
        duration_ms=lambda action: float(action.estimate_ms),
    )
    expected_ms = round(played.elapsed_ms)
    if played.report is None:
        return Rehearsal(
            summary=f"would end {played.finish.end}: {played.finish.reason}",
            refusal=_rehearsal_refusal(plan, [played.finish.reason]),
            expected_ms=expected_ms,
        )
    certain = [check.detail for check in played.report.failures if _is_certain(check)]
    others = [check.detail for check in played.report.failures if not _is_certain(check)]
    summary = f"{len(plan.actions)} actions in {expected_ms / 1000:.1f} s"
    return Rehearsal(
        summary="; ".join([summary, *certain, *others]),
        refusal=_rehearsal_refusal(plan, certain) if certain else None,
        expected_ms=expected_ms,
    )


def _is_certain(check: Check) -> bool:
    return check.aspect in {Aspect.POLICY, Aspect.QUORUM} or check.name == "one_writable_node"


def _rehearsal_refusal(plan: Plan, reasons: Sequence[str]) -> Refusal:
    return Refusal(
        rule="rehearsal_failed",
        message=f"On paper, {plan.plan_id} does not end verified: {'; '.join(reasons)}",
        values={"plan_id": plan.plan_id, "reasons": list(reasons)},
        remedy="Remove the cause, for example bring nodes back, and start again.",
    )


def too_long_refusal(cluster: Cluster) -> Refusal | None:
    """Why a topology is not simulated for whoever asks: its heartbeat would be played for too long."""
    config = cluster.heartbeat
    beats = len(cluster.vantages) * (config.timeout_sec / config.interval_sec + config.failure_threshold)
    if beats <= MOST_BEATS:
        return None
    return Refusal(
        rule="simulation_too_long",
        message=f"{cluster.cluster_id} would have {beats:.0f} beats until its primary counts as failed;"
        f" at most {MOST_BEATS} are played",
        values={
            "vantages": len(cluster.vantages),
            "timeout_sec": config.timeout_sec,
            "interval_sec": config.interval_sec,
            "failure_threshold": config.failure_threshold,
            "most_beats": MOST_BEATS,
        },
        remedy="Take a longer interval_sec, a shorter timeout_sec or a lower failure_threshold.",
    )


def simulate(cluster: Cluster, policy: Policy, scenario: Scenario, seed: int) -> SimulationResult:
    """Let `scenario` happen to the cluster and follow it to its end. Reads and changes nothing real."""
    rng = Random(seed)
    primary = first_primary(cluster)
    story = _Story(cluster, policy, seed, rng, at_rest(cluster, policy, rng))
    first = story.fail_over(primary.node_id, faults(scenario, cluster, primary, rng))
    last = first
    if scenario is Scenario.CASCADING and first.failover is not None:
        successor = first.failover.target_node
        soon_ms = story.now_ms + rng.random() * cluster.heartbeat.interval_sec * 1000
        last = story.fail_over(successor, [Fault(frozenset({successor}), soon_ms)])
    told = last if last.failover is not None else first
    return SimulationResult(
        scenario=scenario,
        success=last.verification is not None and last.verification.passed,
        failover=told.failover,
        verification=told.verification,
        refusal=last.refusal,
        seed=seed,
        cluster_id=cluster.cluster_id,
        policy_id=policy.policy_id,
        detection_ms=first.detection_ms,
        assumptions=tuple(_assumptions(cluster)),
        timeline=tuple(sorted(story.timeline, key=lambda event: event.t_ms)),
    )


def _assumptions(cluster: Cluster) -> Iterator[str]:
    yield "every effect on a node that is alive succeeds"
    if cluster.dns is None:
        yield "the topology has no DNS service; moving the clients is not part of the result"


@dataclass(frozen=True)
class Answer:
    """What was made of one failure of a primary."""

    detection_ms: int | None = None
    refusal: Refusal | None = None
    failover: SimulatedFailover | None = None
    verification: SimulatedVerification | None = None


@dataclass(frozen=True)
class Detected:
    """The moment at which a majority of the vantages called a node failed."""

    at_ms: float
    first_miss_ms: float
    votes: Votes

    @property
    def vantages(self) -> tuple[str, ...]:
        return tuple(v for v, said in self.votes.items() if NodeStatus.FAILED in said.values())


@dataclass
class _Story:
    """Simulated time, the modelled world, and what was told of them so far."""

    cluster: Cluster
    policy: Policy
    seed: int
    rng: Random
    world: ModelledCluster
    now_ms: float = 0.0
    history: list[PastRun] = field(default_factory=list)
    timeline: list[Event] = field(default_factory=list)

    def fail_over(self, primary_id: str, faults: Sequence[Fault]) -> Answer:
        """Watch the primary while the faults happen; if it counts as failed, do what production would."""
        self._announce(faults)
        detected, most_misses = self._watch(primary_id, faults)
        if detected is None:
            return Answer(refusal=_not_failed(self.cluster, primary_id, most_misses))
        self.now_ms = detected.at_ms
        answer = Answer(detection_ms=round(detected.at_ms - faults[0].from_ms))
        for fault in faults:
            self._strike(fault)

        before = self.world.evidence(_at(self.now_ms))
        decision = decide(
            policy=self.policy,
            primary=judge_node(self.cluster, self.cluster.node(primary_id), detected.votes, before),
            history=self.history,
            pause=None,
            watching_since=BEGIN - timedelta(seconds=self.policy.startup_grace_s),
            changed_at=_at(self.now_ms),
            now=_at(self.now_ms),
        )
        if isinstance(decision, Hold):
            return self._refused(answer, decision.refusal)
        if isinstance(decision, Propose):
            self._tell("the policy is manual: a person executes the proposed plan")
        request = self._request(primary_id, detected, automatic=not isinstance(decision, Propose))
        assessment = assess(request, self.cluster, self.policy, before)
        if assessment.refusal is not None:
            return self._refused(answer, assessment.refusal)
        assert assessment.plan is not None
        return self._carry_out(answer, assessment.plan, before, assessment.epoch)

    def _carry_out(self, answer: Answer, plan: Plan, before: ClusterEvidence, epoch: int) -> Answer:
        plan_id, digest = plan.plan_id, plan.digest
        self._tell(
            f"{plan_id}: {plan.primary_node_id} to {plan.failover_target_id}, "
            f"estimated {plan.estimated_total_ms} ms, epoch {epoch}"
        )
        identity = sha256_digest({"plan": digest, "seed": self.seed, "t_ms": self.now_ms})
        execution_id = "sim-" + identity.removeprefix("sha256:")[:12]
        played = play(
            plan,
            self.policy,
            self.world,
            before=before,
            epoch=epoch,
            started_at=_at(self.now_ms),
            duration_ms=lambda action: action.estimate_ms * self.rng.uniform(*ESTIMATE_FACTORS),
        )
        for outcome in played.outcomes:
            self.now_ms += outcome.duration_ms or 0.0
            self._tell(": ".join(filter(None, (f"{outcome.action_id} {outcome.status}", outcome.detail))))
        moved = RunOutcome.COMPLETED if played.completed else RunOutcome.INCOMPLETE
        self.history.append(PastRun(run_id=execution_id, outcome=moved, ended_at=_at(self.now_ms)))
        return replace(
            answer,
            failover=SimulatedFailover(
                execution_id=execution_id,
                success=played.completed,
                actions_executed=played.actions_executed,
                total_duration_ms=round(played.elapsed_ms),
                plan_id=plan_id,
                plan_digest=digest,
                source_node=plan.primary_node_id,
                target_node=plan.failover_target_id,
            ),
            verification=None if played.report is None else _verification(played.report),
        )

    def _watch(self, node_id: str, faults: Sequence[Fault]) -> tuple[Detected | None, int]:
        """The real detectors of every vantage on this node, beat by beat; and the most misses in a row."""
        config = self.cluster.heartbeat
        detectors = dict.fromkeys(self.cluster.vantages, NodeDetector())
        first_miss_ms, most_misses = 0.0, 0
        for known_ms, vantage, missed in self._beats(node_id, faults):
            was = detectors[vantage]
            now = observe(was, not missed, config, "no answer" if missed else None)
            detectors[vantage] = now
            most_misses = max(most_misses, now.consecutive_misses)
            if missed:
                if now.consecutive_misses == 1:
                    first_miss_ms = known_ms
                streak = f"{now.consecutive_misses} of {config.failure_threshold}"
                self._tell(f"{vantage}: {node_id} missed beat {streak}", known_ms)
            elif was.consecutive_misses:
                self._tell(f"{vantage}: {node_id} answers again", known_ms)
            votes = {v: {node_id: d.status} for v, d in detectors.items()}
            if needs_evidence(self.cluster, votes):
                detected = Detected(known_ms, first_miss_ms, votes)
                sure = f"{len(detected.vantages)} of {len(votes)} vantages"
                self._tell(f"{node_id} is failed, say {sure}", known_ms)
                return detected, most_misses
        return None, most_misses

    def _beats(self, node_id: str, faults: Sequence[Fault]) -> list[tuple[float, str, bool]]:
        """(when the answer or its absence is known, vantage, whether it was missed), in that order."""
        config = self.cluster.heartbeat
        interval_ms, timeout_ms = config.interval_sec * 1000, config.timeout_sec * 1000
        quiet_ms = max(fault.until_ms or fault.from_ms for fault in faults)
        beats = range(
            math.ceil(self.now_ms / interval_ms),
            math.ceil((quiet_ms + timeout_ms) / interval_ms) + config.failure_threshold + 2,
        )
        known = []
        for vantage in self.cluster.vantages:
            for beat in beats:
                due_ms = next_beat_s(config, f"{self.seed}/{vantage}/{node_id}", beat) * 1000
                missed = any(fault.silences(node_id, due_ms) for fault in faults)
                known.append((due_ms + timeout_ms if missed else due_ms, vantage, missed))
        return sorted(known)

    def _strike(self, fault: Fault) -> None:
        if fault.alive:
            self.world.unheard |= fault.node_ids
        else:
            self.world.lose(fault.node_ids)

    def _request(self, primary_id: str, detected: Detected, *, automatic: bool) -> FailoverRequest:
        return FailoverRequest(
            cluster_id=self.cluster.cluster_id,
            initiated_by=SOURCE,
            reason=f"{primary_id} failed",
            automatic=automatic,
            detection=Detection(
                node_id=primary_id,
                vantages=detected.vantages,
                misses=self.cluster.heartbeat.failure_threshold,
                first_miss_at=_at(detected.first_miss_ms),
                detected_at=_at(detected.at_ms),
            ),
        )

    def _refused(self, answer: Answer, refusal: Refusal) -> Answer:
        self._tell(f"refused: {refusal.message}")
        return replace(answer, refusal=refusal)

    def _announce(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            who = _names(fault.node_ids)
            if fault.until_ms is not None:
                self._tell(f"{who}: silent", fault.from_ms)
                self._tell(f"{who}: back", fault.until_ms)
            else:
                self._tell(f"{who}: {'cut off from the watchers' if fault.alive else 'gone'}", fault.from_ms)

    def _tell(self, what: str, at_ms: float | None = None) -> None:
        self.timeline.append(Event(t_ms=round(self.now_ms if at_ms is None else at_ms), what=what))


def _at(ms: float) -> datetime:
    return BEGIN + timedelta(milliseconds=ms)


def _names(node_ids: frozenset[str]) -> str:
    names = sorted(node_ids)
    more = len(names) - NAMES_IN_AN_EVENT
    return ", ".join(names[:NAMES_IN_AN_EVENT]) + (f" and {more} more" if more > 0 else "")


def _not_failed(cluster: Cluster, primary_id: str, most_misses: int) -> Refusal:
    threshold = cluster.heartbeat.failure_threshold
    return Refusal(
        rule="primary_not_failed",
        message=f"{primary_id} missed at most {most_misses} beats in a row; {threshold} make it failed",
        values={"primary": primary_id, "most_misses": most_misses, "failure_threshold": threshold},
        remedy="Nothing to do: it serves. If such gaps hurt, shorten the interval or lower the threshold.",
    )


def _verification(report: VerificationReport) -> SimulatedVerification:
    return SimulatedVerification(
        report_id=report.report_id,
        passed=report.passed,
        consistency_ok=report.consistency_ok,
        policy_ok=report.policy_ok,
        quorum_ok=report.quorum_ok,
        failures=tuple(check.detail for check in report.failures),
    )
