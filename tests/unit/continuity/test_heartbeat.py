"""The failure detector: the specification's timeline, the thresholds, and a schedule that does not drift."""

from __future__ import annotations

from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.heartbeat import (
    HeartbeatConfig,
    NodeDetector,
    NodeStatus,
    answers_needed,
    next_beat_s,
    observe,
    observe_end,
)

CONFIG = HeartbeatConfig()

configs = st.builds(
    HeartbeatConfig,
    interval_sec=st.floats(0.1, 60),
    failure_threshold=st.integers(1, 5),
    recovery_threshold=st.integers(1, 5),
    jitter_percent=st.floats(0, 50),
    flap_window_sec=st.floats(0, 600),
    flap_recovery_limit=st.integers(1, 40),
)
beats = st.lists(st.booleans(), max_size=40)


def watch(oks: list[bool], config: HeartbeatConfig = CONFIG) -> list[NodeDetector]:
    """The detector after each beat."""
    seen = [NodeDetector()]
    for ok in oks:
        seen.append(observe(seen[-1], ok, config, None if ok else "timed out"))
    return seen[1:]


def test_timeline_of_the_specification() -> None:
    """0 s OK, 5 s MISS, 10 s MISS, 15 s MISS -> FAILED, with the defaults and without jitter."""
    config = HeartbeatConfig(jitter_percent=0)
    assert [next_beat_s(config, "any", beat) for beat in range(4)] == [0, 5, 10, 15]
    seen = watch([True, False, False, False], config)
    assert [(d.status, d.consecutive_misses) for d in seen] == [
        ("healthy", 0),
        ("healthy", 1),
        ("healthy", 2),
        ("failed", 3),
    ]


def test_defaults_are_the_specifications() -> None:
    assert (
        CONFIG.model_dump().items()
        >= {
            "interval_sec": 5,
            "timeout_sec": 2,
            "failure_threshold": 3,
            "recovery_threshold": 2,
            "jitter_percent": 10,
        }.items()
    )


def test_unknown_is_not_down() -> None:
    assert NodeDetector().status is NodeStatus.UNKNOWN
    assert [d.status for d in watch([False, False, False])] == ["unknown", "unknown", "failed"]
    assert watch([False, False, True])[-1].status is NodeStatus.HEALTHY


def test_recovery_takes_two_answers_in_a_row() -> None:
    seen = watch([False, False, False, True, False, True, True])
    assert [d.status for d in seen[2:]] == ["failed", "failed", "failed", "failed", "healthy"]
    assert [d.consecutive_recoveries for d in seen[2:]] == [0, 1, 0, 1, 0]


def test_an_answer_forgets_the_misses() -> None:
    assert {d.status for d in watch([True, False, False] * 5)} == {NodeStatus.HEALTHY}


def test_the_error_of_the_latest_miss_is_kept_until_an_answer() -> None:
    missed = observe(NodeDetector(), False, CONFIG, "connection refused")
    assert missed.last_error == "connection refused"
    assert observe(missed, True, CONFIG).last_error is None


# ---- the agent's own word


@pytest.mark.parametrize("before", [[], [True], [True, False], [False, False, False]])
def test_a_database_that_ended_is_failed_at_once_whatever_was_counted(before: list[bool]) -> None:
    ended = observe_end(watch(before)[-1] if before else NodeDetector(), CONFIG, "its database ended")
    assert (ended.status, ended.last_error) == (NodeStatus.FAILED, "its database ended")
    assert ended.beats == len(before) + 1
    assert watch_on(ended, [True]).status is NodeStatus.FAILED
    assert watch_on(ended, [True, True]).status is NodeStatus.HEALTHY


# ---- flapping


FAIL, RECOVER = [False] * 3, [True] * 2


def watch_on(detector: NodeDetector, oks: list[bool], config: HeartbeatConfig = CONFIG) -> NodeDetector:
    for ok in oks:
        detector = observe(detector, ok, config)
    return detector


def answers_until_healthy(detector: NodeDetector, config: HeartbeatConfig = CONFIG) -> int:
    count = 0
    while detector.status is NodeStatus.FAILED:
        detector, count = observe(detector, True, config), count + 1
    return count


def test_each_flap_doubles_the_answers_that_a_recovery_needs_up_to_the_limit() -> None:
    detector, needed = NodeDetector(), []
    for _ in range(7):
        detector = watch_on(detector, FAIL)
        needed.append(answers_until_healthy(detector))
        detector = watch_on(detector, [True] * needed[-1])
    assert needed == [2, 4, 8, 16, 32, 32, 32]


def test_a_flap_upon_the_end_of_the_database_counts_too() -> None:
    recovered = watch([*FAIL, *RECOVER])[-1]
    assert answers_until_healthy(observe_end(recovered, CONFIG, "its database ended")) == 4


@pytest.mark.parametrize(("answers", "needed"), [(117, 4), (118, 2)])
def test_a_failure_after_the_window_is_a_first_one_again(answers: int, needed: int) -> None:
    """600 s are 120 beats of 5 s: the recovery counts as beat 0, the last miss as beat 120 or 121."""
    failed = watch([*FAIL, *RECOVER, *[True] * answers, *FAIL])[-1]
    assert answers_until_healthy(failed) == needed


def test_a_broken_recovery_is_no_flap() -> None:
    assert watch([*FAIL, True, False, True, False])[-1].flaps == 0


@given(beats, configs)
def test_a_recovery_never_needs_fewer_answers_than_the_threshold_nor_more_than_the_limit(
    oks: list[bool], config: HeartbeatConfig
) -> None:
    for detector in watch(oks, config):
        limit = max(config.recovery_threshold, config.flap_recovery_limit)
        assert config.recovery_threshold <= answers_needed(detector, config) <= limit
        more = detector.model_copy(update={"flaps": detector.flaps + 1})
        assert answers_needed(more, config) >= answers_needed(detector, config)
    flaps = NodeDetector(flaps=10**9)
    assert answers_needed(flaps, config) == max(config.recovery_threshold, config.flap_recovery_limit)


@given(beats, configs)
def test_status_follows_from_the_runs_of_equal_beats_alone(oks: list[bool], config: HeartbeatConfig) -> None:
    """Independent statement of the rule without flaps: only the lengths of unbroken runs move the status."""
    config = config.model_copy(update={"flap_window_sec": 0.0})
    status = NodeStatus.UNKNOWN
    for ok, run in groupby(oks):
        length = len(list(run))
        if not ok and length >= config.failure_threshold:
            status = NodeStatus.FAILED
        if ok and (status is not NodeStatus.FAILED or length >= config.recovery_threshold):
            status = NodeStatus.HEALTHY
    final = watch(oks, config)[-1] if oks else NodeDetector()
    assert final.status is status
    assert final.beats == len(oks)


@given(configs, st.text(max_size=20), st.integers(0, 10**6))
def test_the_schedule_never_drifts(config: HeartbeatConfig, seed: str, beat: int) -> None:
    due = next_beat_s(config, seed, beat)
    jitter_s = config.interval_sec * config.jitter_percent / 100
    slack_s = 1e-6 * (1 + beat * config.interval_sec)
    assert -slack_s <= due - beat * config.interval_sec <= jitter_s + slack_s
    gap_s = next_beat_s(config, seed, beat + 1) - due
    assert abs(gap_s - config.interval_sec) <= jitter_s + slack_s
    assert next_beat_s(config, seed, beat) == due


def test_watchers_do_not_ask_in_step() -> None:
    due = [next_beat_s(CONFIG, f"vantage-{n}/node-1", 7) for n in range(50)]
    assert len(set(due)) == 50
    assert max(due) - min(due) > 0.8 * CONFIG.interval_sec * CONFIG.jitter_percent / 100
    gaps = [b - a for a, b in pairwise(next_beat_s(CONFIG, "v/n", k) for k in range(50))]
    assert len(set(gaps)) > 40


def test_the_schedule_is_the_same_in_every_process() -> None:
    assert next_beat_s(CONFIG, "local/node-1", 3) == pytest.approx(15.273329166367036, abs=1e-12)
