"""One measured event, and what the clients' writes say of it: pure."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable
from enum import StrEnum
from itertools import pairwise

from qnwis.continuity.model import Model
from qnwis.lab.acks import Ack, AckLog, Row


class Event(StrEnum):
    """What befalls a cluster."""

    KILLED = "killed node"  # SIGKILL of the primary's agent and database
    BLACKHOLED = "blackholed node"  # the primary's packets are dropped, to it and from it
    CRASHED = "crashed database"  # SIGKILL of the primary's database, under a living agent
    SWITCHOVER = "switchover"


class Figure(Model):
    """One event on one cluster."""

    round: int
    system: str
    setting: str
    event: Event
    gap_ms: float | None = None
    """The longest time from the event on in which any one client had no write acknowledged; None where writes
    never came back to all of them, or nothing could be measured."""
    acknowledged: int = 0
    lost: int = 0
    """Acknowledged writes that the database does not hold afterwards."""
    served_after: str | None = None
    """The node that acknowledged the last write."""
    took_s: float = 0.0
    """The measurement, making the cluster included."""
    load: float = 0.0
    """The machine's load average of one minute, when it happened."""
    problem: str | None = None
    """Why there is no figure."""


class Summary(Model):
    """All figures of one system, setting and event. Times in milliseconds."""

    system: str
    setting: str
    event: Event
    measured: int
    of: int
    min_ms: float | None
    median_ms: float | None
    max_ms: float | None
    acknowledged: int
    lost: int


def gap_ms(acks: Iterable[Ack], *, since_s: float, ended_s: float, clients: Collection[str]) -> float | None:
    """The longest time that a client had no write acknowledged, of times that ended after `since_s`.

    The time up to `ended_s` counts, so that a client that came back and fell silent shows. None if one of
    `clients` never came back.
    """
    times: dict[str, list[float]] = {client: [] for client in clients}
    for ack in acks:
        times.setdefault(ack.client, []).append(ack.at)
    gaps = []
    for at in times.values():
        if not any(moment > since_s for moment in at):
            return None
        gaps += [
            later - earlier
            for earlier, later in pairwise([*sorted(at), max(ended_s, *at)])
            if later > since_s
        ]
    return 1000 * max(gaps)


def lost(log: AckLog, rows: Collection[Row]) -> int:
    """How many acknowledged writes are not among the database's rows."""
    present = set(rows)
    return sum((ack.client, ack.n) not in present for ack in log.acks)


def summaries(figures: Iterable[Figure]) -> list[Summary]:
    """In the order in which systems, settings and events were first measured."""
    groups: dict[tuple[str, str, Event], list[Figure]] = {}
    for figure in figures:
        groups.setdefault((figure.system, figure.setting, figure.event), []).append(figure)
    return [_summary(group) for group in groups.values()]


def _summary(group: list[Figure]) -> Summary:
    first = group[0]
    gaps = [figure.gap_ms for figure in group if figure.gap_ms is not None]
    return Summary(
        system=first.system,
        setting=first.setting,
        event=first.event,
        measured=len(gaps),
        of=len(group),
        min_ms=min(gaps, default=None),
        median_ms=statistics.median(gaps) if gaps else None,
        max_ms=max(gaps, default=None),
        acknowledged=sum(figure.acknowledged for figure in group),
        lost=sum(figure.lost for figure in group),
    )
