"""Conflicting versions: every region keeps the same one, and the report has whatever was overwritten."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.clocks import Order, compare, tick
from qnwis.continuity.conflicts import Conflict, Undo, Version, Why, report, resolve, undo
from qnwis.continuity.refusal import Refusal
from tests.unit.continuity.scenes import NOON

REGIONS = ("ap", "eu", "us")


def version(region: str, second: float, said: str | None = "x", **clock: int) -> Version:
    row = None if said is None else {"id": 1, "said": said}
    return Version(region=region, clock=clock, written_at=NOON + timedelta(seconds=second), row=row)


def conflict(winner: Version, loser: Version, seen_in: str = "eu", found_s: float = 60) -> Conflict:
    why = resolve(winner, loser).why
    found_at = NOON + timedelta(seconds=found_s)
    return Conflict(
        table="shop.item",
        key={"id": 1},
        winner=winner,
        loser=loser,
        why=why,
        seen_in=(seen_in,),
        found_at=found_at,
    )


@pytest.mark.parametrize(
    ("one", "other", "winner", "why"),
    [
        (version("eu", 1, eu=1), version("us", 2, eu=1, us=1), "us", Why.SEEN),
        (version("eu", 3, eu=1), version("us", 2, us=1), "eu", Why.LATER),
        (version("eu", 2, eu=1), version("us", 2, us=1), "us", Why.REGION),
        (version("eu", 2, None, eu=1), version("us", 1, us=1), "eu", Why.LATER),
        # eu lost its second write, counts to it again, and its clock cannot be believed.
        (version("eu", 5, eu=2), version("us", 3, eu=2, us=1), "eu", Why.LATER),
    ],
)
def test_which_version_stays_and_why(one: Version, other: Version, winner: str, why: Why) -> None:
    for found in (resolve(one, other), resolve(other, one)):
        assert (found.winner.region, found.why, found.is_conflict) == (winner, why, why is not Why.SEEN)
        assert found.clock == {"eu": one.clock["eu"], "us": other.clock["us"]}


def test_one_write_that_comes_twice_is_no_conflict_and_what_it_has_seen_meanwhile_stays() -> None:
    again, later = version("eu", 1, eu=1), version("eu", 1, eu=1, us=4)
    for found in (resolve(again, later), resolve(later, again)):
        assert (found.why, found.winner.write, found.clock) == (Why.SEEN, again.write, {"eu": 1, "us": 4})


# --- Histories: regions write, and versions reach the others in any order ---


@dataclass
class Region:
    name: str
    ahead_s: float
    """How far its wall clock runs ahead."""
    state: Version | None = None
    made_of: dict[str, frozenset[str]] = field(default_factory=dict)
    """Shared: of each write, the writes that its author had before him, by content."""
    recorded: list[Conflict] = field(default_factory=list)

    def write(self, now: datetime) -> Version:
        before, at = self.state, now + timedelta(seconds=self.ahead_s)
        if before is not None:  # as the trigger does
            at = max(at, before.written_at + timedelta(microseconds=1))
        clock = tick({} if before is None else before.clock, self.name)
        written = Version(region=self.name, clock=clock, written_at=at, row={"at": at.isoformat()})
        ancestors = frozenset() if before is None else self.made_of[before.write]
        self.made_of[written.write] = ancestors | {written.write}
        self.state = written
        return written

    def receive(self, incoming: Version) -> None:
        if self.state is None:
            self.state = incoming
            return
        found = resolve(self.state, incoming)
        order = compare(incoming.clock, self.state.clock)
        assert order is not Order.AFTER or found.winner == incoming, "vector clock order comes first"
        assert order is not Order.BEFORE or found.winner == self.state
        if found.is_conflict:
            self.recorded.append(conflict(found.winner, found.loser, self.name))
        self.state = found.winner.model_copy(update={"clock": found.clock})


@st.composite
def histories(draw: st.DrawFn) -> list[Region]:
    """Up to three regions after everything has arrived everywhere."""
    made_of: dict[str, frozenset[str]] = {}
    names = REGIONS[: draw(st.integers(2, 3))]
    regions = {n: Region(n, draw(st.sampled_from([0.0, 0.0, 3.0, -3.0])), made_of=made_of) for n in names}
    waiting: dict[tuple[str, str], list[Version]] = {(a, b): [] for a in names for b in names if a != b}
    for second in range(draw(st.integers(1, 8))):
        if draw(st.booleans()):
            author = draw(st.sampled_from(names))
            # The same second for several, so that stamps may be equal.
            written = regions[author].write(NOON + timedelta(seconds=second // 3))
            for other in names:
                if other != author:
                    waiting[author, other].append(written)
        else:
            way = draw(st.sampled_from(sorted(waiting)))
            if waiting[way]:
                regions[way[1]].receive(waiting[way].pop(0))
    while any(waiting.values()):
        way = draw(st.sampled_from(sorted(way for way, versions in waiting.items() if versions)))
        regions[way[1]].receive(waiting[way].pop(0))
    return list(regions.values())


@given(histories())
def test_every_region_ends_with_the_same_row_and_the_same_clock(regions: list[Region]) -> None:
    states = [region.state for region in regions]
    assert len({None if s is None else (s.write, tuple(sorted(s.clock.items()))) for s in states}) == 1


@given(histories())
def test_every_write_that_the_final_row_is_not_made_of_is_in_the_report(regions: list[Region]) -> None:
    final, made_of = regions[0].state, regions[0].made_of
    if final is None:
        return
    kept = set(made_of[final.write])
    reported = report(one for region in regions for one in region.recorded)
    overwritten = {ancestor for one in reported for ancestor in made_of[one.loser.write]}
    assert set(made_of) - kept <= overwritten


@given(histories())
def test_each_conflict_is_reported_once_and_none_is_where_every_author_had_seen_the_one_before(
    regions: list[Region],
) -> None:
    recorded = [one for region in regions for one in region.recorded]
    reported = report(recorded)
    assert sorted(one.conflict_id for one in reported) == sorted({one.conflict_id for one in recorded})
    for one in reported:
        found_by = {same.seen_in[0] for same in recorded if same.conflict_id == one.conflict_id}
        assert set(one.seen_in) == found_by
        assert one.loser.write not in regions[0].made_of[one.winner.write]


# --- The way back of one conflict ---

WON, LOST = version("us", 2, "won", us=1), version("eu", 1, "lost", eu=1)


def test_an_undo_writes_the_loser_where_the_winner_still_is() -> None:
    # Meanwhile the row has seen another version that lost: it is the same write all the same.
    present = WON.model_copy(update={"clock": {"eu": 1, "us": 1, "ap": 1}})
    found = undo(conflict(WON, LOST), present)
    assert found == Undo(
        table="shop.item", key={"id": 1}, expects_write=WON.write, row={"id": 1, "said": "lost"}
    )


def test_an_undo_of_an_overwritten_deletion_deletes() -> None:
    found = undo(conflict(WON, version("eu", 1, None, eu=1)), WON)
    assert isinstance(found, Undo) and found.row is None


@pytest.mark.parametrize("present", [None, LOST, version("us", 9, "since", eu=1, us=2)])
def test_an_undo_never_overwrites_what_was_written_since(present: Version | None) -> None:
    found = undo(conflict(WON, LOST), present)
    assert isinstance(found, Refusal) and found.rule == "row_changed_since"
    assert found.values["expected"] == WON.write


def test_what_was_undone_in_one_region_is_not_undone_again_in_another() -> None:
    here, there = conflict(WON, LOST, "eu", 70), conflict(WON, LOST, "us", 61)
    undone = there.model_copy(update={"undone_at": NOON + timedelta(seconds=99)})
    (both,) = report([here, undone])
    assert (both.seen_in, both.found_at) == (("eu", "us"), there.found_at)
    found = undo(both, WON)
    assert isinstance(found, Refusal) and found.rule == "conflict_undone_already"
