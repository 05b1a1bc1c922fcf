"""When the vantages call a primary failed: the beats of `activities.beats` and the detector of
`qnwis.continuity.heartbeat`, for many failures at once.

Time is in seconds from the failure on. Every vantage saw the primary well before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qnwis.continuity.heartbeat import HeartbeatConfig

from .draws import Draws, Flags, Floats


@dataclass(frozen=True)
class Silent:
    """How each failure looks to a vantage that asks."""

    lasts_s: Floats
    """Until it answers again; infinite for good."""
    refused: Flags
    """Connections break, and new ones are refused at once; otherwise a question waits for its timeout."""
    told: Flags
    """An agent lives, and says that its database has ended."""

    def __len__(self) -> int:
        return len(self.lasts_s)


@dataclass(frozen=True)
class Chances:
    """What is random of the beats, by vantage."""

    phase: Floats
    """Of the failure within the interval, 0 to 1: (failures, vantages)."""
    offset: Floats
    """Of each beat, as a share of the most: (beats, failures, vantages)."""
    lost: Flags
    """A question to a node that is well goes unanswered: (beats, failures, vantages)."""

    @classmethod
    def draw(
        cls, draws: Draws, heartbeat: HeartbeatConfig, failures: int, vantages: int, miss_chance: float
    ) -> Chances:
        before, beats = beats_before(heartbeat), beats_of(heartbeat)
        # By the beat's place from the failure on, so that another threshold changes no number.
        places = range(-before, beats - before)
        offset = np.stack([draws.uniform(f"offset {place}", failures, vantages) for place in places])
        if miss_chance > 0:
            lost = np.stack(
                [draws.uniform(f"lost {place}", failures, vantages) < miss_chance for place in places]
            )
        else:
            lost = np.zeros((beats, failures, vantages), dtype=np.bool_)
        return cls(draws.uniform("phase", failures, vantages), offset, lost)


def beats_before(heartbeat: HeartbeatConfig) -> int:
    """Beats that are looked at before the failure: misses among them count towards the threshold."""
    return heartbeat.failure_threshold


def beats_of(heartbeat: HeartbeatConfig) -> int:
    """Enough for every vantage to reach its threshold."""
    return beats_before(heartbeat) + heartbeat.failure_threshold + 3


def shortest_failed_s(heartbeat: HeartbeatConfig, miss_chance: float) -> float:
    """No silence that is shorter makes a vantage call the primary failed.

    Questions lost just before it may count for misses of it; more of them in a row than happen once in a
    billion silences are not reckoned with.
    """
    before, chance = 0, miss_chance
    while chance > 1e-9 and before < heartbeat.failure_threshold - 1:
        before, chance = before + 1, chance * miss_chance
    between = heartbeat.failure_threshold - 1 - before
    # Offsets do not add up: however many beats, the first and the last are nearer by one jitter at most.
    apart_s = max(0.0, heartbeat.interval_sec * (between - heartbeat.jitter_percent / 100))
    return heartbeat.timeout_sec + apart_s


def failed_at_s(heartbeat: HeartbeatConfig, silent: Silent, chances: Chances) -> Floats:
    """By failure and vantage: when it calls the primary failed; infinite if it never does."""
    interval_s, timeout_s = heartbeat.interval_sec, heartbeat.timeout_sec
    jitter = heartbeat.jitter_percent / 100
    shape = chances.phase.shape
    lasts_s = np.broadcast_to(silent.lasts_s[:, None], shape)
    refused = np.broadcast_to(silent.refused[:, None], shape)
    told = np.broadcast_to(silent.told[:, None], shape)
    started_s = -(beats_before(heartbeat) + chances.phase) * interval_s
    beat, misses = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    free_s = np.full(shape, -np.inf)
    poked = refused | told
    failed_s = np.full(shape, np.inf)
    for place in range(len(chances.offset)):
        due_s = started_s + interval_s * (beat + chances.offset[place] * jitter)
        # A stream that breaks, or tells of a database gone, makes the next beat now.
        hurried = poked & (due_s >= 0)
        started_s = np.where(hurried, np.maximum(free_s, 0.0), started_s)
        beat = np.where(hurried, 0.0, beat)
        poked = poked & ~hurried
        begin_s = np.where(hurried, started_s, np.maximum(due_s, free_s))
        during = (begin_s >= 0) & (begin_s < lasts_s)
        # What begins to answer again within the timeout has answered.
        missed = np.where(during, refused | told | (lasts_s - begin_s >= timeout_s), chances.lost[place])
        at_once = during & (refused | told)
        took_s = np.where(missed & ~at_once, timeout_s, np.where(during & ~missed, lasts_s - begin_s, 0.0))
        end_s = begin_s + took_s
        misses = np.where(missed, misses + 1, 0)
        fails = ((misses >= heartbeat.failure_threshold) | (during & told)) & (begin_s >= 0)
        failed_s = np.where(fails & np.isinf(failed_s), end_s, failed_s)
        beat = np.maximum(beat + 1, np.floor((end_s - started_s) / interval_s))
        free_s = end_s
    return failed_s
