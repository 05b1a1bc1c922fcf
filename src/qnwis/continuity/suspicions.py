"""When people are told of refused credentials, replays and floods: how many, within what time, once a window.

Pure: the time comes as a value. Of each kind one notification is sent in a window, whoever and however many
ask, so that nobody can make a flood of notifications out of a flood of requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field

from .model import Model, sha256_digest
from .notifications import Notification, RunEvent
from .readiness_facts import CALLERS, Grade, Readiness

NAMED = 20
"""Sources of one kind that are kept by name between two notifications; the others are counted."""
SHOWN = 5


class Suspicion(StrEnum):
    CREDENTIALS = "refused_credentials"
    REPLAY = "replay"
    FLOOD = "flood"


OF_RULE: Mapping[str, Suspicion] = {
    "credentials_refused": Suspicion.CREDENTIALS,
    "request_replayed": Suspicion.REPLAY,
    "rate_limited": Suspicion.FLOOD,
}
"""By the rule of a refusal. Credentials that are missing are no attempt to be somebody."""

IN_WORDS: Mapping[Suspicion, str] = {
    Suspicion.CREDENTIALS: "credentials were refused",
    Suspicion.REPLAY: "requests were sent a second time",
    Suspicion.FLOOD: "requests were refused as too many",
}


class AlarmLimits(Model):
    """From how many refusals within `window_s` people are told. After it nobody is told for as long."""

    window_s: float = Field(default=600.0, gt=0)
    refused_credentials: int = Field(default=10, ge=1)
    replay: int = Field(default=1, ge=1)
    """A client that sends again takes a new nonce: one replay is one too many."""
    flood: int = Field(default=10, ge=1)

    def of(self, kind: Suspicion) -> int:
        return int(getattr(self, kind.value))


class Watched(Model):
    """What was seen of one kind."""

    times_s: tuple[float, ...] = ()
    """The newest refusals, oldest first; never more than it takes to tell people."""
    sources: Mapping[str, int] = {}
    """Since people were last told."""
    count: int = 0
    """Likewise, from whomever."""
    told_at_s: float | None = None


class Alarm(Model):
    """What people are told."""

    kind: Suspicion
    title: str
    text: str


def after(
    watched: Watched, kind: Suspicion, source: str, limits: AlarmLimits, now_s: float
) -> tuple[Watched, Alarm | None]:
    """What is known after one more refusal, and what people are told now. `now_s`: of a clock that only goes
    forward."""
    enough = limits.of(kind)
    times = (*watched.times_s, now_s)[-enough:]
    known = source in watched.sources or len(watched.sources) < NAMED
    sources = {**watched.sources, source: watched.sources.get(source, 0) + 1} if known else watched.sources
    seen = watched.model_copy(update={"times_s": times, "sources": sources, "count": watched.count + 1})
    many = len(times) == enough and now_s - times[0] <= limits.window_s
    quiet = watched.told_at_s is not None and now_s - watched.told_at_s < limits.window_s
    if not many or quiet:
        return seen, None
    told = Alarm(kind=kind, title=f"{seen.count} {IN_WORDS[kind]}", text=_text(seen, limits))
    return Watched(times_s=times, told_at_s=now_s), told


def refused_callers(readiness: Readiness) -> Notification | None:
    """What people are told where agents refused somebody: once for as many as were refused by then."""
    check = next((one for one in readiness.checks if one.name == CALLERS), None)
    if check is None or check.grade is not Grade.WARNING:
        return None
    return Notification(
        cluster_id=readiness.cluster_id,
        run_id="alarm-refused_callers",
        event=RunEvent.SUSPICIOUS,
        about=sha256_digest(check.values),
        title=f"Agents of {readiness.cluster_id} refused callers",
        text=check.reason,
    )


def _text(seen: Watched, limits: AlarmLimits) -> str:
    most = sorted(seen.sources.items(), key=lambda one: (-one[1], one[0]))[:SHOWN]
    rest = seen.count - sum(number for _, number in most)
    lines = [f"{source}: {number}" for source, number in most] + ([f"others: {rest}"] if rest else [])
    return "\n".join([*lines, f"nobody is told again for {limits.window_s:g} s; the API's log has each"])
