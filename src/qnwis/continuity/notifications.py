"""What people are told of a run, through which channels, and what of it was sent already.

A channel's address is a secret: it is shown nowhere, and no part of it stands in why a delivery failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self
from urllib.parse import unquote

from pydantic import Field, SecretStr, field_validator, model_validator

from .model import Identifier, Model

HIDDEN = "***"


class RunEvent(StrEnum):
    STARTED = "started"
    APPROVAL_PENDING = "approval_pending"
    HELD = "held"  # it goes on only when a person says so
    OVERRUN = "overrun"  # it still goes on after the policy's max_failover_time_s
    FAILED = "failed"  # it ended without what it was for: refused, undone, incomplete
    DONE = "done"  # it ended verified; a dry run: previewed
    REVIEW_DUE = "review_due"  # the review of an emergency override is open
    REGION_LOST = "region_lost"  # a region counts as lost, or is well again
    ACCESS_REVIEW = "access_review"  # who can do what, who did, and which rights nobody needed
    SUSPICIOUS = "suspicious"  # credentials refused, requests replayed, too many requests


class Notification(Model):
    """One thing that people are told of a run."""

    cluster_id: str
    run_id: str
    """Names the run, whatever executions it took."""
    event: RunEvent
    about: str = ""
    """Tells events of one kind in one run apart: the digest that an approval is asked for."""
    title: str
    text: str


class Channel(Model):
    """One way to reach people. The address is an apprise URL: https://github.com/caronc/apprise/wiki."""

    name: Identifier
    url: SecretStr | None = None
    url_env: str | None = Field(default=None, min_length=1)
    """Environment variable of the worker that holds the URL."""
    url_file: str | None = Field(default=None, min_length=1)
    """File on the worker's machine that holds the URL; a relative path starts at this file's folder."""
    events: tuple[RunEvent, ...] = Field(default=tuple(RunEvent), min_length=1)
    clusters: tuple[Identifier, ...] = ()
    """Empty: every cluster."""

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and "://" not in url.get_secret_value():
            raise ValueError("expected an apprise URL, for example mailtos://…, slack://… or json://…")
        return url

    @model_validator(mode="after")
    def _has_one_address(self) -> Self:
        if sum(given is not None for given in (self.url, self.url_env, self.url_file)) != 1:
            raise ValueError("expected exactly one of url, url_env and url_file")
        return self

    def wants(self, notification: Notification) -> bool:
        here = not self.clusters or notification.cluster_id in self.clusters
        return here and notification.event in self.events


class Channels(Model):
    """`notifications.yaml`."""

    channels: tuple[Channel, ...] = ()

    @field_validator("channels")
    @classmethod
    def _names_differ(cls, channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
        if len({channel.name for channel in channels}) < len(channels):
            raise ValueError("expected channels with a name of their own each")
        return channels


class Delivery(Model):
    """What became of one notification on one channel."""

    channel: str
    delivered: bool
    reason: str = ""
    """Why it was not; without any part of the channel's address."""


class Told(Model):
    """What became of one notification on every channel that wants it. The worker's log has it in any case."""

    deliveries: tuple[Delivery, ...] = ()

    @property
    def failures(self) -> tuple[Delivery, ...]:
        return tuple(one for one in self.deliveries if not one.delivered)


class SendState(StrEnum):
    BEGUN = "begun"
    DELIVERED = "delivered"
    FAILED = "failed"


class Sent(Model):
    """What is known of sending one event of one run through one channel."""

    state: SendState
    at: datetime


class Due(StrEnum):
    SEND = "send"
    DELIVERED_BEFORE = "delivered before"
    ON_ITS_WAY = "on its way"


def due(known: Sent | None, now: datetime, *, longest: timedelta) -> Due:
    """Whether to send. What was begun and not settled within `longest` was interrupted: it is sent again,
    because to be told twice is better than never."""
    if known is None or known.state is SendState.FAILED:
        return Due.SEND
    if known.state is SendState.DELIVERED:
        return Due.DELIVERED_BEFORE
    return Due.SEND if now - known.at > longest else Due.ON_ITS_WAY


def without_secrets(text: str, url: str) -> str:
    """The text without any part of the URL but its scheme; one line."""
    for part in sorted(_parts(url), key=len, reverse=True):
        found = re.escape(part)
        if len(part) < 4:  # hidden where it stands alone, so that the text stays readable
            found = rf"(?<!\w){found}(?!\w)"
        text = re.sub(found, HIDDEN, text, flags=re.IGNORECASE)
    return " ".join(text.split())


def _parts(url: str) -> set[str]:
    after = url.partition("://")[2] or url
    return {part for form in (after, unquote(after), unquote(unquote(after))) for part in _split(form)}


def _split(text: str) -> Iterable[str]:
    pieces = re.split(r"[/?&=@:;,#\s]+", text)
    return (piece for piece in (text, *pieces) if piece)


def approval_text(*, command: str, digest: str, left_s: float, until: datetime, needs: str) -> str:
    """What a person reads who may approve: what to type, how much time is left, and for which plan."""
    return (
        f"to see the plan and vote, type: qnwis-continuity {command}\n"
        f"time left: {left_s:.0f} s, until {until:%Y-%m-%d %H:%M:%S %Z}\n"
        f"needs: {needs}\n"
        f"plan: {digest}"
    )
