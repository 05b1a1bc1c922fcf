"""Automatic failover by API: an alert, or a plain trigger, has the guardian look now; its rules decide."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Response
from pydantic import Field

from qnwis.continuity.alerts import Alert, Asked, Webhook, cluster_of, unmapped
from qnwis.continuity.identity import Permission
from qnwis.continuity.model import Identifier, Model
from qnwis.providers.errors import Refused
from qnwis.providers.request_store import Begun
from qnwis.starting import ask_guardian
from workflows.guardian_state import AlertAnswer, AlertRequest

from .asking import Asking, acts, answer, reads
from .bodies import example
from .texts import WholeCharacters

router = APIRouter(route_class=WholeCharacters)

ASK_EVERY_S = 10.0
"""A flood of alerts about one cluster must not make its guardian's history long."""

FIRING = {
    "version": "4",
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "PostgresDown", "cluster": "prod-cluster"},
            "annotations": {"summary": "node-1 takes no writes"},
            "startsAt": "2026-01-01T00:00:00Z",
        }
    ],
}


class Answered(Model):
    request_id: str
    alerts: tuple[Asked, ...]


class TriggerBody(Model):
    model_config = example(cluster_id="prod-cluster", reason="the shop reports failing writes")

    cluster_id: Identifier
    reason: Annotated[str, Field(min_length=1, max_length=1000)]


class Triggered(Model):
    request_id: str
    asked: Asked


@router.post("/alerts", response_model=Answered)
async def alerts(
    body: Annotated[Webhook, Body(examples=[FIRING])], asking: Asking = reads(Permission.TRIGGER)
) -> Response:
    """Alertmanager's webhook. It can send no nonce; each alert counts once by its labels and its start, and
    all that it does is have the guardian look. One that cannot be asked about now is asked about when it is
    sent again."""
    return answer(
        Answered(
            request_id=asking.request_id, alerts=tuple([await _alert(one, asking) for one in body.alerts])
        )
    )


async def _alert(alert: Alert, asking: Asking) -> Asked:
    cluster_id = cluster_of(alert, asking.parts.settings.alerts)
    if alert.status != "firing":
        return Asked(alert_id=alert.alert_id, cluster_id=cluster_id, decision="not asked: it is over")
    if cluster_id is None:
        refusal = unmapped(alert)
        return Asked(alert_id=alert.alert_id, decision=str(refusal), values=refusal.values)
    store = asking.parts.store
    before = await store.alert_begins(alert.alert_id, asking.parts.now())
    if before:
        return Asked.model_validate_json(before)
    if before is not None:
        return Asked(alert_id=alert.alert_id, cluster_id=cluster_id, decision="being asked about already")
    kept: str | None = None
    try:
        what = alert.annotations.get("summary") or alert.labels.get("alertname") or "an alert"
        asked = await _ask(cluster_id, alert.alert_id, what[:1000], asking)
        if asked is None:
            return _asked_lately(cluster_id, alert.alert_id)  # about another alert: this one may come again
        kept = asked.model_dump_json()
        return asked
    except Refused as refused:
        return Asked(
            alert_id=alert.alert_id,
            cluster_id=cluster_id,
            decision=str(refused.refusal),
            values=refused.refusal.values,
        )
    finally:
        await store.alert_ends(alert.alert_id, kept)


@router.post("/trigger", response_model=Triggered)
async def trigger(body: TriggerBody, asking: Asking = acts(Permission.TRIGGER)) -> Response:
    """Have the guardian look now, and fail over if its rules say so; its answer."""

    async def ask(_: Begun) -> Response:
        asked = await _ask(body.cluster_id, asking.request_id, body.reason, asking)
        told = asked or _asked_lately(body.cluster_id, asking.request_id)
        return answer(Triggered(request_id=asking.request_id, asked=told))

    return await asking.once(ask)


async def _ask(cluster_id: str, alert_id: str, reason: str, asking: Asking) -> Asked | None:
    """What the guardian says; None where it was asked within the last `ASK_EVERY_S`. Raises Refused for an
    unknown cluster, and where no guardian watches it."""
    asking.parts.registered(cluster_id)
    store, now = asking.parts.store, asking.parts.now()
    if not await store.may_ask(cluster_id, now, every_s=ASK_EVERY_S):
        return None
    request = AlertRequest(alert_id=alert_id, by=asking.who.name, reason=reason)
    try:
        said = await ask_guardian(asking.parts.client, cluster_id, request)
    except BaseException:
        await store.may_ask_again(cluster_id, now, every_s=ASK_EVERY_S)
        raise
    return Asked(
        alert_id=alert_id,
        cluster_id=cluster_id,
        run_id=said.run_id,
        decision=in_words(said),
        values={"primary_node_id": said.primary_node_id, "finding": said.finding},
    )


def _asked_lately(cluster_id: str, alert_id: str) -> Asked:
    lately = f"the guardian was asked within the last {ASK_EVERY_S:.0f} s, and goes on watching by itself"
    return Asked(alert_id=alert_id, cluster_id=cluster_id, decision=lately)


def in_words(said: AlertAnswer) -> str:
    """What the guardian decided, for people."""
    if said.run_id is not None:
        return f"run {said.run_id} goes on: {said.primary_node_id} {said.finding}, {said.why}"
    if said.holding is not None:
        return f"not acting: {said.holding}"
    return (
        f"nothing to do: {said.primary_node_id or 'the primary'} is {said.finding or 'unknown'}, {said.why}"
    )
