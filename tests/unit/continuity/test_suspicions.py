"""When people are told of refused credentials, replays and floods: never too late, and once in a window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.suspicions import NAMED, Alarm, AlarmLimits, Suspicion, Watched, after

LIMITS = AlarmLimits(window_s=60, refused_credentials=3, replay=1, flood=5)
TIMES = st.lists(st.floats(0, 30), max_size=60).map(
    lambda gaps: [sum(gaps[: n + 1]) for n in range(len(gaps))]
)


def seen(
    kind: Suspicion, times_s: list[float], *, sources: int = 1
) -> tuple[Watched, list[tuple[float, Alarm]]]:
    """What is known after all of these, and when people were told what."""
    watched, told = Watched(), list[tuple[float, Alarm]]()
    for number, now_s in enumerate(times_s):
        watched, alarm = after(watched, kind, f"address {number % sources}", LIMITS, now_s)
        if alarm is not None:
            told.append((now_s, alarm))
    return watched, told


@given(st.sampled_from([*Suspicion]), TIMES)
def test_people_are_told_as_soon_as_there_are_enough_and_once_in_a_window(
    kind: Suspicion, times_s: list[float]
) -> None:
    enough, last, expected = LIMITS.of(kind), None, list[float]()
    for number, now_s in enumerate(times_s):  # the rule, said in another way
        within = sum(now_s - t <= LIMITS.window_s for t in times_s[: number + 1])
        if within >= enough and (last is None or now_s - last >= LIMITS.window_s):
            expected.append(now_s)
            last = now_s
    assert [now_s for now_s, _ in seen(kind, times_s)[1]] == expected


@given(st.integers(1, 200), st.integers(1, 200))
def test_whoever_asks_from_many_addresses_makes_neither_memory_nor_text_grow(
    count: int, sources: int
) -> None:
    watched, told = seen(Suspicion.FLOOD, [0.0] * count, sources=sources)
    assert len(watched.times_s) <= LIMITS.flood and len(watched.sources) <= NAMED
    assert len(told) == (count >= LIMITS.flood)
    assert all(len(alarm.text.splitlines()) <= 7 for _, alarm in told)


def test_the_text_names_who_did_it_most_and_counts_the_others() -> None:
    watched = Watched()
    for number, source in enumerate(["b", "a", "a", *"cdefg", "a"]):
        limits = AlarmLimits(window_s=60, flood=9)
        watched, alarm = after(watched, Suspicion.FLOOD, source, limits, float(number))
    assert alarm is not None and alarm.title == "9 requests were refused as too many"
    assert alarm.text.splitlines()[:6] == ["a: 3", "b: 1", "c: 1", "d: 1", "e: 1", "others: 2"]


@pytest.mark.parametrize(("times_s", "told"), [([0, 1], 0), ([0, 1, 60], 1), ([0, 1, 60.5], 0)])
def test_refusals_that_lie_further_apart_than_the_window_are_no_attack(
    times_s: list[float], told: int
) -> None:
    assert len(seen(Suspicion.CREDENTIALS, times_s)[1]) == told
