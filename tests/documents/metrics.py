"""`docs/reference/metrics.md`: every metric, and what the rules make of them."""

from __future__ import annotations

from pathlib import Path

import yaml

from qnwis.continuity.metrics import METRICS

from .markdown import cell, code, table

PROMETHEUS = Path(__file__).parents[2] / "prometheus"


def metrics_page() -> str:
    metrics = [
        (
            code(metric.name),
            metric.kind.value,
            ", ".join(code(label) for label in metric.labels),
            cell(metric.help),
        )
        for metric in METRICS
    ]
    buckets = [
        (code(metric.name), ", ".join(f"{bound:g}" for bound in metric.buckets))
        for metric in METRICS
        if metric.buckets
    ]
    recorded = [(code(rule["record"]), code(" ".join(rule["expr"].split()))) for rule in _rules("rules")]
    alerts = [
        (
            code(rule["alert"]),
            code(" ".join(str(rule["expr"]).split())),
            rule.get("for", "at once"),
            cell(rule.get("annotations", {}).get("summary", "")),
        )
        for rule in _rules("alerts")
    ]
    return "".join(
        [
            "# Metrics\n\n",
            "Served by a worker with `--metrics`; [Metrics, alerts and the dashboard](../howto/metrics.md)"
            " says how they are meant. Times are in milliseconds.\n\n",
            table(("metric", "kind", "labels", "meaning"), metrics),
            "## Bounds of the histograms\n\n",
            table(("metric", "upper bounds, ms"), buckets),
            "## Recording rules\n\n",
            "[`prometheus/continuity_rules.yml`](../../prometheus/continuity_rules.yml)\n\n",
            table(("series", "is"), recorded),
            "## Alert rules\n\n",
            "[`prometheus/continuity_alerts.yml`](../../prometheus/continuity_alerts.yml)\n\n",
            table(("alert", "when", "for", "says"), alerts),
        ]
    )


def _rules(name: str) -> list[dict[str, object]]:
    text = (PROMETHEUS / f"continuity_{name}.yml").read_text()
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
