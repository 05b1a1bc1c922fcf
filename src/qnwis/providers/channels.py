"""The notifier of a process: the channels of its configuration, and what was sent by its state directory."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from qnwis.config.notifications import FILE

from .apprise_send import TIMEOUT_S, apprise_send, load_beside
from .notifier import ChannelNotifier
from .sent import SentStore

SENT = "notifications.sqlite"


def channel_notifier(config_dir: Path, state_dir: Path) -> ChannelNotifier:
    """Where there are channels, what sends is loaded at once: it is there when somebody must be told."""
    if (config_dir / FILE).exists():
        load_beside()
    sent = SentStore(state_dir / SENT, longest=timedelta(seconds=TIMEOUT_S + 1))
    return ChannelNotifier(config_dir, sent, apprise_send)
