"""The dashboard in the repository is what the code makes, and asks for nothing that is not measured."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from qnwis.config.registry import Registry
from qnwis.continuity.heartbeat import NodeDetector, NodeStatus
from qnwis.continuity.metrics import METRICS
from qnwis.metrics.dashboard import PANELS, dashboard, text
from qnwis.metrics.exposition import Exposition
from qnwis.metrics.readiness import ReadinessMetrics
from qnwis.metrics.runs import RunMetrics
from qnwis.metrics.watches import WatchMetrics
from qnwis.providers.nodes import Probe
from tests.integration.continuity.world import three_nodes, write_registry
from tests.unit.metrics.records import GRADED, Waits, ended, record, store_in, up_to_date
from tests.unit.metrics.series import series

PROJECT = Path(__file__).parents[3]
SPECIFIED = {
    "continuity_heartbeat_latency_ms_bucket": {"node", "le"},
    "continuity_node_status": {"node"},
    "continuity_consecutive_failures": {"node"},
    "continuity_health_check_errors": {"type"},
    "continuity_cluster_quorum": set(),
    "qnwis_failover_executions_total": {"cluster", "status"},
    "qnwis_failover_success_total": {"cluster"},
    "qnwis_failover_failures_total": {"cluster", "reason"},
    "qnwis_continuity_nodes_healthy": set(),
    "qnwis_continuity_quorum_reached": set(),
    "qnwis_failover_execution_ms_bucket": {"cluster", "status", "le"},
    "qnwis_failover_validation_ms_bucket": {"cluster", "le"},
}
"""Of the specification, "Metrics Tracked" and "Prometheus Metrics"."""


async def served_series(home: Path) -> dict[str, set[str]]:
    """By name, the labels of what a worker serves after a failover, while it watches."""
    registry, topology = Exposition(), three_nodes("c")
    await record(store_in(home), ended("run-1"))
    runs = RunMetrics(store_in(home), Registry(write_registry(home, topology)), registry)
    await asyncio.to_thread(up_to_date, runs)
    ReadinessMetrics(registry).evaluated(GRADED)
    registry.register(Waits())
    watches = WatchMetrics(registry)
    watches.asked("c", "v", "node-1", "/health/live", Probe(True, 3))
    watches.asked("c", "v", "node-1", "/health/live", Probe(False, 200, "no answer", "timeout"))
    healthy = {"node-1": NodeDetector(status=NodeStatus.HEALTHY)}
    with watches.watching(topology, "v", lambda: healthy):
        told = await asyncio.to_thread(lambda: [*series(registry)])
    return {sample.name: {*sample.labels} for sample in told}


async def test_every_metric_of_the_specification_is_served_with_its_labels(tmp_path: Path) -> None:
    served = await served_series(tmp_path)
    assert {name for name, labels in SPECIFIED.items() if not labels <= served.get(name, set())} == set()
    assert SPECIFIED.keys() <= served.keys()
    named = {re.sub("_total$", "", metric.name) for metric in METRICS}
    assert {re.sub("_(total|bucket|sum|count|created)$", "", name) for name in served} == named


async def test_every_series_of_every_query_is_one_that_a_worker_serves(tmp_path: Path) -> None:
    served = await served_series(tmp_path)
    asked = {
        name for panel in PANELS for query in panel.queries for name in re.findall(r"(\w+)\{", query.expr)
    }
    assert asked and asked <= served.keys(), asked - served.keys()


def test_the_file_is_what_the_code_makes() -> None:
    file = PROJECT / "grafana" / "dashboards" / "continuity_ops.json"
    assert file.read_text() == text(), "make dashboards"


def test_the_specifications_panels_are_there_and_none_lies_upon_another() -> None:
    panels = dashboard()["panels"]
    titles = [panel["title"] for panel in panels]
    assert {"Cluster health overview", "Quorum status", "Failover history", "Execution latency"} <= {*titles}
    assert any("Success and failure" in title for title in titles)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
