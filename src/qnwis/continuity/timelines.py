"""Where a database's history left an earlier timeline, and whether a standby went further on that one.

Each promotion begins a new timeline and writes down, in a history file, where it left the one before
(PostgreSQL's documentation, "Timelines"). A standby that replayed log beyond that place has changes that the
new primary never had, and cannot follow it: PostgreSQL does not undo. It has to be rewound.
"""

from __future__ import annotations

from .refusal import Refusal

AHEAD = "ahead_of_upstream"


def left_at(history: str, timeline: int) -> int | None:
    """Where this history leaves the timeline, bytes since the log's start; None where it never was on it.

    `history`: a PostgreSQL timeline history file: parent timeline, place as `0/1B3C2D0`, reason; a line each.
    """
    for line in history.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == str(timeline):
            high, low = words[1].split("/")
            return (int(high, 16) << 32) + int(low, 16)
    return None


def ahead_refusal(
    node_id: str, upstream: str, *, timeline: int, replayed_lsn: int, history: str
) -> Refusal | None:
    """Why the standby cannot follow the upstream as it is, or None. `history`: of the upstream's timeline."""
    left = left_at(history, timeline)
    if left is None or replayed_lsn <= left:
        return None
    return Refusal(
        rule=AHEAD,
        message=f"{node_id} cannot follow {upstream}: it replayed {replayed_lsn - left} bytes of timeline "
        f"{timeline} that {upstream} never had",
        values={"timeline": timeline, "replayed_lsn": replayed_lsn, "left_at_lsn": left},
        remedy="Order a rejoin, which rewinds it to the upstream's history",
    )
