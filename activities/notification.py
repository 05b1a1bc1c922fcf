"""Telling people. A channel that fails never blocks a run: what became of each is the answer."""

from __future__ import annotations

from temporalio import activity

from qnwis.continuity.notifications import Notification, Told
from qnwis.providers.notifier import Notifier


class Notifications:
    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier

    @activity.defn
    async def notify(self, notification: Notification) -> Told:
        """Where to is read from the worker's own files: a run names the event, never an address."""
        return await self._notifier.send(notification)
