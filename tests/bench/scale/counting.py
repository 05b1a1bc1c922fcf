"""What the agents' server counts of the questions that it is asked: pure, time is given."""

from __future__ import annotations

from collections.abc import Mapping

from qnwis.continuity.heartbeat import HeartbeatConfig
from qnwis.continuity.model import Model

SLACK_S = 0.5
"""By so much later than its schedule allows a heartbeat may come before it counts as missed, seconds."""


def deadline_s(heartbeat: HeartbeatConfig) -> float:
    """The longest time between two heartbeats of one node that keeps the schedule, with the slack."""
    return heartbeat.interval_sec * (1 + heartbeat.jitter_percent / 100) + SLACK_S


class Counts(Model):
    """Since the last mark."""

    asked: Mapping[str, int] = {}
    """Health questions that were answered, by path."""
    others: int = 0
    """Requests that were no health questions: states, promises, orders."""
    late: int = 0
    """Heartbeats that came after their deadline, and such as are overdue now."""
    late_nodes: int = 0
    longest_s: float = 0.0
    """The longest time between two heartbeats of a node."""
    heard: int = 0
    """Nodes that were ever asked for a heartbeat, since the server began."""
    heard_twice: int = 0
    nodes: int = 0
    streams: int = 0
    """Event streams that are open now."""

    @property
    def probes(self) -> int:
        return sum(self.asked.values())


class Heartbeats:
    """When each node was last asked whether it lives."""

    def __init__(self, nodes: int, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._last: list[float | None] = [None] * nodes
        self._times = [0] * nodes
        self._late = [0] * nodes
        self._longest_s = 0.0

    def mark(self) -> None:
        """Count anew. A gap that is open goes on: what began before the mark counts when it ends."""
        self._late = [0] * len(self._last)
        self._longest_s = 0.0

    def asked(self, node: int, now: float) -> None:
        last = self._last[node]
        if last is not None:
            gap = now - last
            if gap > self._longest_s:
                self._longest_s = gap
            if gap > self._deadline_s:
                self._late[node] += 1
        self._last[node] = now
        self._times[node] += 1

    def counts(self, now: float) -> Counts:
        open_s = [0.0 if last is None else now - last for last in self._last]
        late = [n + (gap > self._deadline_s) for n, gap in zip(self._late, open_s, strict=True)]
        return Counts(
            late=sum(late),
            late_nodes=sum(n > 0 for n in late),
            longest_s=max([self._longest_s, *open_s]),
            heard=sum(times > 0 for times in self._times),
            heard_twice=sum(times > 1 for times in self._times),
            nodes=len(self._last),
        )
