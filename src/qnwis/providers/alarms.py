"""Telling people that somebody tries what they may not: beside the request, which waits for no channel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic, time

from qnwis.continuity.notifications import Notification, RunEvent
from qnwis.continuity.suspicions import OF_RULE, Alarm, AlarmLimits, Suspicion, Watched, after

from .notifier import LogNotifier, Notifier

log = logging.getLogger(__name__)


class Alarms:
    """Of one process. Processes that share what was sent tell people once together."""

    def __init__(
        self,
        notifier: Notifier | None = None,
        limits: AlarmLimits | None = None,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._notifier = notifier or LogNotifier()
        self._limits = limits or AlarmLimits()
        self._clock = clock
        self._watched: dict[Suspicion, Watched] = {}
        self._sending: set[asyncio.Task[None]] = set()

    def saw(self, rule: str, source: str) -> None:
        """A request was refused by that rule. Raises nothing, and waits for nothing."""
        kind = OF_RULE.get(rule)
        if kind is None:
            return
        before = self._watched.get(kind, Watched())
        self._watched[kind], alarm = after(before, kind, source, self._limits, self._clock())
        if alarm is not None:
            task = asyncio.get_running_loop().create_task(self._tell(alarm))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def settled(self) -> None:
        """When everything that was begun is sent, or could not be."""
        await asyncio.gather(*self._sending)

    async def _tell(self, alarm: Alarm) -> None:
        window = int(time() // self._limits.window_s)
        notification = Notification(
            cluster_id="api",
            run_id=f"alarm-{alarm.kind.value}",
            event=RunEvent.SUSPICIOUS,
            about=str(window),  # the other processes of this API tell of the same
            title=alarm.title,
            text=alarm.text,
        )
        try:
            told = await self._notifier.send(notification)
        except Exception:
            log.exception("nobody was told: %s", alarm.title)
            return
        for failure in told.failures:
            log.warning("%s was not told: %s", failure.channel, failure.reason)
