"""Dashboards and rules: the files are what the code makes, and ask for nothing that is not measured."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from qnwis.continuity.metrics import METRICS, Kind
from qnwis.metrics.dashboard import text

from .found import Found, Measured, found, repository

NAME = "dashboards"
HOLDS = (
    "grafana/dashboards/continuity_ops.json is what the code makes and has the specification's panels; it and"
    " the rules in prometheus/ ask only for what is measured"
)
DASHBOARD = Path("grafana") / "dashboards" / "continuity_ops.json"
RULES = ("prometheus/continuity_rules.yml", "prometheus/continuity_alerts.yml")
PANELS = (
    "Cluster health overview",
    "Quorum status",
    "Failover history",
    "Execution latency",
    "Success and failure",
)


def check(top: Path | None = None) -> Found:
    top = top or repository()
    misses = [*_dashboard(top / DASHBOARD)]
    recorded, asked = set[str](), dict[str, set[str]]()
    for name in RULES:
        for rule in _rules(top / name):
            if "record" in rule:
                recorded.add(rule["record"])
            asked.setdefault(name, set()).update(_series(str(rule["expr"])))
    known = _measured() | recorded
    for name, series in asked.items():
        misses += [f"{name} asks for {one}, which is not measured" for one in sorted(series - known)]
    rules = sum(len(_rules(top / name)) for name in RULES)
    return found(NAME, HOLDS, misses, [Measured(what="rules", value=rules)])


def _dashboard(path: Path) -> Iterator[str]:
    if not path.exists():
        yield f"{path} is not there"
        return
    if path.read_text() != text():
        yield f"{path.name} is not what the code makes, expected `make dashboards` to change nothing"
    panels = json.loads(path.read_text())["panels"]
    titles = [str(panel["title"]) for panel in panels]
    for expected in PANELS:
        if not any(expected in title for title in titles):
            yield f"{path.name} has no panel {expected!r}"
    asked = {
        series
        for panel in panels
        for target in panel.get("targets", ())
        for series in _series(str(target.get("expr", "")))
    }
    if not asked:
        yield f"{path.name} asks for nothing"
    yield from (f"{path.name} asks for {one}, which is not measured" for one in sorted(asked - _measured()))


def _measured() -> set[str]:
    """Every series that the metrics have."""
    names = {metric.name for metric in METRICS}
    for metric in METRICS:
        if metric.kind is Kind.HISTOGRAM:
            names |= {f"{metric.name}_{suffix}" for suffix in ("bucket", "sum", "count")}
        if metric.kind is Kind.COUNTER and not metric.name.endswith("_total"):
            names.add(f"{metric.name}_total")
    return names


def _series(expression: str) -> set[str]:
    """What an expression asks for; names in quotes are labels' values, those with a colon are recorded."""
    unquoted = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"(?<![\w:])(?:qnwis_|continuity_)\w+(?![\w:])", unquoted))


def _rules(path: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
