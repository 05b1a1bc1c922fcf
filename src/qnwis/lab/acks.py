"""The clients' log of acknowledged writes, and what it proves: how long writes stood still, what was lost.

One JSON line for each event. `m` is the monotonic clock, which all processes of a Linux machine share, `w`
the wall clock, both in seconds; of the other fields there are

    client, n, server            for a write that was acknowledged,
    client, n, server, error     for a write that may have happened or not,
    client, error                for a connection that could not be made,
    end                          when the clients have stopped.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from qnwis.continuity.model import Model

Row = tuple[int, int]
"""client, n"""


@dataclass(frozen=True)
class Ack:
    """A write that the database acknowledged."""

    at: float
    """Monotonic seconds."""
    client: int
    n: int
    server: str


@dataclass(frozen=True)
class AckLog:
    """What the clients saw, as far as it is written."""

    acks: tuple[Ack, ...]
    unknown: tuple[Row, ...]
    """Writes whose connection broke before an answer: in the database or not."""
    errors: tuple[tuple[str, int], ...]
    """Each distinct error and how often, most frequent first."""
    ended_at: float | None
    """When the clients stopped; None while they run."""


class WriteReport(Model):
    """How the clients' writes fared. Times in milliseconds."""

    acked: int
    per_server: dict[str, int]
    """Acknowledged writes by server address."""
    gap_ms: float
    """The longest time that any one client had no write acknowledged."""
    gap_ms_per_client: dict[int, float]
    outage_ms: float
    """The longest time that no client at all had a write acknowledged."""
    first_ack_after_ms: float | None
    """From `since` to the first write acknowledged by another server than before; None if there is none."""
    unknown: int
    lost: tuple[Row, ...]
    """Acknowledged writes that are not in the database."""


def read_log(path: Path) -> AckLog:
    """Read a log, also while it is being written: a last line without its end is left out."""
    acks: list[Ack] = []
    unknown: list[Row] = []
    errors: Counter[str] = Counter()
    ended_at: float | None = None
    text = path.read_bytes() if path.exists() else b""
    for line in text[: text.rfind(b"\n") + 1].splitlines():
        event = json.loads(line)
        if "end" in event:
            ended_at = event["m"]
        elif "error" in event:
            errors[event["error"]] += 1
            if "n" in event:
                unknown.append((event["client"], event["n"]))
        else:
            acks.append(Ack(event["m"], event["client"], event["n"], event["server"]))
    return AckLog(tuple(acks), tuple(unknown), tuple(errors.most_common()), ended_at)


def analyse(log: AckLog, rows: Collection[Row], *, since: float | None = None) -> WriteReport:
    """Compare what was acknowledged with the rows that the database holds now.

    `since` (monotonic seconds) is when the failure was made. A gap also counts from a client's last write to
    the clients' end, so that one that never came back shows.
    """
    times: dict[int, list[float]] = {}
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
