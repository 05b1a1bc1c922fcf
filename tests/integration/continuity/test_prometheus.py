"""A real Prometheus scrapes what workers serve, and every query of the dashboard returns data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from qnwis.config.registry import Registry
from qnwis.continuity.heartbeat import NodeDetector, NodeStatus
from qnwis.continuity.readiness_facts import Grade, Readiness
from qnwis.continuity.run import RunOutcome
from qnwis.metrics.dashboard import PANELS
from qnwis.metrics.exposition import Exposition
from qnwis.metrics.readiness import ReadinessMetrics
from qnwis.metrics.runs import RunMetrics
from qnwis.metrics.serving import served
from qnwis.metrics.watches import WatchMetrics
from qnwis.providers.nodes import Probe
from tests.integration.continuity.scraping import asked, needs_prometheus, prometheus
from tests.integration.continuity.world import three_nodes, write_registry
from tests.unit.metrics.addresses import free_address
from tests.unit.metrics.records import GRADED, Waits, ended, record, store_in

TOPOLOGY = three_nodes("c")

pytestmark = needs_prometheus


@contextmanager
def worker(
    home: Path, seen: Mapping[str, NodeDetector], address: str, graded: Readiness
) -> Iterator[WatchMetrics]:
    """What a worker serves that watches and has the audit store."""
    registry = Exposition()
    RunMetrics(store_in(home), Registry(home), registry)
    ReadinessMetrics(registry).evaluated(graded)
    registry.register(Waits())
    watches = WatchMetrics(registry)
    with served(registry, address), watches.watching(TOPOLOGY, "here", lambda: seen):
        yield watches


def beat(watches: WatchMetrics) -> None:
    watches.asked("c", "here", "node-1", "/health/live", Probe(True, 3))
    watches.asked("c", "here", "node-1", "/health/live", Probe(False, 200, "no answer", "timeout"))


async def test_every_query_of_the_dashboard_returns_data_and_two_workers_are_one_count(
    tmp_path: Path,
) -> None:
    home = write_registry(tmp_path, TOPOLOGY)
    healthy = {node.node_id: NodeDetector(status=NodeStatus.HEALTHY) for node in TOPOLOGY.nodes}
    newer = GRADED.model_copy(
        update={"grade": Grade.NOT_READY, "evaluated_at": GRADED.evaluated_at + timedelta(hours=1)}
    )
    one, other = free_address(), free_address()
    with (
        worker(home, healthy, one, GRADED) as watches,
        worker(home, healthy, other, newer),
        prometheus(tmp_path, [one, other]) as server,
    ):
        executions = 'qnwis_failover_executions_total{status="completed"}'
        beat(watches)
        await server.until(lambda: len(server.ask(f"{executions} == 0")) == 2, "no counter was seen at 0")
        beat(watches)
        await record(store_in(home), ended("run-1"))
        await record(store_in(home), ended("run-2", RunOutcome.ROLLED_BACK))
        await server.until_the_dashboard_has_data()
        await server.until(
            lambda: len(server.ask(f"{executions} == 1")) == 2, "a worker does not count the run"
        )
        assert server.value(f"max by (cluster) ({executions})") == 1
        await server.until(
            lambda: server.value('ALERTS{alertname="ContinuityFailoverNotVerified"}') == 1,
            "a failover that was rolled back raised no alert",
        )
        (grade,) = [query.expr for panel in PANELS if panel.title == "Readiness" for query in panel.queries]
        assert [found["metric"]["grade"] for found in server.ask(asked(grade))] == ["not_ready"]
        assert server.value("cluster:qnwis_continuity_quorum_reached:majority") == 1
