"""Telling people: the log, which is always there, and the channels of `notifications.yaml`.

Each channel is served on its own and within a bounded time, so that none holds up another.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from qnwis.config.notifications import FILE, load_channels
from qnwis.config.problem import ConfigError
from qnwis.continuity.notifications import Channel, Delivery, Due, Notification, Told

from .errors import Unreachable
from .sent import SentStore

log = logging.getLogger(__name__)

Send = Callable[[str, Notification], Awaitable[None]]
"""Sends through an apprise URL within a bounded time. Raises Unreachable, with no part of the URL in its
text."""


class Notifier(Protocol):
    async def send(self, notification: Notification) -> Told:
        """Deliver to everybody who wants it, and say what became of it. Raises nothing on purpose."""
        ...


class LogNotifier:
    """Writes notifications as warnings into the worker's log."""

    async def send(self, notification: Notification) -> Told:
        where = {"cluster": notification.cluster_id, "run": notification.run_id}
        log.warning("%s: %s", notification.title, notification.text, extra=where)
        return Told()


@dataclass(frozen=True)
class ChannelNotifier:
    """The log, and every channel that wants the notification; each event of a run once on each."""

    config_dir: Path
    sent: SentStore
    deliver: Send
    log: Notifier = field(default_factory=LogNotifier)

    async def send(self, notification: Notification) -> Told:
        await self.log.send(notification)
        try:
            channels = await asyncio.to_thread(load_channels, self.config_dir / FILE)
        except ConfigError as error:
            return Told(deliveries=(Delivery(channel=FILE, delivered=False, reason=str(error)),))
        wanting = [channel for channel in channels.channels if channel.wants(notification)]
        return Told(deliveries=tuple(await asyncio.gather(*(self._once(c, notification) for c in wanting))))

    async def _once(self, channel: Channel, notification: Notification) -> Delivery:
        match await self.sent.begin(notification, channel.name):
            case Due.DELIVERED_BEFORE:
                return Delivery(channel=channel.name, delivered=True)
            case Due.ON_ITS_WAY:
                reason = "another attempt is sending it; whether it arrives is not known"
                return Delivery(channel=channel.name, delivered=False, reason=reason)
        delivery = await send_through(channel, notification, self.config_dir, self.deliver)
        await self.sent.settle(notification, delivery)
        return delivery


async def send_through(
    channel: Channel, notification: Notification, config_dir: Path, deliver: Send
) -> Delivery:
    """Send, whatever was sent before."""
    try:
        await deliver(await asyncio.to_thread(address_of, channel, config_dir), notification)
    except Unreachable as error:
        return Delivery(channel=channel.name, delivered=False, reason=str(error))
    return Delivery(channel=channel.name, delivered=True)


def address_of(channel: Channel, config_dir: Path) -> str:
    """The channel's URL, from where the file says it is. Raises Unreachable, without repeating the file: a
    secret in a wrong place is still one."""
    if channel.url is not None:
        return channel.url.get_secret_value()
    if channel.url_env is not None:
        found = os.environ.get(channel.url_env, "").strip()
        if not found:
            raise Unreachable("the environment variable that url_env names is not set here")
        return found
    assert channel.url_file is not None, "a channel has one address"
    try:
        found = (config_dir / channel.url_file).read_text().strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Unreachable(f"the file that url_file names cannot be read ({why})") from None
    if not found:
        raise Unreachable("the file that url_file names is empty")
    return found
