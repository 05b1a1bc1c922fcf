"""What a registry exposes, read as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from qnwis.metrics.exposition import Exposition


def series(exposition: Exposition) -> Iterator[Sample]:
    text = exposition.completed(generate_latest(exposition)).decode()
    for family in text_string_to_metric_families(text):
        yield from family.samples


def value(exposition: Exposition, name: str, labels: dict[str, str]) -> float | None:
    return next((one.value for one in series(exposition) if (one.name, one.labels) == (name, labels)), None)
