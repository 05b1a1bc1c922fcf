"""The checker: from a history and the facts of a run to what was violated. Pure.

`INVARIANTS` hold for every story; `broken_promises` compares with what one story says. Each violation names
its invariant and what was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from qnwis.continuity.topology import ReplicationMode
from qnwis.lab.history import Event, History, Kind

from .facts import Facts
from .story import MustHold, RunExpected

UNCHANGED = "unchanged"
THAW_EDGE_S = 0.5
"""A machine that was frozen whole may acknowledge until its guard runs again; this long it may take.

The first of the published non-guarantees. With synchronous replication it is true of pinned clients only.
"""
AT_MOST_SHOWN = 3
"""Violations of one kind: of a thousand lost writes a person needs a few."""


@dataclass(frozen=True)
class Violation:
    invariant: str
    saw: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.saw}"


class Term(NamedTuple):
    """A node writing on one timeline. Terms are ordered: later timelines, and of two nodes on the same
    timeline (the second did not know of the first) the one whose first write was acknowledged later."""

    timeline: int
    first_acknowledged_s: float
    server: str


class Acknowledged(NamedTuple):
    """A write that a node acknowledged."""

    invoked_s: float
    at_s: float
    term: Term
    event: Event


def check(history: History, facts: Facts) -> tuple[Violation, ...]:
    """Every violation of the invariants; none can be trusted of a history that is not well formed."""
    malformed = tuple(well_formed(history, facts))
    if malformed:
        return malformed[:AT_MOST_SHOWN]
    found: list[Violation] = []
    for invariant in INVARIANTS:
        found += _shown(list(invariant(history, facts)))
    return tuple(found)


def _shown(violations: list[Violation]) -> list[Violation]:
    more = len(violations) - AT_MOST_SHOWN
    if more <= 0:
        return violations
    return [
        *violations[:AT_MOST_SHOWN],
        Violation(violations[0].invariant, f"and {more} more of these"),
    ]


# --- The invariants -----------------------------------------------------------------------------------------


def well_formed(history: History, facts: Facts) -> Iterator[Violation]:
    """Every write is invoked once and ends at most once, later, and an acknowledgement says where."""
    name = "well_formed"
    for earlier, later in pairwise(history):
        if later.at_s < earlier.at_s:
            yield Violation(name, f"{later} stands after {earlier}")
    invoked: dict[tuple[str, int], Event] = {}
    ended: dict[tuple[str, int], Event] = {}
    for event in history:
        write = event.write
        if event.kind is Kind.INVOKED:
            if write in invoked:
                yield Violation(name, f"{write} was invoked twice")
            invoked[write] = event
            continue
        if write in ended or write not in invoked:
            yield Violation(name, f"{write} ended {event.kind} without being invoked just before")
        elif event.pinned is not invoked[write].pinned:
            yield Violation(name, f"{write} is of a pinned client and of another")
        ended[write] = event
        if event.kind is Kind.ACKNOWLEDGED and None in (event.server, event.timeline, event.lsn):
            yield Violation(name, f"{event} does not say where it was written")


def one_primary(history: History, facts: Facts) -> Iterator[Violation]:
    """No write that was invoked after an acknowledgement in one term is acknowledged in an earlier term."""
    newest: Acknowledged | None = None
    newest_at: dict[tuple[str, int], Acknowledged | None] = {}
    writes = iter(acknowledged(history))
    for event in history:
        if event.kind is Kind.INVOKED:
            newest_at[event.write] = newest
        elif event.kind is Kind.ACKNOWLEDGED:
            write, before = next(writes), newest_at[event.write]
            later = before is not None and before.at_s < write.invoked_s and write.term < before.term
            if before is not None and later and not _is_the_edge(write, facts):
                yield Violation(
                    "one_primary",
                    f"{write.term.server} acknowledged {event.write} on timeline {write.term.timeline},"
                    f" invoked at {write.invoked_s:.3f} s, after {before.term.server} had acknowledged"
                    f" {before.event.write} on timeline {before.term.timeline} at {before.at_s:.3f} s",
                )
            if newest is None or write.term > newest.term:
                newest = write


def _is_the_edge(write: Acknowledged, facts: Facts) -> bool:
    """Whether it was acknowledged by a machine that had just thawed."""
    local = write.event.pinned or facts.replication is ReplicationMode.ASYNCHRONOUS
    return local and any(
        thaw.node_id == write.term.server and thaw.at_s <= write.at_s <= thaw.at_s + THAW_EDGE_S
        for thaw in facts.thawed
    )


def nothing_lost(history: History, facts: Facts) -> Iterator[Violation]:
    """Synchronous: every acknowledged write of the name's clients is in the database at the end."""
    if facts.replication is not ReplicationMode.SYNCHRONOUS:
        return
    if facts.rows is None:
        if facts.writable_at_end:
            yield Violation("nothing_lost", "writes were possible at the end, and nobody read the rows")
        return
    for event in lost_writes(history, facts):
        yield Violation(
            "nothing_lost",
            f"{event.write}, acknowledged by {event.server} on timeline {event.timeline} at LSN {event.lsn}"
            f" ({event.at_s:.3f} s), is not in the database of {facts.primary_at_end}",
        )


def loss_within_policy(history: History, facts: Facts) -> Iterator[Violation]:
    """Asynchronous: what a promotion left behind is at most `max_lag_bytes`."""
    if facts.replication is not ReplicationMode.ASYNCHRONOUS:
        return
    for promotion, loss_bytes in losses(history, facts):
        if loss_bytes > facts.max_lag_bytes:
            yield Violation(
                "loss_within_policy",
                f"timeline {promotion} left {loss_bytes} acknowledged bytes behind,"
                f" allowed are {facts.max_lag_bytes}",
            )


def each_effect_once(history: History, facts: Facts) -> Iterator[Violation]:
    """No effect of a run changed the world twice."""
    for effect_id in sorted(set(facts.effects)):
        times = facts.effects.count(effect_id)
        if times > 1:
            yield Violation("each_effect_once", f"{effect_id} changed the state {times} times")


INVARIANTS: tuple[Callable[[History, Facts], Iterator[Violation]], ...] = (
    one_primary,
    nothing_lost,
    loss_within_policy,
    each_effect_once,
)


# --- What the story promises --------------------------------------------------------------------------------


def broken_promises(must_hold: MustHold, history: History, facts: Facts) -> tuple[Violation, ...]:
    """Where the run differs from what the story says of it."""
    return tuple(
        promise for promise in _promises(must_hold, history, facts) if isinstance(promise, Violation)
    )


def _promises(must_hold: MustHold, history: History, facts: Facts) -> Iterator[Violation | None]:
    ended = RunExpected(facts.runs[-1].outcome.value) if facts.runs else RunExpected.NONE
    yield _unless(
        must_hold.run is None or ended in must_hold.run,
        "run",
        f"{ended}, expected {' or '.join(must_hold.run or ())}",
    )
    rules = [run.rule for run in facts.runs[-1:] if run.rule is not None] or list(facts.held_by)
    yield _unless(
        must_hold.refused_by is None or must_hold.refused_by in rules,
        "refused_by",
        f"{rules or 'nothing'}, expected {must_hold.refused_by}",
    )
    expected = {facts.first_primary if n == UNCHANGED else n for n in must_hold.new_primary or ()}
    yield _unless(
        not expected or facts.primary_at_end in expected,
        "new_primary",
        f"{facts.primary_at_end}, expected {' or '.join(sorted(expected))}",
    )
    yield _unless(
        must_hold.writable_at_end in (None, facts.writable_at_end),
        "writable_at_end",
        f"{facts.writable_at_end}, expected {must_hold.writable_at_end}",
    )
    broken = [e for e in history if not e.pinned and e.kind in (Kind.FAILED, Kind.UNKNOWN)]
    yield _unless(
        must_hold.uninterrupted is None or must_hold.uninterrupted is not bool(broken),
        "uninterrupted",
        f"{len(broken)} writes were not acknowledged, the first at {broken[0].at_s:.3f} s"
        if broken
        else "every write was acknowledged",
    )


def _unless(holds: bool, promise: str, saw: str) -> Violation | None:
    return None if holds else Violation(f"must_hold.{promise}", saw)


# --- What both the checks and the report look at ------------------------------------------------------------


def acknowledged(history: History) -> tuple[Acknowledged, ...]:
    """The writes that were acknowledged, in that order."""
    invoked_s = {event.write: event.at_s for event in history if event.kind is Kind.INVOKED}
    terms: dict[tuple[int, str], Term] = {}
    writes = []
    for event in history:
        if event.kind is Kind.ACKNOWLEDGED:
            timeline, server = event.timeline or 0, event.server or ""
            term = terms.setdefault((timeline, server), Term(timeline, event.at_s, server))
            writes.append(Acknowledged(invoked_s[event.write], event.at_s, term, event))
    return tuple(writes)


def lost_writes(history: History, facts: Facts) -> tuple[Event, ...]:
    """Acknowledged writes of the name's clients that are not in the rows; none where those are not known."""
    if facts.rows is None:
        return ()
    return tuple(
        event
        for event in history
        if event.kind is Kind.ACKNOWLEDGED and not event.pinned and event.write not in facts.rows
    )


def losses(history: History, facts: Facts) -> tuple[tuple[int, int], ...]:
    """Timeline of each promotion, and the acknowledged bytes of earlier timelines that it left behind."""
    return tuple(
        (p.timeline, max(0, _newest_lsn_before(p.timeline, history) - p.lsn)) for p in facts.promotions
    )


def _newest_lsn_before(timeline: int, history: History) -> int:
    """Of the timeline just before: what was left behind on still earlier ones was counted there."""
    earlier = [e for e in history if e.kind is Kind.ACKNOWLEDGED and (e.timeline or 0) < timeline]
    last = max((e.timeline or 0 for e in earlier), default=0)
    return max((e.lsn or 0 for e in earlier if e.timeline == last), default=0)


def primaries_at_most(history: History) -> int:
    """How many nodes certainly could acknowledge writes at one instant, at the worst instant.

    A node wrote at some instant between each write's invocation and acknowledgement. So in each term it
    certainly was a primary from the first acknowledgement to the last invocation, if that came later.
    """
    writes = acknowledged(history)
    spans: dict[Term, tuple[float, float]] = {}
    for write in writes:
        begin, end = spans.get(write.term, (write.at_s, write.invoked_s))
        spans[write.term] = (begin, max(end, write.invoked_s))
    if len(servers := {term.server for term in spans}) < 2:
        return len(servers)

    def certain_at(begin_s: float, end_s: float) -> set[str]:
        """Who was a primary all the time from one moment to the other."""
        return {term.server for term, (b, e) in spans.items() if b < e and b <= begin_s and end_s <= e}

    at_most = [{write.term.server} | certain_at(write.invoked_s, write.at_s) for write in writes]
    at_most += [certain_at(begin, begin) for begin, end in spans.values() if begin < end]
    return max(map(len, at_most), default=0)


def write_gap_s(history: History) -> float:
    """The longest time without an acknowledged write through the service's name."""
    named = [event for event in history if not event.pinned]
    if not named:
        return 0.0
    at = [event.at_s for event in named if event.kind is Kind.ACKNOWLEDGED]
    return max(b - a for a, b in pairwise([named[0].at_s, *at, named[-1].at_s]))
