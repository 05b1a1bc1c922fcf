"""A history: every write that the clients attempted, and how it ended, as JSON lines.

Clients of the service's name find the database as applications do. Pinned clients write to one node's own
address and do not wait for standbys (`synchronous_commit = local`): they would find a second primary that
no name leads to. What they wrote may be lost, and is not counted as lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple


class Kind(StrEnum):
    INVOKED = "invoked"
    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"  # certain to have had no effect
    UNKNOWN = "unknown"  # no answer: it may have had one


class Event(NamedTuple):
    """One moment of one write."""

    at_s: float
    """Monotonic seconds, the same clock for all clients."""
    kind: Kind
    client: str
    n: int
    """Of this client, never used twice."""
    pinned: bool = False
    server: str | None = None
    """node_id that was asked, where the client knows it; always known of an acknowledged write."""
    timeline: int | None = None
    """Acknowledged: the timeline on which it was written."""
    lsn: int | None = None
    """Acknowledged: where the log ended when it was written, bytes; its commit follows there."""
    error: str | None = None
    """Failed or unknown: the first line of what the client was told."""

    @property
    def write(self) -> tuple[str, int]:
        return self.client, self.n


History = tuple[Event, ...]
"""In the order of time."""


def to_line(event: Event) -> str:
    fields = {
        name: value for name, value in event._asdict().items() if value is not None and value is not False
    }
    return json.dumps(fields, separators=(",", ":"))


def from_line(line: str | bytes) -> Event:
    """Raises ValueError or TypeError for a line that is no event."""
    fields: dict[str, Any] = json.loads(line)
    return Event(**{**fields, "kind": Kind(fields["kind"])})


def write_history(path: Path, events: Iterable[Event]) -> None:
    path.write_text("".join(to_line(event) + "\n" for event in events))


def read_history(*paths: Path) -> History:
    """The events of one or several files, by time. A last line without its end is left out, as is a file
    that is not there yet."""
    events = []
    for path in paths:
        text = path.read_bytes() if path.exists() else b""
        events += [from_line(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]
    return by_time(events)


def by_time(events: Iterable[Event]) -> History:
    """At the same instant invocations come first: nothing that happens at it precedes them."""
    return tuple(sorted(events, key=lambda event: (event.at_s, event.kind is not Kind.INVOKED)))
