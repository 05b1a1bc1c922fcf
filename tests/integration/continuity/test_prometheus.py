"""A real Prometheus scrapes what workers serve, and every query of the dashboard returns data."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from qnwis.config.registry import Registry
from qnwis.continuity.heartbeat import NodeDetector, NodeStatus
from qnwis.continuity.readiness_facts import Grade, Readiness
from qnwis.continuity.run import RunOutcome
from qnwis.metrics.dashboard import PANELS
from qnwis.metrics.readiness import ReadinessMetrics
from qnwis.metrics.runs import RunMetrics
from qnwis.metrics.serving import served
from qnwis.metrics.watches import WatchMetrics
from qnwis.providers.nodes import Probe
from tests.integration.continuity.world import three_nodes, write_registry
from tests.unit.metrics.addresses import free_address
from tests.unit.metrics.records import GRADED, Waits, ended, record, store_in

PROJECT = Path(__file__).parents[3]
EXAMPLE = PROJECT / "prometheus" / "prometheus.example.yml"
TOPOLOGY = three_nodes("c")

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)"
)


class Prometheus:
    def __init__(self, address: str) -> None:
        self._url = f"http://{address}/api/v1/query?"

    def ask(self, expr: str) -> list[dict[str, Any]]:
        url = self._url + urllib.parse.urlencode({"query": expr})
        with urllib.request.urlopen(url, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def value(self, expr: str) -> float | None:
        found = self.ask(expr)
        return float(found[0]["value"][1]) if found else None

    async def until(self, true: Callable[[], bool], what: object) -> None:
        try:
            async with asyncio.timeout(60):
                while not await asyncio.to_thread(self._true, true):
                    await asyncio.sleep(0.2)
        except TimeoutError:
            pytest.fail(f"{what}")

    @staticmethod
    def _true(true: Callable[[], bool]) -> bool:
        try:
            return true()
        except OSError:
            return False  # it has not begun to listen, or does not know the answer yet


@contextmanager
def prometheus(folder: Path, targets: list[str]) -> Iterator[Prometheus]:
    """The example's configuration with the repository's rules, in a hurry."""
    config = yaml.safe_load(EXAMPLE.read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(EXAMPLE.parent / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = targets
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = free_address()
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--web.listen-address={address}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--storage.tsdb.path={folder / 'data'}"], stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield Prometheus(address)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@contextmanager
def worker(
    home: Path, seen: Mapping[str, NodeDetector], address: str, graded: Readiness
) -> Iterator[WatchMetrics]:
    """What a worker serves that watches and has the audit store."""
    registry = CollectorRegistry()
    RunMetrics(store_in(home), Registry(home), registry)
    ReadinessMetrics(registry).evaluated(graded)
    registry.register(Waits())
    watches = WatchMetrics(registry)
    with served(registry, address), watches.watching(TOPOLOGY, "here", lambda: seen):
        yield watches


def asked(expr: str) -> str:
    return expr.replace("$cluster", ".*").replace("$__range", "10m")


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
        empty: list[str] = []  # queries without data

        def all_answered() -> bool:
            empty[:] = [
                f"{panel.title}: {query.expr}"
                for panel in PANELS
                for query in panel.queries
                if not server.ask(asked(query.expr))
            ]
            return not empty

        await server.until(all_answered, empty)
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
