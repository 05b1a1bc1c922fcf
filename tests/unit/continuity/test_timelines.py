"""Which standby went further than the new primary's history, and by how much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.timelines import Stretch, ahead_refusal, left_at, lsn_text, only_in_mine

HISTORY = """1\t0/1B3C2D0\tno recovery target specified

2\t1/000000A0\tno recovery target specified
"""


@pytest.mark.parametrize(
    ("timeline", "place"), [(1, 0x1B3C2D0), (2, (1 << 32) + 0xA0), (3, None), (11, None), (0, None)]
)
def test_where_a_history_leaves_each_timeline(timeline: int, place: int | None) -> None:
    assert left_at(HISTORY, timeline) == place


@pytest.mark.parametrize(("beyond", "refused"), [(-1, False), (0, False), (1, True), (520, True)])
def test_a_standby_is_ahead_only_beyond_the_place_where_the_histories_part(
    beyond: int, refused: bool
) -> None:
    refusal = ahead_refusal("node-3", "node-2", timeline=1, replayed_lsn=0x1B3C2D0 + beyond, history=HISTORY)
    assert (refusal is not None) is refused
    if refusal is not None:
        assert refusal.rule == "ahead_of_upstream"
        assert f"{beyond} bytes of timeline 1 that node-2 never had" in refusal.message
        assert refusal.values["left_at_lsn"] == 0x1B3C2D0


def test_a_timeline_that_the_history_never_was_on_says_nothing() -> None:
    assert ahead_refusal("node-3", "node-2", timeline=5, replayed_lsn=1 << 40, history=HISTORY) is None
    assert ahead_refusal("node-3", "node-2", timeline=1, replayed_lsn=1 << 40, history="") is None


def history(*ends: int) -> str:
    return "".join(f"{number}\t{lsn_text(end)}\twhy\n" for number, end in enumerate(ends, start=1))


@pytest.mark.parametrize(
    ("mine", "theirs", "found"),
    [
        ((), (), []),  # one timeline, one history
        ((), (50,), [Stretch(1, 50, None)]),  # an old primary
        ((40,), (40, 90), [Stretch(2, 90, None)]),
        ((40,), (), [Stretch(2, 40, None)]),  # theirs is older; a rejoin to that is refused
        ((60,), (50,), [Stretch(1, 50, 60), Stretch(2, 60, None)]),  # two promotions of one number
        ((40,), (50, 90), [Stretch(2, 40, None)]),  # promoted earlier, and left behind
        ((40, 70), (40, 60, 90), [Stretch(2, 60, 70), Stretch(3, 70, None)]),
    ],
)
def test_what_only_this_history_has(
    mine: tuple[int, ...], theirs: tuple[int, ...], found: list[Stretch]
) -> None:
    parted = only_in_mine(
        len(mine) + 1, history(*mine), theirs=len(theirs) + 1, their_history=history(*theirs)
    )
    assert list(parted) == found


@given(st.lists(st.integers(1, 1 << 40), max_size=4, unique=True).map(sorted))
def test_a_history_that_another_continues_has_nothing_of_its_own(ends: list[int]) -> None:
    for count in range(len(ends) + 1):
        shorter = only_in_mine(
            count + 1, history(*ends[:count]), theirs=len(ends) + 1, their_history=history(*ends)
        )
        # It goes as far as the other left it, at most: whether it does, its log says.
        assert [one.from_lsn for one in shorter] == ends[count : count + 1]
