"""Makes `grafana/dashboards/continuity_ops.json` (`make dashboards`): change it here and not in Grafana.

Figures about runs are those of the whole audit trail unless a panel says otherwise: failovers are rare, and
the last hour has none. Workers that share a store serve the same ones: `max` over instances, not `sum`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from qnwis.continuity.metrics import (
    APPROVALS_WAITING,
    CLUSTER_QUORUM,
    CONSECUTIVE_FAILURES,
    EXECUTED,
    EXECUTION_MS,
    EXECUTIONS,
    FAILURES,
    HEALTH_CHECK_ERRORS,
    HEARTBEAT_LATENCY,
    LAST_LOSS,
    LAST_RECOVERY_MS,
    MOVES,
    NODE_STATUS,
    NODES_HEALTHY,
    QUORUM_REACHED,
    READINESS,
    READINESS_EVALUATED,
    RPO_OBJECTIVE,
    RTO_OBJECTIVE_MS,
    RUNS,
    STEP_MS,
    SUCCESSES,
    VALIDATION_MS,
    Metric,
)
from qnwis.continuity.run import RunOutcome

UID = "qnwis-continuity-ops"
WIDTH = 24
"""Of a dashboard, in Grafana's columns."""
HEIGHT = 8
QUANTILES = (0.5, 0.95, 0.99)
PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}


class Query(NamedTuple):
    """`expr` in PromQL, and how its series are called."""

    expr: str
    legend: str


class Panel(NamedTuple):
    title: str
    help: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    """Grafana's name of the visualization."""
    unit: str = "none"
    """Grafana's name of the unit."""
    width: int = 12
    names: tuple[tuple[str, str, str], ...] = ()
    """Values with a name and a colour of their own."""


def _of(metric: Metric, suffix: str = "", outcomes: Collection[RunOutcome] = ()) -> str:
    """The series of the clusters that are chosen; of runs, those that ended so."""
    status = f', status=~"{"|".join(outcomes)}"' if outcomes else ""
    return f'{metric.name}{suffix}{{cluster=~"$cluster"{status}}}'


def _once(metric: Metric, suffix: str = "") -> str:
    """Of figures about runs: whatever number of workers serves them."""
    labels = (*metric.labels, "le") if suffix == "_bucket" else metric.labels
    return f"max by ({', '.join(labels)}) ({_of(metric, suffix)})"


def _run_quantiles(metric: Metric, by: str, legend: str) -> tuple[Query, ...]:
    counts = f"sum by ({by}, le) ({_once(metric, '_bucket')})"
    return tuple(Query(f"histogram_quantile({q}, {counts})", f"P{q * 100:g} {legend}") for q in QUANTILES)


def _probe_quantiles() -> tuple[Query, ...]:
    counts = f"sum by (cluster, node, le) (rate({_of(HEARTBEAT_LATENCY, '_bucket')}[5m]))"
    return tuple(Query(f"histogram_quantile({q}, {counts})", f"P{q * 100:g} {{{{node}}}}") for q in QUANTILES)


def _readiness() -> str:
    """The newest evaluation, whichever worker made it."""
    evaluated = _of(READINESS_EVALUATED)
    newest = f"{evaluated} == on (cluster) group_left () max by (cluster) ({evaluated})"
    return f"max by (cluster, grade) ({_of(READINESS)} and on (cluster, instance) ({newest})) == 1"


def _over_range(metric: Metric, by: str, outcomes: Collection[RunOutcome] = ()) -> str:
    rising = f"increase({_of(metric, outcomes=outcomes)}[$__range])"
    return f"sum by ({by}) (max by ({', '.join(metric.labels)}) ({rising}))"


def _new_in_range(metric: Metric) -> str:
    """The same of a series that can appear with a count, which for `increase` is none: all that it has."""
    before = f"max by ({', '.join(metric.labels)}) ({_of(metric)} offset $__range)"
    risen = f"{_over_range(metric, ', '.join(metric.labels))} > 0"
    return f"({risen}) or ({_once(metric)} unless {before}) > 0"


NOT_EXECUTED = tuple(one for one in RunOutcome if one not in {*EXECUTED, RunOutcome.PREVIEWED})
UP_DOWN = (("1", "healthy", "green"), ("0", "failed", "red"))
QUORUM = (("1", "quorum", "green"), ("0", "no quorum: no writes", "red"))

PANELS = (
    Panel(
        "Cluster health overview",
        "Nodes by what most vantages say. A node that is not determined is not shown: unknown is not down.",
        (Query(f"round(avg by (cluster, node) ({_of(NODE_STATUS)}))", "{{cluster}} {{node}}"),),
        kind="state-timeline",
        names=UP_DOWN,
    ),
    Panel(
        "Quorum status",
        "Whether the healthy nodes are enough, for most vantages; if active/active, in each region.",
        (Query(f"round(avg by (cluster) ({_of(QUORUM_REACHED)}))", "{{cluster}}"),),
        kind="stat",
        width=6,
        names=QUORUM,
    ),
    Panel(
        "Healthy nodes",
        "As the vantage that sees the fewest counts them, and their share of the cluster.",
        (
            Query(f"min by (cluster) ({_of(NODES_HEALTHY)})", "{{cluster}} nodes"),
            Query(f"min by (cluster) ({_of(CLUSTER_QUORUM)})", "{{cluster}} share"),
        ),
        kind="stat",
        width=6,
    ),
    Panel(
        "Failover history",
        "Every run that has a record: failovers, maintenance and drills, by how they ended.",
        (Query(_once(RUNS), "{{cluster}} {{operation}} {{status}}"),),
        width=16,
    ),
    Panel(
        "Success and failure in this time range",
        "Failovers that were carried out: verified, not verified, and why not. Beside them those of which"
        " nothing was carried out, which fail nothing.",
        (
            Query(_over_range(SUCCESSES, "cluster"), "{{cluster}} verified"),
            Query(_new_in_range(FAILURES), "{{cluster}} {{reason}}"),
            Query(_over_range(EXECUTIONS, "cluster", EXECUTED), "{{cluster}} carried out"),
            Query(_over_range(EXECUTIONS, "cluster, status", NOT_EXECUTED), "{{cluster}} {{status}}"),
        ),
        kind="stat",
        width=8,
    ),
    Panel(
        "Execution latency",
        "What carrying out a plan took, and reading the world again.",
        (
            *_run_quantiles(EXECUTION_MS, "cluster", "{{cluster}} execution"),
            *_run_quantiles(VALIDATION_MS, "cluster", "{{cluster}} validation"),
        ),
        unit="ms",
    ),
    Panel(
        "Recovery against objective",
        "The newest verified failover, from the first missed heartbeat on, and what the policy allows.",
        (
            Query(_once(LAST_RECOVERY_MS), "{{cluster}} achieved"),
            Query(_once(RTO_OBJECTIVE_MS), "{{cluster}} objective"),
        ),
        unit="ms",
    ),
    Panel(
        "Loss against objective",
        "Log that the newest move of the service lost, by its record, and what may be lost: nothing where"
        " commits wait for a standby.",
        (
            Query(_once(LAST_LOSS), "{{cluster}} lost"),
            Query(_once(RPO_OBJECTIVE), "{{cluster}} objective"),
        ),
        unit="bytes",
    ),
    Panel(
        "Moves by loss",
        "Runs that moved the service, by what is known of their loss.",
        (Query(_once(MOVES), "{{cluster}} {{loss}}"),),
        kind="stat",
    ),
    Panel(
        "Readiness",
        "The grade of the newest evaluation: whether a failover would work.",
        (Query(_readiness(), "{{cluster}} {{grade}}"),),
        kind="stat",
        width=6,
    ),
    Panel(
        "Approvals waiting",
        "Runs that wait for people's votes now.",
        (Query(_once(APPROVALS_WAITING), "{{cluster}}"),),
        kind="stat",
        width=6,
    ),
    Panel(
        "Step durations",
        "P95 of each step of each runbook.",
        (
            Query(
                f"histogram_quantile(0.95, {_once(STEP_MS, '_bucket')})",
                "{{cluster}} {{operation}} {{step}}",
            ),
        ),
        kind="bargauge",
        unit="ms",
    ),
    Panel(
        "Heartbeat latency",
        "Until an agent answered that it lives; the specification allows 100 ms.",
        _probe_quantiles(),
        unit="ms",
    ),
    Panel(
        "Missed heartbeats in a row",
        "As the vantage with the most of them counts.",
        (Query(f"max by (cluster, node) ({_of(CONSECUTIVE_FAILURES)})", "{{cluster}} {{node}}"),),
    ),
    Panel(
        "Health check errors",
        "In a second, by type.",
        (
            Query(
                f"sum by (cluster, node, type) (rate({_of(HEALTH_CHECK_ERRORS)}[5m]))",
                "{{cluster}} {{node}} {{type}}",
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """As Grafana imports it."""
    return {
        "uid": UID,
        "title": "Continuity operations",
        "tags": ["qnwis", "continuity"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_datasource(), _cluster()]},
        "panels": _laid_out(),
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _cluster() -> dict[str, Any]:
    names = f"label_values({RTO_OBJECTIVE_MS.name}, cluster)"
    return {
        "name": "cluster",
        "label": "Cluster",
        "type": "query",
        "datasource": PROMETHEUS,
        "query": {"query": names, "refId": "clusters"},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _laid_out() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    x = y = 0
    for number, panel in enumerate(PANELS, start=1):
        if x + panel.width > WIDTH:
            x, y = 0, y + HEIGHT
        place = {"x": x, "y": y, "w": panel.width, "h": HEIGHT}
        panels.append({"id": number, "gridPos": place, **_drawn(panel)})
        x += panel.width
    return panels


def _drawn(panel: Panel) -> dict[str, Any]:
    names = {value: {"text": text, "color": color} for value, text, color in panel.names}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": PROMETHEUS,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "mappings": [{"type": "value", "options": names}] if names else [],
            },
            "overrides": [],
        },
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": PROMETHEUS,
                "expr": query.expr,
                "legendFormat": query.legend,
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def text() -> str:
    """The file's."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text())
