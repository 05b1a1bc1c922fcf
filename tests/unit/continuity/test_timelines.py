"""Which standby went further than the new primary's history, and by how much."""

from __future__ import annotations

import pytest

from qnwis.continuity.timelines import ahead_refusal, left_at

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
