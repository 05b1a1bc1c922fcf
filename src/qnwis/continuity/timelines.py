"""Where a database's history left an earlier timeline, and whether a standby went further on that one.

Each promotion begins a new timeline and writes down, in a history file, where it left the one before
(PostgreSQL's documentation, "Timelines"). A standby that replayed log beyond that place has changes that the
new primary never had, and cannot follow it: PostgreSQL does not undo. It has to be rewound.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .refusal import Refusal

AHEAD = "ahead_of_upstream"


def left_at(history: str, timeline: int) -> int | None:
    """Where this history leaves the timeline, bytes since the log's start; None where it never was on it.

    `history`: a PostgreSQL timeline history file: parent timeline, place as `0/1B3C2D0`, reason; a line each.
    """
    return dict(_places(history)).get(timeline)


def _places(history: str) -> Iterable[tuple[int, int]]:
    """Each earlier timeline, oldest first, and where it was left."""
    for line in history.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0].isdigit():
            yield int(words[0]), lsn_of(words[1])


def lsn_of(text: str) -> int:
    """Bytes since the log's start, of a place as PostgreSQL writes it (`0/1B3C2D0`)."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def lsn_text(lsn: int) -> str:
    """A place as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


@dataclass(frozen=True)
class Stretch:
    """A part of a log."""

    timeline: int
    from_lsn: int
    to_lsn: int | None
    """None: as far as it goes."""


def only_in_mine(timeline: int, history: str, *, theirs: int, their_history: str) -> tuple[Stretch, ...]:
    """The stretches of the log that a database on `timeline` has, or may have, and the other one cannot
    have: from where their histories part. Empty where the other's continues this one's.

    `history` and `their_history` are the history files of the two timelines. Two timelines of one number
    are the same one only if they begin at the same place.
    """
    their_ends, start = {}, 0
    for number, end in [*_places(their_history), (theirs, None)]:
        their_ends[number, start] = end
        start = end or 0
    found: list[Stretch] = []
    start = 0
    for number, end in [*_places(history), (timeline, None)]:
        if found or (number, start) not in their_ends:
            found.append(Stretch(number, start, end))
        else:
            left = their_ends[number, start]
            if left is not None and (end is None or end > left):
                found.append(Stretch(number, left, end))
        start = end or 0
    return tuple(found)


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
