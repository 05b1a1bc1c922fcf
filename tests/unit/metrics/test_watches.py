"""What a vantage sees, as metrics."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from temporalio.testing import ActivityEnvironment

from activities.health import Health, WatchRequest
from qnwis.config.registry import Registry
from qnwis.continuity.heartbeat import NodeDetector, NodeStatus
from qnwis.continuity.metrics import (
    CLUSTER_QUORUM,
    CONSECUTIVE_FAILURES,
    NODE_STATUS,
    NODES_HEALTHY,
    QUORUM_REACHED,
    watch_samples,
)
from qnwis.continuity.topology import Node
from qnwis.metrics.exposition import Exposition
from qnwis.metrics.watches import WatchMetrics
from qnwis.providers.nodes import Probe
from tests.integration.continuity.world import three_nodes, write_registry
from tests.unit.continuity.test_region_groups import SHOP
from tests.unit.metrics.series import series, value
from tests.unit.test_watch import Played

THREE = three_nodes("c")
DETECTORS = st.builds(
    NodeDetector, status=st.sampled_from(NodeStatus), consecutive_misses=st.integers(min_value=0)
)


@given(st.tuples(DETECTORS, DETECTORS, DETECTORS))
def test_unknown_has_no_status_and_counts_for_no_quorum(detectors: tuple[NodeDetector, ...]) -> None:
    seen = dict(zip(["node-1", "node-2", "node-3"], detectors, strict=True))
    values = {(metric, labels): value for metric, labels, value in watch_samples(THREE, "v", seen)}
    for node_id, detector in seen.items():
        status = values.get((NODE_STATUS, ("c", "v", node_id)))
        up = {NodeStatus.UNKNOWN: None, NodeStatus.HEALTHY: 1}
        assert status == up.get(detector.status, 0)
        assert values[CONSECUTIVE_FAILURES, ("c", "v", node_id)] == detector.consecutive_misses
    healthy = [d.status for d in detectors].count(NodeStatus.HEALTHY)
    assert values[NODES_HEALTHY, ("c", "v")] == healthy
    assert values[CLUSTER_QUORUM, ("c", "v")] == healthy / 3
    assert values[QUORUM_REACHED, ("c", "v")] == (healthy >= 2)


def healthy_but(*region: str) -> dict[str, NodeDetector]:
    """Of SHOP, where these regions are away."""
    return {
        node.node_id: NodeDetector(
            status=NodeStatus.FAILED if node.region in region else NodeStatus.HEALTHY,
        )
        for node in SHOP.nodes
    }


def test_of_an_active_active_cluster_each_region_has_its_quorum_and_the_whole_has_none() -> None:
    seen = [*watch_samples(SHOP, "v", healthy_but("eu"))]
    of = {metric: {labels[0]: value for m, labels, value in seen if m is metric} for metric, _, _ in seen}
    assert of[QUORUM_REACHED] == {"prod-eu": 0, "prod-us": 1}
    assert of[NODES_HEALTHY] == {"prod": 3, "prod-eu": 0, "prod-us": 3}
    assert of[CLUSTER_QUORUM] == {"prod": 0.5, "prod-eu": 0, "prod-us": 1}
    assert {*of[NODE_STATUS]} == {*of[CONSECUTIVE_FAILURES]} == {"prod"}, "a node is told of once"


def test_a_region_that_is_watched_for_itself_too_is_told_of_once() -> None:
    registry = Exposition()
    watches = WatchMetrics(registry)
    eu = SHOP.lease_group("eu")
    own = {node.node_id: NodeDetector(status=NodeStatus.HEALTHY) for node in eu.nodes}

    def quorums() -> list[tuple[str, str, float]]:
        """Each sample's cluster and vantage, and its value."""
        return sorted(
            (one.labels["cluster"], one.labels["vantage"], one.value)
            for one in series(registry)
            if one.name == "qnwis_continuity_quorum_reached"
        )

    with watches.watching(SHOP, "v", lambda: healthy_but("eu")):
        with watches.watching(eu, "v", lambda: own), watches.watching(eu, "w", lambda: own):
            assert quorums() == [("prod-eu", "v", 1), ("prod-eu", "w", 1), ("prod-us", "v", 1)]
        assert quorums() == [("prod-eu", "v", 0), ("prod-us", "v", 1)]


class Slow(Played):
    """node-1 does not answer in time."""

    async def probe(self, node: Node, path: str, *, timeout_s: float) -> Probe:
        probe = await super().probe(node, path, timeout_s=timeout_s)
        return probe if probe.ok else Probe(False, 200, "no answer", "timeout")


async def test_a_watch_is_seen_while_it_goes_on_and_not_after_it(tmp_path: Path) -> None:
    nodes, registry = Slow(), Exposition()
    topology = three_nodes("c", heartbeat={"interval_sec": 0.02, "timeout_sec": 0.2, "failure_threshold": 3})
    home = Registry(write_registry(tmp_path, topology))
    health = Health(home, nodes, WatchMetrics(registry))  # type: ignore[arg-type]

    def said(name: str, node: str = "node-1", **labels: str) -> float | None:
        whose = {"node": node} if node else {}
        return value(registry, name, {"cluster": "c", "vantage": "here", **whose, **labels})

    async def watch(request: WatchRequest) -> None:
        await ActivityEnvironment().run(health.watch, request)

    first = await ActivityEnvironment().run(health.watch, WatchRequest(cluster_id="c", vantage="here"))
    answered = said("continuity_heartbeat_latency_ms_count")
    assert answered is not None and answered >= 1
    assert said("continuity_health_check_errors", type="timeout") is None
    going_on = asyncio.create_task(watch(WatchRequest(cluster_id="c", vantage="here", votes=first.votes)))
    async with asyncio.timeout(20):
        while said("continuity_node_status") != 1 or said("continuity_node_status", "node-3") != 1:
            await asyncio.sleep(0.01)
    assert said("continuity_cluster_quorum", "") == 1.0
    assert said("qnwis_continuity_nodes_healthy", "") == 3
    nodes.silent = True
    async with asyncio.timeout(20):
        await going_on  # it reports that node-1 is failed
    assert (said("continuity_health_check_errors", type="timeout") or 0) >= 3
    assert said("continuity_node_status") is None, "nobody looks any more"
