"""Telling people. A channel that fails never blocks a run."""

from __future__ import annotations

from temporalio import activity

from qnwis.continuity.model import Model
from qnwis.providers.notifier import Notifier


class Notification(Model):
    cluster_id: str
    run_id: str
    title: str
    text: str


class Notifications:
    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier

    @activity.defn
    async def notify(self, notification: Notification) -> None:
        await self._notifier.send(
            notification.title,
            notification.text,
            cluster_id=notification.cluster_id,
            run_id=notification.run_id,
        )
