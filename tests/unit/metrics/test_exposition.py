"""The histogram that writes its own lines says what prometheus-client's says, in both formats."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter
from prometheus_client import Histogram as Theirs
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from qnwis.continuity.metrics import HEARTBEAT_LATENCY, Kind, Metric
from qnwis.metrics.exposition import Exposition, Histogram

ACCEPTS = {
    None: plain,
    "text/plain;version=0.0.4": plain,
    "application/openmetrics-text;version=1.0.0,text/plain;q=0.5": openmetrics,
}
METRIC = Metric("took_ms", Kind.HISTOGRAM, "How long \\ it\ntook, in %", ("of", "by"), (0.5, 1.0, 2500.0))
VALUES = st.floats(0, 10_000) | st.sampled_from([0.5, 1.0, 2500.0])
SAID = st.lists(st.tuples(st.sampled_from(["a", 'b"', "c\\", "d\ne", "%s", "{}", "ü,"]), VALUES), max_size=20)


def read(text: bytes, parse: Any) -> list[tuple[Any, ...]]:
    return sorted(
        (family.name, family.type, family.documentation, one.name, sorted(one.labels.items()), one.value)
        for family in parse(text.decode())
        for one in family.samples
        if not one.name.endswith("_created")
    )


@given(SAID, st.sampled_from([*ACCEPTS]))
def test_whatever_is_observed_it_says_the_same_as_the_library(
    said: list[tuple[str, float]], accept: str | None
) -> None:
    theirs, ours, own = CollectorRegistry(), Exposition(), Histogram(METRIC)
    reference = Theirs(METRIC.name, METRIC.help, METRIC.labels, buckets=METRIC.buckets, registry=theirs)
    for registry in (theirs, ours):
        Counter("seen", "…", registry=registry).inc()
    ours.add(own)
    for name, value in said:
        reference.labels(name, "x").observe(value)
        own.observe((name, "x"), value)
    encode, _ = choose_encoder(accept or "")
    assert read(ours.completed(encode(ours)), ACCEPTS[accept]) == read(encode(theirs), ACCEPTS[accept])


@pytest.mark.parametrize(("suffix", "lines"), [("_bucket", 13), ("_sum", 1), ("", 0), ("_other", 0)])
def test_of_the_series_that_are_asked_for_it_says_those(suffix: str, lines: int) -> None:
    exposition, own = Exposition(), Histogram(HEARTBEAT_LATENCY)
    exposition.add(own)
    own.observe(("c", "v", "n"), 3)
    told = exposition.completed(b"", [HEARTBEAT_LATENCY.name + suffix]).decode().splitlines()
    assert len(told) == lines and all(line.startswith(HEARTBEAT_LATENCY.name + suffix) for line in told)
