"""The beats and detectors for many failures at once are the real ones, failure by failure."""

from __future__ import annotations

import math
from random import Random

import numpy as np

from qnwis.continuity.heartbeat import HeartbeatConfig, NodeDetector, NodeStatus, observe, observe_end
from qnwis.montecarlo.draws import Draws
from qnwis.montecarlo.watching import Chances, Silent, beats_before, failed_at_s, shortest_failed_s

FAILURES, VANTAGES = 60, 3
HEALTHY = NodeDetector(status=NodeStatus.HEALTHY)
FAILED_BEFORE = -1.0


def really_failed_at_s(
    config: HeartbeatConfig, silent: Silent, chances: Chances, failure: int, vantage: int
) -> float:
    """One vantage, beat by beat as `activities.beats` has them, with the real detector."""
    lasts_s = float(silent.lasts_s[failure])
    told, refused = bool(silent.told[failure]), bool(silent.refused[failure])
    started_s = -(beats_before(config) + float(chances.phase[failure, vantage])) * config.interval_sec
    detector, beat, free_s, poked = HEALTHY, 0, -math.inf, told or refused
    for place in range(len(chances.offset)):
        share = float(chances.offset[place, failure, vantage])
        due_s = started_s + config.interval_sec * (beat + share * config.jitter_percent / 100)
        begin_s = max(due_s, free_s)
        if poked and due_s >= 0:
            started_s = begin_s = max(free_s, 0.0)
            beat, poked = 0, False
        took_s = 0.0
        if not 0 <= begin_s < lasts_s:
            missed = bool(chances.lost[place, failure, vantage])
            took_s = config.timeout_sec if missed else 0.0
            detector = observe(detector, not missed, config)
        elif told:
            detector = observe_end(detector, config, "ended")
        elif refused:
            detector = observe(detector, False, config)
        else:
            missed = lasts_s - begin_s >= config.timeout_sec
            took_s = config.timeout_sec if missed else lasts_s - begin_s
            detector = observe(detector, not missed, config)
        free_s = begin_s + took_s
        if detector.status is NodeStatus.FAILED:
            return free_s if begin_s >= 0 else FAILED_BEFORE
        beat = max(beat + 1, math.floor((free_s - started_s) / config.interval_sec))
    return math.inf


def test_thousands_of_failures_are_detected_when_the_real_detectors_would() -> None:
    random, compared, detected, quiet = Random(7), 0, 0, 0
    for case in range(30):
        config = HeartbeatConfig(
            interval_sec=random.choice([0.5, 1, 2, 5]),
            timeout_sec=random.choice([0.2, 0.8, 2, 7]),
            failure_threshold=random.randint(1, 5),
            jitter_percent=random.choice([0, 10, 50]),
        )
        draws = Draws(case, "test")
        kind = draws.choice("kind", [1, 1, 1, 2], FAILURES)
        silent = Silent(
            lasts_s=np.where(kind == 3, draws.uniform("lasts", FAILURES) * 25, np.inf),
            refused=kind == 0,
            told=kind == 1,
        )
        chances = Chances.draw(draws, config, FAILURES, VANTAGES, random.choice([0, 0, 0.05, 0.3]))
        found = failed_at_s(config, silent, chances)
        for failure in range(FAILURES):
            for vantage in range(VANTAGES):
                expected = really_failed_at_s(config, silent, chances, failure, vantage)
                if expected == FAILED_BEFORE:
                    continue  # the model begins with a primary that is well
                compared += 1
                detected += math.isfinite(expected)
                quiet += math.isinf(expected)
                assert math.isclose(found[failure, vantage], expected, abs_tol=1e-9), (config, failure)
    assert compared > 4000 and detected > 2000 and quiet > 500


def test_no_silence_below_the_bound_is_called_a_failure_and_some_just_above_it_are() -> None:
    config = HeartbeatConfig(interval_sec=2, timeout_sec=1, failure_threshold=3, jitter_percent=10)
    bound_s, count = shortest_failed_s(config, 0.0), 20_000
    never = np.zeros(count, dtype=np.bool_)
    chances = Chances.draw(Draws(1, "test"), config, count, 1, 0.0)
    for lasts_s, some in ((bound_s - 0.001, False), (bound_s + 0.4, True)):
        found = failed_at_s(config, Silent(np.full(count, lasts_s), never, never), chances)
        assert np.isfinite(found).any() == some
    # Lost questions before it bring it nearer.
    assert shortest_failed_s(config, 1e-4) < bound_s
