"""The checker finds what it is there for: histories that violate each invariant, and damaged ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qnwis.continuity.run import RunOutcome
from qnwis.continuity.topology import ReplicationMode
from qnwis.lab.history import Event, History, Kind, by_time, from_line, read_history, to_line, write_history

from .checker import (
    Violation,
    broken_promises,
    check,
    losses,
    lost_writes,
    primaries_at_most,
    write_gap_s,
)
from .facts import Facts, PlayedRun, Promotion
from .story import MustHold

WriteOf = tuple[float, float, str, str, int, int]
"""invoked, acknowledged, client, server, timeline, lsn"""


def history(*writes: WriteOf, pinned: frozenset[str] = frozenset()) -> History:
    events = []
    for n, (invoked, ended, client, server, timeline, lsn) in enumerate(writes):
        of: dict[str, Any] = {"client": client, "n": n, "pinned": client in pinned}
        events += [
            Event(invoked, Kind.INVOKED, **of),
            Event(ended, Kind.ACKNOWLEDGED, **of, server=server, timeline=timeline, lsn=lsn),
        ]
    return by_time(events)


def facts(**changes: Any) -> Facts:
    known: dict[str, Any] = {
        "replication": ReplicationMode.SYNCHRONOUS,
        "max_lag_bytes": 100,
        "first_primary": "node-1",
        "primary_at_end": "node-2",
        "writable_at_end": True,
        "promotions": (Promotion(node_id="node-2", timeline=2, lsn=20),),
        "rows": frozenset({("a", 0), ("a", 1), ("b", 2)}),
        "runs": (PlayedRun(run_id="r", outcome=RunOutcome.COMPLETED),),
    }
    return Facts(**{**known, **changes})


def found(events: History, known: Facts) -> set[str]:
    return {violation.invariant for violation in check(events, known)}


GOOD = history(
    (1.0, 1.1, "a", "node-1", 1, 10), (3.0, 3.1, "a", "node-2", 2, 30), (3.0, 3.2, "b", "node-2", 2, 40)
)


def test_a_failover_without_loss_violates_nothing() -> None:
    assert check(GOOD, facts()) == ()


def test_a_write_on_an_older_timeline_after_one_on_a_newer_means_two_primaries() -> None:
    late = history((1.0, 1.1, "a", "node-2", 2, 30), (1.2, 1.3, "p", "node-1", 1, 20), pinned=frozenset("p"))
    (violation,) = check(late, facts(rows=frozenset({("a", 0)})))
    assert violation.invariant == "one_primary"
    assert "node-1 acknowledged ('p', 1) on timeline 1" in violation.saw
    assert primaries_at_most(late) == 1  # one write proves the mistake, not for how long


def test_a_write_that_was_under_way_when_the_new_primary_wrote_is_no_violation() -> None:
    under_way = history((1.0, 1.3, "a", "node-1", 1, 20), (1.1, 1.2, "b", "node-2", 2, 30))
    assert check(under_way, facts(rows=frozenset({("a", 0), ("b", 1)}))) == ()


def test_two_nodes_in_turn_on_one_timeline_are_two_primaries() -> None:
    """Both were promoted from timeline 1 and do not know of each other."""
    in_turn = history(
        (1.0, 1.1, "p", "node-2", 2, 20), (1.2, 1.3, "q", "node-3", 2, 20), (1.4, 1.5, "p", "node-2", 2, 30),
        pinned=frozenset("pq"),
    )  # fmt: skip
    assert found(in_turn, facts(rows=frozenset())) == {"one_primary"}
    assert primaries_at_most(in_turn) == 2


def test_one_after_the_other_on_one_timeline_is_one_primary_at_a_time() -> None:
    apart = history(
        (1.0, 1.1, "p", "node-2", 2, 20), (1.2, 1.3, "q", "node-3", 2, 20), pinned=frozenset("pq")
    )
    assert found(apart, facts(rows=frozenset())) == set()
    assert primaries_at_most(apart) == 1


def test_an_acknowledged_write_that_is_not_in_the_database_is_lost() -> None:
    (violation,) = check(GOOD, facts(rows=frozenset({("a", 1), ("b", 2)})))
    assert violation.invariant == "nothing_lost"
    assert "('a', 0), acknowledged by node-1 on timeline 1 at LSN 10" in violation.saw


def test_what_a_pinned_client_wrote_may_be_lost() -> None:
    local = history((1.0, 1.1, "p", "node-1", 1, 10), pinned=frozenset("p"))
    assert check(local, facts(rows=frozenset())) == ()


def test_an_unknown_write_may_be_there_or_not() -> None:
    unknown = by_time([Event(1, Kind.INVOKED, "a", 0), Event(2, Kind.UNKNOWN, "a", 0)])
    assert check(unknown, facts(rows=frozenset())) == ()
    assert check(unknown, facts(rows=frozenset({("a", 0)}))) == ()


def test_rows_that_nobody_read_although_one_could_prove_nothing() -> None:
    assert found(GOOD, facts(rows=None)) == {"nothing_lost"}
    assert found(GOOD, facts(rows=None, writable_at_end=False)) == set()


def test_an_asynchronous_promotion_may_leave_behind_what_the_policy_allows_and_no_more() -> None:
    def known(lsn: int) -> Facts:
        promotions = (Promotion(node_id="node-2", timeline=2, lsn=lsn),)
        return facts(
            replication=ReplicationMode.ASYNCHRONOUS,
            max_lag_bytes=100,
            rows=frozenset(),
            promotions=promotions,
        )

    events = history((1.0, 1.1, "a", "node-1", 1, 500), (3.0, 3.1, "a", "node-2", 2, 900))
    assert losses(events, known(400)) == ((2, 100),)
    assert found(events, known(400)) == set()
    assert found(events, known(399)) == {"loss_within_policy"}


def test_an_effect_that_changed_the_world_twice_is_found() -> None:
    twice = facts(effects=("r/1-fence", "r/2-promote", "r/2-promote"))
    assert check(GOOD, twice) == (Violation("each_effect_once", "r/2-promote changed the state 2 times"),)


@pytest.mark.parametrize(
    "events",
    [
        (Event(1, Kind.ACKNOWLEDGED, "a", 0, server="node-1", timeline=1, lsn=1),),
        (Event(1, Kind.INVOKED, "a", 0), Event(2, Kind.INVOKED, "a", 0)),
        (Event(1, Kind.INVOKED, "a", 0), Event(2, Kind.FAILED, "a", 0), Event(3, Kind.UNKNOWN, "a", 0)),
        (Event(1, Kind.INVOKED, "a", 0), Event(2, Kind.ACKNOWLEDGED, "a", 0, server="node-1")),
        (Event(1, Kind.INVOKED, "a", 0), Event(2, Kind.FAILED, "a", 0, pinned=True)),
        (Event(2, Kind.INVOKED, "a", 0), Event(1, Kind.FAILED, "a", 0)),
    ],
    ids=["never invoked", "invoked twice", "ended twice", "no place", "pinned or not", "out of time"],
)
def test_a_history_that_no_client_can_have_written_is_not_trusted(events: History) -> None:
    assert found(events, facts()) == {"well_formed"}


def test_the_promises_of_a_story_are_compared_with_what_happened() -> None:
    must_hold = MustHold.model_validate(
        {"run": "refused", "refused_by": "cooldown", "new_primary": "unchanged", "writable_at_end": False,
         "uninterrupted": False}
    )  # fmt: skip
    broken = {violation.invariant: violation.saw for violation in broken_promises(must_hold, GOOD, facts())}
    assert broken == {
        "must_hold.run": "completed, expected refused",
        "must_hold.refused_by": "nothing, expected cooldown",
        "must_hold.new_primary": "node-2, expected node-1",
        "must_hold.writable_at_end": "True, expected False",
        "must_hold.uninterrupted": "every write was acknowledged",
    }
    kept = MustHold.model_validate(
        {"run": "completed", "new_primary": ["node-2", "node-3"], "uninterrupted": True}
    )
    assert broken_promises(kept, GOOD, facts()) == ()


def test_the_write_gap_is_the_longest_time_without_an_acknowledgement() -> None:
    assert write_gap_s(GOOD) == pytest.approx(2.0)
    assert write_gap_s((*GOOD, Event(9.2, Kind.INVOKED, "a", 7))) == pytest.approx(6.0)


def test_a_history_survives_its_file_and_a_broken_last_line_is_left_out(tmp_path: Any) -> None:
    path = tmp_path / "history.jsonl"
    write_history(path, GOOD)
    path.write_text(path.read_text() + '{"at_s": 4, "kind": "invo')
    assert read_history(path) == GOOD
    pinned = Event(1.5, Kind.UNKNOWN, "p", 3, pinned=True, server="node-1")
    assert from_line(to_line(pinned)) == pinned


# --- Any correct history, and the same one damaged ----------------------------------------------------------


@st.composite
def correct(draw: st.DrawFn) -> tuple[History, Facts]:
    """What clients can see of databases that take over from one another, each with all writes before it."""
    events: list[Event] = []
    rows: set[tuple[str, int]] = set()
    promotions = []
    now, lsn, n = 0.0, 0, 0
    servers = draw(st.lists(st.sampled_from(["node-1", "node-2", "node-3"]), min_size=1, max_size=4))
    for timeline, server in enumerate(servers, start=1):
        if timeline > 1:
            promotions.append(Promotion(node_id=server, timeline=timeline, lsn=lsn))
        for _ in range(draw(st.integers(1, 5))):
            n += 1
            lsn += 10
            now += draw(st.integers(1, 10)) / 10
            client = draw(st.sampled_from(["a", "b", "pinned"]))
            of: dict[str, Any] = {"client": client, "n": n, "pinned": client == "pinned"}
            takes_effect, early = now, draw(st.integers(0, 9)) / 20
            how = draw(st.sampled_from(["acknowledged", "acknowledged", "unknown", "done unknown", "failed"]))
            events.append(Event(takes_effect - early, Kind.INVOKED, **of))
            ended = takes_effect + draw(st.integers(1, 20)) / 10
            if how in ("acknowledged", "done unknown"):
                rows.add((client, n))
            if how == "acknowledged":
                events.append(
                    Event(ended, Kind.ACKNOWLEDGED, **of, server=server, timeline=timeline, lsn=lsn)
                )
            else:
                events.append(Event(ended, Kind(how.removeprefix("done ")), **of))
    return by_time(events), facts(
        rows=frozenset(rows), promotions=tuple(promotions), primary_at_end=servers[-1]
    )


@given(correct())
def test_a_correct_history_is_never_a_violation(played: tuple[History, Facts]) -> None:
    events, known = played
    assert check(events, known) == ()
    asynchronous = known.model_copy(update={"replication": ReplicationMode.ASYNCHRONOUS, "max_lag_bytes": 0})
    assert check(events, asynchronous) == ()
    assert primaries_at_most(events) <= 1


@given(correct(), st.data())
def test_a_row_that_goes_missing_is_found(played: tuple[History, Facts], data: st.DataObject) -> None:
    events, known = played
    named = [e.write for e in events if e.kind is Kind.ACKNOWLEDGED and not e.pinned]
    assume(named)
    gone = data.draw(st.sampled_from(named))
    damaged = known.model_copy(update={"rows": (known.rows or frozenset()) - {gone}})
    assert found(events, damaged) == {"nothing_lost"}
    assert [event.write for event in lost_writes(events, damaged)] == [gone]


@given(correct(), st.data())
def test_a_write_by_a_former_primary_is_found_wherever_it_is_put(
    played: tuple[History, Facts], data: st.DataObject
) -> None:
    """After any acknowledgement on a later timeline, by whoever wrote on an earlier one."""
    events, known = played
    seen = [e for e in events if e.kind is Kind.ACKNOWLEDGED]
    pairs = [(old, new) for old in seen for new in seen if (old.timeline or 0) < (new.timeline or 0)]
    assume(pairs)
    old, new = data.draw(st.sampled_from(pairs))
    at_s = new.at_s + data.draw(st.integers(1, 30)) / 10
    of: dict[str, Any] = {"client": "zombie", "n": 0, "pinned": True}
    ghost = [
        Event(at_s, Kind.INVOKED, **of),
        old._replace(at_s=at_s + 0.1, client="zombie", n=0, pinned=True),
    ]
    assert found(by_time([*events, *ghost]), known) == {"one_primary"}


@given(correct(), st.data())
def test_an_end_that_is_repeated_or_without_a_beginning_is_found(
    played: tuple[History, Facts], data: st.DataObject
) -> None:
    events, known = played
    ends = [index for index, event in enumerate(events) if event.kind is not Kind.INVOKED]
    index = data.draw(st.sampled_from(ends))
    assert found((*events[:index], events[index], *events[index:]), known) == {"well_formed"}
    without = tuple(e for e in events if not (e.write == events[index].write and e.kind is Kind.INVOKED))
    assert found(without, known) == {"well_formed"}


@given(correct(), st.data())
def test_an_effect_done_once_more_is_found(played: tuple[History, Facts], data: st.DataObject) -> None:
    events, known = played
    effects = data.draw(st.lists(st.integers(1, 9).map(str), min_size=1, unique=True))
    assert found(events, known.model_copy(update={"effects": tuple(effects)})) == set()
    again = (*effects, data.draw(st.sampled_from(effects)))
    assert found(events, known.model_copy(update={"effects": again})) == {"each_effect_once"}
