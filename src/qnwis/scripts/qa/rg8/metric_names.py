"""Metric names: every metric of the specification is there, of its kind and with its labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qnwis.continuity.metrics import METRICS, Kind, Metric

from .found import Found, Measured, found

NAME = "metric names"
HOLDS = (
    'every metric of the specification ("Metrics Tracked", "Prometheus Metrics") is measured under its name,'
    " as the kind and with the labels that it names; those beyond it begin with qnwis_continuity_"
)
SPECIFIED: dict[str, tuple[Kind, frozenset[str]]] = {
    "continuity_heartbeat_latency_ms": (Kind.HISTOGRAM, frozenset({"node"})),
    "continuity_node_status": (Kind.GAUGE, frozenset({"node"})),
    "continuity_consecutive_failures": (Kind.GAUGE, frozenset({"node"})),
    "continuity_health_check_errors": (Kind.COUNTER, frozenset({"type"})),
    "continuity_cluster_quorum": (Kind.GAUGE, frozenset()),
    "qnwis_failover_executions_total": (Kind.COUNTER, frozenset({"cluster", "status"})),
    "qnwis_failover_success_total": (Kind.COUNTER, frozenset({"cluster"})),
    "qnwis_failover_failures_total": (Kind.COUNTER, frozenset({"cluster", "reason"})),
    "qnwis_continuity_nodes_healthy": (Kind.GAUGE, frozenset()),
    "qnwis_continuity_quorum_reached": (Kind.GAUGE, frozenset()),
    "qnwis_failover_execution_ms": (Kind.HISTOGRAM, frozenset({"cluster", "status"})),
    "qnwis_failover_validation_ms": (Kind.HISTOGRAM, frozenset({"cluster"})),
}


def check(metrics: Sequence[Metric] = METRICS) -> Found:
    return found(NAME, HOLDS, [*_misses(metrics)], [Measured(what="metrics", value=len(metrics))])


def _misses(metrics: Sequence[Metric]) -> Iterator[str]:
    named = {metric.name: metric for metric in metrics}
    for name, (kind, labels) in SPECIFIED.items():
        metric = named.get(name)
        if metric is None:
            yield f"{name} is not measured"
        elif metric.kind is not kind:
            yield f"{name} is a {metric.kind.value}, expected a {kind.value}"
        elif lacking := labels - set(metric.labels):
            yield f"{name} lacks the labels {', '.join(sorted(lacking))}; it has {', '.join(metric.labels)}"
    for name in sorted(named.keys() - SPECIFIED.keys()):
        if not name.startswith("qnwis_continuity_"):
            yield f"{name} is beyond the specification, expected a name that begins with qnwis_continuity_"
