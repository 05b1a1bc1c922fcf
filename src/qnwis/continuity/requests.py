"""What a request that acts must show besides who sends it: that it is fresh, and not one of too many.

Pure: the time comes as a value; what was seen before is remembered elsewhere (`providers/request_store.py`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from .model import Model
from .refusal import Refusal

TIMESTAMP = "X-Request-Timestamp"
NONCE = "X-Request-Nonce"
KEY = "Idempotency-Key"
NONCE_FORM = re.compile(r"[A-Za-z0-9_.~-]{16,128}")
KEY_FORM = re.compile(r"[\x21-\x7e]{8,128}")
TIME_FORM = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")

_moment: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)


class Limits(Model):
    """How much one identity may ask, and how far its clock may be off."""

    clock_skew_s: float = Field(default=60.0, gt=0, le=300)
    """A request that is older, or further ahead, is refused."""
    per_minute: float = Field(default=120.0, gt=0)
    """Requests of one identity in the long run."""
    burst: int = Field(default=60, ge=1)
    """Requests of one identity at once."""


def fresh(timestamp: str | None, nonce: str | None, limits: Limits, now: datetime) -> Refusal | None:
    """Why the request does not count as sent now, by its headers alone."""
    if timestamp is None or nonce is None:
        missing = TIMESTAMP if timestamp is None else NONCE
        return _refused("freshness_missing", f"{missing} is missing", {"header": missing})
    if NONCE_FORM.fullmatch(nonce) is None:
        return _refused("nonce_malformed", f"{NONCE} is not of the form {NONCE_FORM.pattern}", {})
    sent_at = moment(timestamp)
    if sent_at is None:
        return _refused("timestamp_malformed", f"{TIMESTAMP} is no RFC 3339 time with a zone", {})
    off_s = (now - sent_at).total_seconds()
    if abs(off_s) <= limits.clock_skew_s:
        return None
    direction = "old" if off_s > 0 else "ahead"
    return _refused(
        "request_stale",
        f"The request is {abs(off_s):.0f} s {direction}; at most {limits.clock_skew_s:g} s are let pass",
        {"now": now.isoformat(), "sent_at": sent_at.isoformat(), "clock_skew_s": limits.clock_skew_s},
    )


def moment(text: str) -> datetime | None:
    """An RFC 3339 time, in UTC."""
    if TIME_FORM.fullmatch(text) is None:
        return None
    try:
        return _moment.validate_json(f'"{text}"').astimezone(UTC)
    except (ValidationError, OverflowError):
        return None


def replayed(nonce: str) -> Refusal:
    return _refused("request_replayed", f"A request with this {NONCE} was taken before", {"nonce": nonce})


def key_refusal(key: str | None) -> Refusal | None:
    """Why an Idempotency-Key is none."""
    if key is not None and KEY_FORM.fullmatch(key) is not None:
        return None
    what = "is missing" if key is None else f"is not of the form {KEY_FORM.pattern}"
    return Refusal(
        rule="idempotency_key_missing" if key is None else "idempotency_key_malformed",
        message=f"{KEY} {what}",
        values={"header": KEY},
        remedy="Give each deed a key of its own, and the same key when it is sent again.",
    )


def another_body(key: str) -> Refusal:
    return Refusal(
        rule="idempotency_key_reused",
        message=f"{KEY} {key} came before with another request",
        values={"key": key},
        remedy="Take a new key for another deed.",
    )


def still_answering(key: str) -> Refusal:
    return Refusal(
        rule="request_in_progress",
        message=f"The request with {KEY} {key} has no answer yet",
        values={"key": key},
        remedy="Send it again in a while; it is carried out once.",
    )


class Bucket(Model):
    """What is left for one identity to ask, as of a moment."""

    tokens: float
    at_s: float
    """Of a clock that only goes forward."""


def take(bucket: Bucket | None, limits: Limits, now_s: float) -> tuple[Bucket, float]:
    """The bucket after one more request, and how long to wait where it was empty (0: the request passes)."""
    rate = limits.per_minute / 60
    before = bucket or Bucket(tokens=float(limits.burst), at_s=now_s)
    passed_s = max(0.0, now_s - before.at_s)
    tokens = min(float(limits.burst), before.tokens + passed_s * rate)
    if tokens < 1:
        return Bucket(tokens=tokens, at_s=now_s), (1 - tokens) / rate
    return Bucket(tokens=tokens - 1, at_s=now_s), 0.0


def too_many(name: str, limits: Limits, wait_s: float) -> Refusal:
    return Refusal(
        rule="rate_limited",
        message=f"{name} asks more often than {limits.per_minute:g} times a minute",
        values={"per_minute": limits.per_minute, "burst": limits.burst, "retry_after_s": round(wait_s, 3)},
        remedy=f"Wait {wait_s:.1f} s.",
    )


def _refused(rule: str, message: str, values: dict[str, str | float]) -> Refusal:
    return Refusal(
        rule=rule,
        message=message,
        values={**values},
        remedy=f"Send it with the time now in {TIMESTAMP} and a {NONCE} that was never used.",
    )
