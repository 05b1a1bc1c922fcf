"""Sends one message through apprise, within a bounded time, and lets no part of the address out.

apprise blocks, so it works in a thread of its own; one that hangs is left behind and ends with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from functools import cache

from qnwis.continuity.notifications import Notification, RunEvent, without_secrets

from .errors import Unreachable

TIMEOUT_S = 4.0
"""How long a channel may take in all, seconds."""

TYPES = {  # apprise's words
    RunEvent.STARTED: "info",
    RunEvent.APPROVAL_PENDING: "warning",
    RunEvent.HELD: "warning",
    RunEvent.OVERRUN: "warning",
    RunEvent.FAILED: "failure",
    RunEvent.DONE: "success",
    RunEvent.REVIEW_DUE: "warning",
    RunEvent.REGION_LOST: "failure",
    RunEvent.ACCESS_REVIEW: "info",
    RunEvent.SUSPICIOUS: "warning",
}


@cache
def load() -> None:
    """Load apprise and its plugins: near a second of work, which commands that tell nobody need not do."""
    logger = logging.getLogger("apprise")
    logger.disabled = True  # its import makes a logger anew, without the filter
    import apprise

    apprise.Apprise.instantiate("json://localhost")
    _keep_quiet()
    logger.disabled = False


def load_beside() -> None:
    """Have it loaded before somebody must be told."""
    threading.Thread(target=load, name="apprise", daemon=True).start()


async def apprise_send(url: str, notification: Notification, *, timeout_s: float = TIMEOUT_S) -> None:
    """Raises Unreachable when the channel does not take it, or not in time."""
    await asyncio.to_thread(load)
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str | None] = loop.create_future()

    def settle(reason: str | None) -> None:
        if not answer.done():
            answer.set_result(reason)

    def work() -> None:
        reason = _send(url, notification, timeout_s)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, reason)

    threading.Thread(target=work, name="notification", daemon=True).start()
    try:
        async with asyncio.timeout(timeout_s):
            reason = await answer
    except TimeoutError:
        raise Unreachable(f"no answer within {timeout_s:g} s; it may still arrive") from None
    if reason is not None:
        raise Unreachable(reason)


def _send(url: str, notification: Notification, timeout_s: float) -> str | None:
    """Why it was not delivered; None if it was."""
    import apprise

    _keep_quiet()
    _here.warnings = warnings = list[str]()
    try:
        service = apprise.Apprise.instantiate(url)
        if service is None:
            return "its address is no apprise URL that can be used here"
        service.socket_connect_timeout = service.socket_read_timeout = timeout_s
        # Not by way of apprise's pool of threads, which channels that hang would use up.
        if service.notify(
            title=notification.title,
            body=notification.text,
            notify_type=TYPES[notification.event],
            body_format=apprise.NotifyFormat.TEXT,
        ):
            return None
        return without_secrets("; ".join(warnings), url) or "apprise does not say why"
    except Exception as error:  # of any of a hundred plugins; its text may hold the address
        return f"apprise failed ({type(error).__name__})"


_here = threading.local()


def _keep_reason(record: logging.LogRecord) -> bool:
    """Keep a warning as the reason of its thread's failure. No line gets into the worker's log: it may hold
    the address."""
    warnings: list[str] | None = getattr(_here, "warnings", None)
    if warnings is not None:
        warnings.append(record.getMessage())
    return False


def _keep_quiet() -> None:
    apprises = logging.getLogger("apprise")
    apprises.setLevel(logging.WARNING)
    apprises.addFilter(_keep_reason)  # once: a filter that is there is not added again
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
