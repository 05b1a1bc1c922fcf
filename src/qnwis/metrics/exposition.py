"""The text of all figures of a process, made without keeping its watches from their work.

prometheus-client needs about a tenth of a millisecond for the lines of one histogram, and nothing else of
Python runs meanwhile. A thousand clusters have ten thousand of them, and heartbeats were late by it at each
scrape (`make bench-scale` scrapes while it measures). Such a family writes its lines by itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.utils import floatToGoString

from qnwis.continuity.metrics import Metric

EOF = b"# EOF\n"
"""How OpenMetrics ends."""


class Written(Protocol):
    """A family that writes its lines by itself, as Prometheus' text format and OpenMetrics both have them."""

    def text(self) -> str: ...


class Exposition(CollectorRegistry):
    """A registry, and the families that write themselves."""

    def __init__(self) -> None:
        super().__init__()
        self._written: list[Written] = []

    def add(self, family: Written) -> None:
        self._written.append(family)

    def completed(self, body: bytes, names: Collection[str] = ()) -> bytes:
        """With what those families say, the text of all others. `names`: of these series alone, if any."""
        own = "".join(family.text() for family in self._written)
        if names:
            own = "".join(line for line in own.splitlines(keepends=True) if line.partition("{")[0] in names)
        ended = body.removesuffix(EOF)
        return ended + own.encode() + body[len(ended) :]


class Histogram:
    """How often a value fell into each bucket, by labels. Counts are taken in one thread; any may read."""

    def __init__(self, metric: Metric) -> None:
        assert '"' not in metric.help, "of the two formats one escapes it"
        self._metric = metric
        self._bounds = metric.buckets
        self._counts: dict[tuple[str, ...], list[int]] = {}
        """By the values of the labels, in the metric's order; the last is of what is beyond every bound."""
        self._sums: dict[tuple[str, ...], float] = {}

    def begin(self, *labels: str) -> list[int]:
        """Have it there, if nothing was observed yet too. The counts by bucket."""
        if labels not in self._counts:
            self._sums[labels] = 0.0
            self._counts[labels] = [0] * (len(self._bounds) + 1)
        return self._counts[labels]

    def observe(self, labels: tuple[str, ...], value: float) -> None:
        self.begin(*labels)[bisect_left(self._bounds, value)] += 1
        self._sums[labels] += value

    def text(self) -> str:
        name, lines = self._metric.name, _lines(self._metric.name, self._bounds)
        told = [f"# HELP {name} {_escaped(self._metric.help)}\n# TYPE {name} histogram\n"]
        for labels, counts in self._counts.copy().items():
            named = ",".join(
                f'{label}="{_escaped_value(value)}"'
                for label, value in zip(self._metric.labels, labels, strict=True)
            )
            *up_to, total = accumulate(counts)
            of_these = lines.replace("{}", named.replace("%", "%%"))
            told.append(of_these % (*up_to, total, total, self._sums[labels]))
        return "".join(told)


def _lines(name: str, bounds: Sequence[float]) -> str:
    """Of one set of labels, which take the place of `{}`."""
    buckets = [*map(floatToGoString, bounds), "+Inf"]
    return (
        "".join(f'{name}_bucket{{{{}},le="{bound}"}} %d\n' for bound in buckets)
        + f"{name}_count{{{{}}}} %d\n{name}_sum{{{{}}}} %r\n"
    )


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _escaped_value(value: str) -> str:
    return _escaped(value).replace('"', r"\"")
