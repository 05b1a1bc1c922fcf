"""What the vantages of this process see: each health question counted, each watch read when scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from qnwis.continuity.heartbeat import NodeDetector
from qnwis.continuity.metrics import (
    CLUSTER_QUORUM,
    CONSECUTIVE_FAILURES,
    HEALTH_CHECK_ERRORS,
    HEARTBEAT_LATENCY,
    NODE_STATUS,
    NODES_HEALTHY,
    QUORUM_REACHED,
    Sample,
    watch_samples,
)
from qnwis.continuity.topology import Cluster
from qnwis.providers.nodes import Probe
from qnwis.providers.probe_errors import UNREACHABLE

from .exposition import Exposition, Histogram
from .instruments import counter, gauges, under_exact_name

GAUGES = (NODE_STATUS, CONSECUTIVE_FAILURES, CLUSTER_QUORUM, NODES_HEALTHY, QUORUM_REACHED)
LIVE = "/health/live"
"""The question that is a heartbeat."""
Seen = Callable[[], Mapping[str, NodeDetector]]
"""A watch's detectors as they are now, by node."""


class WatchMetrics(Collector):
    """Of every watch of this process. A watch that ended has no gauges any more: nobody looks."""

    def __init__(self, exposition: Exposition) -> None:
        self._latency = Histogram(HEARTBEAT_LATENCY)
        self._errors = counter(HEALTH_CHECK_ERRORS)
        self._watches: dict[tuple[str, str], tuple[Cluster, Seen]] = {}
        exposition.add(self._latency)
        exposition.register(self)

    @contextmanager
    def watching(self, cluster: Cluster, vantage: str, seen: Seen) -> Iterator[None]:
        """For as long as a watch goes on."""
        key, watch = (cluster.cluster_id, vantage), (cluster, seen)
        self._watches[key] = watch
        try:
            yield
        finally:
            # The next watch of the same cluster may have begun already.
            if self._watches.get(key) is watch:
                del self._watches[key]

    def asked(self, cluster_id: str, vantage: str, node_id: str, path: str, probe: Probe) -> None:
        """One health question has ended."""
        if not probe.ok:
            self._errors.labels(cluster_id, vantage, node_id, probe.error_type or UNREACHABLE).inc()
        elif path == LIVE:
            self._latency.observe((cluster_id, vantage, node_id), probe.latency_ms)

    def collect(self) -> Iterator[Family]:
        yield from gauges(GAUGES, self._samples())
        yield from under_exact_name(HEALTH_CHECK_ERRORS, self._errors)

    def _samples(self) -> Iterator[Sample]:
        watches = dict(self._watches)
        watched: dict[str, set[str]] = {}
        for cluster_id, vantage in watches:
            watched.setdefault(vantage, set()).add(cluster_id)
        for (_, vantage), (cluster, seen) in watches.items():
            yield from watch_samples(cluster, vantage, seen(), apart=watched[vantage])
