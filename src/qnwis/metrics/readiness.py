"""What evaluations of readiness came to, for as long as this process lives: the newest of each cluster."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from qnwis.continuity.metrics import READINESS, READINESS_EVALUATED, readiness_samples
from qnwis.continuity.readiness_facts import Readiness

from .instruments import gauges


class ReadinessMetrics(Collector):
    """Of the evaluations that were made here; of several workers' take the one with the newest time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._newest: dict[str, Readiness] = {}
        registry.register(self)

    def evaluated(self, readiness: Readiness) -> None:
        self._newest[readiness.cluster_id] = readiness

    def collect(self) -> Iterator[Family]:
        newest = [*self._newest.values()]
        samples = (sample for readiness in newest for sample in readiness_samples(readiness))
        yield from gauges((READINESS, READINESS_EVALUATED), samples)
