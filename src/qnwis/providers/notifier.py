"""Where notifications go. The log is the channel that is always there."""

from __future__ import annotations

import logging
from typing import Protocol

log = logging.getLogger(__name__)


class Notifier(Protocol):
    async def send(self, title: str, text: str, *, cluster_id: str, run_id: str) -> None:
        """Deliver one notification. Raises Unreachable when the channel does not take it."""


class LogNotifier:
    """Writes notifications as warnings into the worker's log."""

    async def send(self, title: str, text: str, *, cluster_id: str, run_id: str) -> None:
        log.warning("%s: %s", title, text, extra={"cluster": cluster_id, "run": run_id})
