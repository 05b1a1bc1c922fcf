"""What a registry exposes, read as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from qnwis.metrics.exposition import Exposition


def series(exposition: Exposition) -> Iterator[Sample]:
    for family in text_string_to_metric_families(exposition.text()[0].decode()):
        yield from family.samples


def value(exposition: Exposition, name: str, labels: dict[str, str]) -> float | None:
    return next((one.value for one in series(exposition) if (one.name, one.labels) == (name, labels)), None)
