"""What is measured, under which name and labels, and which heartbeat or record becomes which figure.

Names and labels are the specification's; those beyond it begin with `qnwis_continuity_`. What a vantage sees
names the vantage and the cluster as well, because a process may serve several. Pure: the instruments and
their serving are in `qnwis.metrics`.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from pydantic import AwareDatetime

from .audit import AuditRecord
from .heartbeat import NodeDetector, NodeStatus
from .model import Model
from .policy import Policy
from .readiness_facts import Grade, Readiness
from .report_writes import handed_over
from .run import FailoverRequest, RunOutcome, RunResult
from .topology import Cluster, ReplicationMode


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """One family of time series."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()
    """Of a histogram: upper bounds, without the infinite one."""


class Sample(NamedTuple):
    """A value that a gauge has now. `labels` are in the order of the metric's."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


PROBE_MS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0)
"""The specification's budgets for a health question (100, 200, 500 ms) are bounds."""
RUN_MS = (50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 3e3, 5e3, 1e4, 2e4, 3e4, 6e4, 12e4, 3e5, 9e5)

_WATCH = ("cluster", "vantage", "node")
HEARTBEAT_LATENCY = Metric(
    "continuity_heartbeat_latency_ms",
    Kind.HISTOGRAM,
    "Until a node's agent answered a liveness question; questions without an answer are not in it",
    _WATCH,
    PROBE_MS,
)
HEALTH_CHECK_ERRORS = Metric(
    "continuity_health_check_errors",
    Kind.COUNTER,
    "Health questions that failed: timeout, connection_refused, dns, tls, unreachable, http_<status>; answer:"
    " an application's that it is not to give",
    (*_WATCH, "type"),
)
NODE_STATUS = Metric(
    "continuity_node_status",
    Kind.GAUGE,
    "1: this vantage calls the node healthy, 0: failed; absent while it is not determined",
    _WATCH,
)
CONSECUTIVE_FAILURES = Metric(
    "continuity_consecutive_failures", Kind.GAUGE, "Heartbeats missed in a row", _WATCH
)
CLUSTER_QUORUM = Metric(
    "continuity_cluster_quorum", Kind.GAUGE, "Share of the nodes that are healthy", ("cluster", "vantage")
)
NODES_HEALTHY = Metric(
    "qnwis_continuity_nodes_healthy", Kind.GAUGE, "Nodes that are healthy", ("cluster", "vantage")
)
QUORUM_REACHED = Metric(
    "qnwis_continuity_quorum_reached",
    Kind.GAUGE,
    "1: the healthy nodes are enough for the quorum, 0: they are not; an active/active cluster has none as a"
    " whole, but one for each region's lease group",
    ("cluster", "vantage"),
)
EXECUTIONS = Metric(
    "qnwis_failover_executions_total",
    Kind.COUNTER,
    "Failovers that were asked for and have ended, by their outcome; those that were carried out (completed,"
    " incomplete, rolled_back) are each a success or a failure",
    ("cluster", "status"),
)
SUCCESSES = Metric("qnwis_failover_success_total", Kind.COUNTER, "Failovers that were verified", ("cluster",))
FAILURES = Metric(
    "qnwis_failover_failures_total",
    Kind.COUNTER,
    "Failovers carried out that did not end verified, by the rule that stopped them, else by the outcome",
    ("cluster", "reason"),
)
EXECUTION_MS = Metric(
    "qnwis_failover_execution_ms",
    Kind.HISTOGRAM,
    "Time that carrying out the plan took in a failover",
    ("cluster", "status"),
    RUN_MS,
)
VALIDATION_MS = Metric(
    "qnwis_failover_validation_ms",
    Kind.HISTOGRAM,
    "Time that reading the world again took in a failover",
    ("cluster",),
    RUN_MS,
)
RUNS = Metric(
    "qnwis_continuity_runs_total",
    Kind.COUNTER,
    "Runs on one cluster that ended: failovers, maintenance and drills",
    ("cluster", "operation", "status"),
)
STEP_MS = Metric(
    "qnwis_continuity_step_ms",
    Kind.HISTOGRAM,
    "Time that a step of a runbook took",
    ("cluster", "operation", "step"),
    RUN_MS,
)
RECOVERY_MS = Metric(
    "qnwis_continuity_recovery_ms",
    Kind.HISTOGRAM,
    "From the first missed heartbeat, else from the start of the run, to the end of a verified failover; the"
    " time that people took to vote counts",
    ("cluster",),
    RUN_MS,
)
LAST_RECOVERY_MS = Metric(
    "qnwis_continuity_last_recovery_ms",
    Kind.GAUGE,
    "The same, of the newest verified failover",
    ("cluster",),
)
LAST_RECOVERY_ENDED = Metric(
    "qnwis_continuity_last_recovery_timestamp_seconds",
    Kind.GAUGE,
    "When the newest verified failover ended",
    ("cluster",),
)
RTO_OBJECTIVE_MS = Metric(
    "qnwis_continuity_rto_objective_ms",
    Kind.GAUGE,
    "What the policy allows a failover to take (max_failover_time_s)",
    ("cluster",),
)
MOVES = Metric(
    "qnwis_continuity_moves_total",
    Kind.COUNTER,
    "Runs that moved the service, by what is known of their loss: none, some or unknown",
    ("cluster", "loss"),
)
LAST_LOSS = Metric(
    "qnwis_continuity_last_loss_bytes",
    Kind.GAUGE,
    "Log that the newest run which moved the service lost, by its record; absent where that is not known",
    ("cluster",),
)
LAST_MOVE_ENDED = Metric(
    "qnwis_continuity_last_move_timestamp_seconds",
    Kind.GAUGE,
    "When the newest run which moved the service ended",
    ("cluster",),
)
RPO_OBJECTIVE = Metric(
    "qnwis_continuity_rpo_objective_bytes",
    Kind.GAUGE,
    "What may be lost: nothing where commits wait for a standby, else what the policy allows (max_lag_bytes)",
    ("cluster",),
)
APPROVALS_WAITING = Metric(
    "qnwis_continuity_approvals_waiting",
    Kind.GAUGE,
    "1: the run on this cluster waits for people's votes, 0: none does",
    ("cluster",),
)
READINESS = Metric(
    "qnwis_continuity_readiness",
    Kind.GAUGE,
    "1: the grade of the newest evaluation, 0: every other grade; there is none before the first evaluation",
    ("cluster", "grade"),
)
READINESS_EVALUATED = Metric(
    "qnwis_continuity_readiness_evaluated_timestamp_seconds",
    Kind.GAUGE,
    "When readiness was last evaluated by this worker",
    ("cluster",),
)
METRICS = (
    *(HEARTBEAT_LATENCY, HEALTH_CHECK_ERRORS, NODE_STATUS, CONSECUTIVE_FAILURES, CLUSTER_QUORUM),
    *(NODES_HEALTHY, QUORUM_REACHED),
    *(EXECUTIONS, SUCCESSES, FAILURES, EXECUTION_MS, VALIDATION_MS),
    *(RUNS, STEP_MS, RECOVERY_MS, LAST_RECOVERY_MS, LAST_RECOVERY_ENDED, RTO_OBJECTIVE_MS),
    *(MOVES, LAST_LOSS, LAST_MOVE_ENDED, RPO_OBJECTIVE),
    *(APPROVALS_WAITING, READINESS, READINESS_EVALUATED),
)

FAILOVER = "failover_execute"
COUNTED = (FAILOVER, "maintenance_execute", "drill_execute")
"""Operations of the audit trail that are runs; a dry run changes nothing and is none."""
EXECUTED = (RunOutcome.COMPLETED, RunOutcome.INCOMPLETE, RunOutcome.ROLLED_BACK)
"""Outcomes of runs that were carried out; where somebody says no before that, nothing has failed."""
EXECUTION, VERIFICATION = "execution", "verification"
"""Steps of the runbooks that have metrics of their own."""


def watch_samples(
    cluster: Cluster, vantage: str, detectors: Mapping[str, NodeDetector], apart: Container[str] = ()
) -> Iterator[Sample]:
    """What one vantage sees of a cluster now. Unknown is not down: such a node has no status.

    Of an active/active cluster as a whole there is no quorum: each region's lease group has its own, under
    its own id, but for those `apart`, which this vantage watches for themselves.
    """
    for node_id, detector in detectors.items():
        labels = (cluster.cluster_id, vantage, node_id)
        if detector.status is not NodeStatus.UNKNOWN:
            yield Sample(NODE_STATUS, labels, float(detector.status is NodeStatus.HEALTHY))
        yield Sample(CONSECUTIVE_FAILURES, labels, detector.consecutive_misses)
    healthy = {name for name, detector in detectors.items() if detector.status is NodeStatus.HEALTHY}
    if not cluster.is_active_active:
        yield from _vote_samples(cluster, vantage, healthy)
        return
    yield from _share_samples(cluster, vantage, healthy)
    for group in cluster.lease_groups:
        if group.cluster_id not in apart:
            yield from _vote_samples(group, vantage, healthy)


def _vote_samples(cluster: Cluster, vantage: str, healthy: Collection[str]) -> Iterator[Sample]:
    yield from _share_samples(cluster, vantage, healthy)
    enough = _healthy_nodes(cluster, healthy) >= cluster.quorum
    yield Sample(QUORUM_REACHED, (cluster.cluster_id, vantage), float(enough))


def _share_samples(cluster: Cluster, vantage: str, healthy: Collection[str]) -> Iterator[Sample]:
    whose, count = (cluster.cluster_id, vantage), _healthy_nodes(cluster, healthy)
    yield Sample(CLUSTER_QUORUM, whose, count / len(cluster.nodes))
    yield Sample(NODES_HEALTHY, whose, count)


def _healthy_nodes(cluster: Cluster, healthy: Collection[str]) -> int:
    return sum(node.node_id in healthy for node in cluster.nodes)


class Loss(StrEnum):
    NONE = "none"
    SOME = "some"
    UNKNOWN = "unknown"


class RunFigures(Model):
    """What metrics keep of one run that ended."""

    cluster_id: str
    operation: str
    status: str
    failure: str | None
    """Why it was carried out and not verified: the rule that stopped it, else the outcome; None for a
    verified run, and for one of which nothing was carried out."""
    verified: bool
    steps_ms: dict[str, float]
    """By step, what it took; steps that were not come to are not in it."""
    recovery_ms: float | None
    """Of a verified failover."""
    moved: bool
    """The service runs on another node since."""
    loss_bytes: int | None
    """Of a run that moved it: none where the old primary handed over its whole log, else what was predicted
    for the plan; None where that is not known."""
    ended_at: AwareDatetime

    @property
    def loss(self) -> Loss:
        if self.loss_bytes is None:
            return Loss.UNKNOWN
        return Loss.SOME if self.loss_bytes else Loss.NONE

    @property
    def is_failover(self) -> bool:
        return self.operation == FAILOVER


def figures_of(record: AuditRecord, request: FailoverRequest, result: RunResult) -> RunFigures:
    """Of a run, by its record and two of the record's artefacts."""
    stopped = result.refusal.rule if result.refusal is not None else result.outcome.value
    failed = result.outcome in EXECUTED and not result.verified
    return RunFigures(
        cluster_id=record.cluster_id,
        operation=record.operation,
        status=result.outcome.value,
        failure=stopped if failed else None,
        verified=result.verified,
        steps_ms={step.name: step.elapsed_ms for step in result.steps if step.elapsed_ms is not None},
        recovery_ms=_recovery_ms(request, result) if record.operation == FAILOVER else None,
        moved=result.moved,
        loss_bytes=0 if handed_over(result) else result.predicted_loss_bytes,
        ended_at=result.ended_at,
    )


def _recovery_ms(request: FailoverRequest, result: RunResult) -> float | None:
    if not result.verified:
        return None
    found = request.detection
    began = result.started_at if found is None else found.first_miss_at or found.detected_at
    return max(0.0, (result.ended_at - began).total_seconds() * 1000)


def newest_samples(recovery: RunFigures | None, move: RunFigures | None) -> Iterator[Sample]:
    """Of one cluster: of its newest verified failover, and of the newest run that moved its service."""
    if recovery is not None and recovery.recovery_ms is not None:
        yield Sample(LAST_RECOVERY_MS, (recovery.cluster_id,), recovery.recovery_ms)
        yield Sample(LAST_RECOVERY_ENDED, (recovery.cluster_id,), recovery.ended_at.timestamp())
    if move is not None:
        if move.loss_bytes is not None:
            yield Sample(LAST_LOSS, (move.cluster_id,), move.loss_bytes)
        yield Sample(LAST_MOVE_ENDED, (move.cluster_id,), move.ended_at.timestamp())


def objective_samples(cluster: Cluster, policy: Policy) -> Iterator[Sample]:
    """What a failover of this cluster may take, and lose."""
    yield Sample(RTO_OBJECTIVE_MS, (cluster.cluster_id,), policy.max_failover_time_s * 1000)
    nothing = cluster.replication.mode is ReplicationMode.SYNCHRONOUS
    yield Sample(RPO_OBJECTIVE, (cluster.cluster_id,), 0 if nothing else policy.max_lag_bytes)


def readiness_samples(readiness: Readiness) -> Iterator[Sample]:
    """Of one evaluation."""
    for grade in Grade:
        yield Sample(READINESS, (readiness.cluster_id, grade.value), float(grade is readiness.grade))
    yield Sample(READINESS_EVALUATED, (readiness.cluster_id,), readiness.evaluated_at.timestamp())
