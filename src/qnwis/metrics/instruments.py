"""From the metrics' names to prometheus-client's instruments and families."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from qnwis.continuity.metrics import Metric, Sample


def counter(metric: Metric, registry: CollectorRegistry | None = None) -> Counter:
    """A client ends a counter's name in `_total`, if it does not end so already."""
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


def under_exact_name(metric: Metric, kept: Counter) -> Iterator[Family]:
    """What a counter has counted, without the `_total` that clients add: the specification has it so."""
    family = Family(metric.name, metric.help, "unknown")
    for one in kept.collect():
        for sample in one.samples:
            if sample.name.endswith("_total"):
                family.add_sample(metric.name, sample.labels, sample.value)
    yield family


def gauges(metrics: Iterable[Metric], samples: Iterable[Sample]) -> Iterator[Family]:
    """A family for each of these gauges, empty ones too."""
    families = {
        metric.name: GaugeMetricFamily(metric.name, metric.help, labels=metric.labels) for metric in metrics
    }
    for sample in samples:
        families[sample.metric.name].add_metric(sample.labels, sample.value)
    yield from families.values()
