"""What the clients' history comes to: how long writes stood still, and what was lost.

Of the clients of the service's name: what pinned clients wrote does not wait for standbys and may be lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from qnwis.continuity.model import Model

from .history import History, Kind, read_history

Row = tuple[str, int]
"""client, n"""


@dataclass(frozen=True)
class Ack:
    """A write that the database acknowledged."""

    at: float
    """Monotonic seconds."""
    client: str
    n: int
    server: str
    """node_id"""


@dataclass(frozen=True)
class AckLog:
    """What the clients saw, as far as it is written."""

    acks: tuple[Ack, ...]
    unknown: tuple[Row, ...]
    """Writes whose connection broke before an answer: in the database or not."""
    errors: tuple[tuple[str, int], ...]
    """Each distinct error and how often, most frequent first."""
    ended_at: float | None
    """When the newest event was seen; clients that run always have one soon."""


class WriteReport(Model):
    """How the clients' writes fared. Times in milliseconds."""

    acked: int
    per_server: dict[str, int]
    """Acknowledged writes by node_id."""
    gap_ms: float
    """The longest time that any one client had no write acknowledged."""
    gap_ms_per_client: dict[str, float]
    outage_ms: float
    """The longest time that no client at all had a write acknowledged."""
    first_ack_after_ms: float | None
    """From `since` to the first write acknowledged by another server than before; None if there is none."""
    unknown: int
    lost: tuple[Row, ...]
    """Acknowledged writes that are not in the database."""


def read_log(path: Path) -> AckLog:
    """Read a history, also while it is being written."""
    return ack_log(read_history(path))


def ack_log(history: History) -> AckLog:
    """What the clients of the service's name saw."""
    events = [event for event in history if not event.pinned]
    return AckLog(
        acks=tuple(Ack(e.at_s, e.client, e.n, e.server or "") for e in events if e.kind is Kind.ACKNOWLEDGED),
        unknown=tuple(event.write for event in events if event.kind is Kind.UNKNOWN),
        errors=tuple(Counter(e.error for e in events if e.error is not None).most_common()),
        ended_at=events[-1].at_s if events else None,
    )


def analyse(log: AckLog, rows: Collection[Row], *, since: float | None = None) -> WriteReport:
    """Compare what was acknowledged with the rows that the database holds now.

    `since` (monotonic seconds) is when the failure was made. A gap also counts from a client's last write to
    the clients' end, so that one that never came back shows.
    """
    times: dict[str, list[float]] = {}
    for ack in log.acks:
        times.setdefault(ack.client, []).append(ack.at)
    end = [] if log.ended_at is None else [log.ended_at]
    gaps = {client: _longest_gap_ms([*sorted(at), *end]) for client, at in sorted(times.items())}
    present = set(rows)
    return WriteReport(
        acked=len(log.acks),
        per_server=dict(Counter(ack.server for ack in log.acks)),
        gap_ms=max(gaps.values(), default=0.0),
        gap_ms_per_client=gaps,
        outage_ms=_longest_gap_ms([*sorted(ack.at for ack in log.acks), *end]),
        first_ack_after_ms=None if since is None else _first_ack_after_ms(log.acks, since),
        unknown=len(log.unknown),
        lost=tuple(sorted((a.client, a.n) for a in log.acks if (a.client, a.n) not in present)),
    )


def _longest_gap_ms(times: Iterable[float]) -> float:
    return 1000 * max((later - earlier for earlier, later in pairwise(times)), default=0.0)


def _first_ack_after_ms(acks: Iterable[Ack], since: float) -> float | None:
    """A write in flight may still be acknowledged by the old server: that one does not count."""
    ordered = sorted(acks, key=lambda ack: ack.at)
    old = {ack.server for ack in ordered if ack.at <= since}
    after = (ack.at for ack in ordered if ack.at > since and ack.server not in old)
    first = next(after, None)
    return None if first is None else 1000 * (first - since)
