"""A watcher whose own process stood still says nothing of that time, in however many pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.heartbeat import HeartbeatConfig
from qnwis.continuity.lateness import TICKS_IN_A_LIMIT, lateness, stood_still

CONFIG = HeartbeatConfig(interval_sec=1.0, timeout_sec=0.8)
LIMIT_S, TIMEOUT_S = CONFIG.stall_limit_s, CONFIG.timeout_sec
TICK_S = LIMIT_S / TICKS_IN_A_LIMIT
TURNS = 4
"""Of the loop, which one question takes: connected, sent, read, handed on."""


def asked(blocks_s: list[float], *, began_s: float = 0.0) -> tuple[bool, bool]:
    """Whether a node that answers at once was taken for silent by a watcher whose loop is held up before each
    turn for so long, and whether the watcher then says nothing. Time moves only by the blocks."""
    now = began_s
    late = lateness(LIMIT_S, now)
    mark = late.so_far_s(now)
    for turn, block_s in enumerate(blocks_s, start=1):
        now += block_s
        abstains = stood_still(late.so_far_s(now) - mark, LIMIT_S)
        if now - began_s >= TIMEOUT_S:
            return True, abstains
        if turn == TURNS:
            return False, abstains
        if now >= late.due_s:
            late = late.came(now)
    raise AssertionError("one block for each turn")


@given(st.lists(st.floats(0, 2), min_size=TURNS, max_size=TURNS))
def test_a_node_that_answers_at_once_is_never_called_silent(blocks_s: list[float]) -> None:
    silent, abstains = asked(blocks_s)
    assert not silent or abstains


def test_many_short_stalls_count_as_a_long_one() -> None:
    """None of them is as long as the limit, which is all that was looked at once."""
    blocks_s = [0.9 * LIMIT_S] * TURNS
    assert asked(blocks_s) == (True, True)


@given(st.lists(st.floats(0, TICK_S), min_size=1, max_size=200))
def test_a_loop_that_is_never_late_by_more_than_a_tick_hides_no_silence(late_by_s: list[float]) -> None:
    now = 0.0
    kept = lateness(LIMIT_S, now)
    for late_s in late_by_s:
        now = kept.due_s + late_s * 0.999
        kept = kept.came(now)
    assert not stood_still(kept.so_far_s(now), LIMIT_S)


@given(
    st.lists(st.floats(0, 1), max_size=20),
    st.floats(0, 1),
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
)
def test_what_was_before_the_question_does_not_count(
    before_s: list[float], waits_s: float, after_s: list[float]
) -> None:
    now = 100.0
    kept = lateness(LIMIT_S, now)
    for late_s in before_s:
        now = kept.due_s + late_s
        kept = kept.came(now)
    now += waits_s
    mark, counted = kept.so_far_s(now), 0.0
    for late_s in after_s:
        now = max(now, kept.due_s + late_s)
        counted += max(0.0, now - kept.due_s)
        kept = kept.came(now)
    assert -1e-9 <= kept.so_far_s(now) - mark <= counted + 1e-9


def test_a_stall_that_lasts_while_it_is_asked_for_is_counted() -> None:
    """The answer's time-out and the tick fall due in the same turn of the loop, in either order."""
    kept = lateness(LIMIT_S, 0.0)
    after = kept.due_s + LIMIT_S + 0.01
    assert stood_still(kept.so_far_s(after), LIMIT_S)
    assert stood_still(kept.came(after).so_far_s(after), LIMIT_S)
