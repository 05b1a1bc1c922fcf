"""Alerts from outside: which cluster one is about. What follows from it is the guardian's to decide.

Form of an alert: Alertmanager's webhook, version 4. Fields that it may add are not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import AwareDatetime, ConfigDict, Field

from .model import Identifier, Model, sha256_digest
from .refusal import Refusal


class Alert(Model):
    """One alert of a webhook."""

    model_config = ConfigDict(extra="ignore")

    status: str
    """`firing` or `resolved`."""
    labels: Mapping[str, str]
    annotations: Mapping[str, str] = {}
    startsAt: AwareDatetime  # noqa: N815 (as the sender names it)
    fingerprint: str = ""

    @property
    def alert_id(self) -> str:
        """The same for the same alert, however often it is sent; another one when it fires anew."""
        about = {"labels": dict(self.labels), "starts_at": self.startsAt.isoformat()}
        return "alert-" + sha256_digest(about).removeprefix("sha256:")[:24]


class Webhook(Model):
    """What Alertmanager sends."""

    model_config = ConfigDict(extra="ignore")

    version: str = "4"
    alerts: tuple[Alert, ...] = Field(max_length=200)


class AlertRule(Model):
    """Alerts with all of these labels are about that cluster."""

    match: Mapping[str, str] = Field(min_length=1)
    cluster_id: Identifier | None = None
    cluster_label: str | None = None
    """The label whose value is the cluster_id, in place of `cluster_id`."""


class Asked(Model):
    """What came of one alert or trigger."""

    alert_id: str
    cluster_id: str | None = None
    run_id: str | None = None
    """Temporal's run id of the run that goes on by the guardian's decision."""
    decision: str
    """For people: what the guardian says, or why it was not asked."""
    values: Mapping[str, Any] = {}


def cluster_of(alert: Alert, rules: Sequence[AlertRule]) -> str | None:
    """By the first rule that matches; None where none does, or where its label is missing."""
    for rule in rules:
        if any(alert.labels.get(name) != value for name, value in rule.match.items()):
            continue
        return rule.cluster_id or alert.labels.get(rule.cluster_label or "")
    return None


def unmapped(alert: Alert) -> Refusal:
    return Refusal(
        rule="alert_not_mapped",
        message="No rule maps the alert's labels to a cluster",
        values={"labels": dict(alert.labels)},
        remedy="Add a rule under alerts: in api.yaml, or correct the alert's labels.",
    )
