"""Failure detection: a pure detector per node, fed with one observation a beat.

A detector only counts; what its verdict is worth (a majority of vantages, evidence to the contrary) is
decided in `detection`. Source of the flow and of the defaults: specification, "Heartbeat Logic & Quorum
Model".
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

from pydantic import Field

from .model import LONGEST_S, Model

DAY_S, MOST = 86_400.0, 1_000


class NodeStatus(StrEnum):
    HEALTHY = "healthy"
    DEGRADED = "degraded"  # operational with reduced capacity: a standby that no writes reach
    FAILED = "failed"
    UNKNOWN = "unknown"  # not determined: never treated as down


class HeartbeatConfig(Model):
    """How often nodes are asked and when silence becomes failure. The flaps go beyond the specification."""

    interval_sec: float = Field(default=5.0, gt=0, le=DAY_S)
    """Time between two beats, seconds."""
    timeout_sec: float = Field(default=2.0, gt=0, le=DAY_S)
    """A beat without an answer after this long is a miss, seconds."""
    failure_threshold: int = Field(default=3, ge=1, le=MOST)
    """Consecutive misses that make a node failed."""
    recovery_threshold: int = Field(default=2, ge=1, le=MOST)
    """Consecutive answers that make a failed node healthy again."""
    watch_timeout_sec: float = Field(default=4.0, ge=1, le=DAY_S)
    """A vantage whose watch was not heard from for this long abstains, seconds. A watch speaks up four times
    in it, which is all that a cluster at rest costs the Temporal server: many clusters want a longer one."""
    jitter_percent: float = Field(default=10.0, ge=0, le=50)
    """Each beat moves by up to this share of the interval, so that many watchers do not ask in step."""
    flap_window_sec: float = Field(default=600.0, ge=0, le=LONGEST_S)
    """A node that fails again within this time of its recovery flaps, seconds, counted in beats. Each flap
    upon another doubles the answers in a row that its next recovery needs; 0 switches that off."""
    flap_recovery_limit: int = Field(default=32, ge=1, le=MOST)
    """Answers in a row that a flapping node needs at most; never fewer than `recovery_threshold`."""

    @property
    def stall_limit_s(self) -> float:
        """A watcher whose own loop was late by more than this says nothing of that beat, seconds.

        An answer that came in the first half of the timeout might be taken for a miss otherwise.
        """
        return self.timeout_sec / 2


class NodeDetector(Model):
    """What one vantage concludes of one node from its beats so far."""

    status: NodeStatus = NodeStatus.UNKNOWN
    """Unknown until the first answer or until enough misses; then healthy or failed, never degraded."""
    consecutive_misses: int = 0
    consecutive_recoveries: int = 0
    """Answers in a row from a node held for failed; 0 in any other status."""
    beats: int = 0
    """Observations so far."""
    last_error: str | None = None
    """Why the latest beat was a miss; None after an answer."""
    flaps: int = 0
    """How often it failed again, each time within `flap_window_sec` of its recovery."""
    recovered_at: int | None = None
    """The beat with which it last became healthy after a failure."""


def observe(
    detector: NodeDetector, ok: bool, config: HeartbeatConfig, error: str | None = None
) -> NodeDetector:
    """The detector after one more beat: an answer (`ok`), or a miss with its `error`.

    A healthy node stays healthy until `failure_threshold` misses in a row, a failed one stays failed until
    `answers_needed` answers in a row; an unknown one becomes healthy with its first answer.
    """
    return _answered(detector, config) if ok else _missed(detector, config, error)


def observe_end(detector: NodeDetector, config: HeartbeatConfig, error: str) -> NodeDetector:
    """The detector after the node's agent said that its database has ended: failed at once.

    The agent saw it, so there is nothing that more misses would make more certain.
    """
    missed = _missed(detector, config, error)
    return missed if missed.status is NodeStatus.FAILED else _failed(missed, config)


def answers_needed(detector: NodeDetector, config: HeartbeatConfig) -> int:
    """Answers in a row that make this failed node healthy."""
    most = max(config.flap_recovery_limit, config.recovery_threshold)
    doublings = min(detector.flaps, most.bit_length())
    return min(config.recovery_threshold << doublings, most)


def _answered(detector: NodeDetector, config: HeartbeatConfig) -> NodeDetector:
    beat = detector.beats + 1
    answered = {"beats": beat, "consecutive_misses": 0, "last_error": None}
    if detector.status is not NodeStatus.FAILED:
        return detector.model_copy(update={**answered, "status": NodeStatus.HEALTHY})
    recoveries = detector.consecutive_recoveries + 1
    if recoveries < answers_needed(detector, config):
        return detector.model_copy(update={**answered, "consecutive_recoveries": recoveries})
    recovered = {"status": NodeStatus.HEALTHY, "consecutive_recoveries": 0, "recovered_at": beat}
    return detector.model_copy(update={**answered, **recovered})


def _missed(detector: NodeDetector, config: HeartbeatConfig, error: str | None) -> NodeDetector:
    # Once failed it stays so: after a broken recovery the misses in a row start again from 1.
    missed = detector.model_copy(
        update={
            "beats": detector.beats + 1,
            "consecutive_misses": detector.consecutive_misses + 1,
            "consecutive_recoveries": 0,
            "last_error": error,
        }
    )
    fails = missed.consecutive_misses >= config.failure_threshold
    return _failed(missed, config) if fails and detector.status is not NodeStatus.FAILED else missed


def _failed(detector: NodeDetector, config: HeartbeatConfig) -> NodeDetector:
    """The detector as of the beat with which the node became failed."""
    since = None if detector.recovered_at is None else detector.beats - detector.recovered_at
    flaps = since is not None and since <= config.flap_window_sec / config.interval_sec
    return detector.model_copy(
        update={"status": NodeStatus.FAILED, "flaps": detector.flaps + 1 if flaps else 0}
    )


def next_beat_s(config: HeartbeatConfig, seed: str, beat: int) -> float:
    """When beat number `beat` (from 0) is due, seconds after the watch began.

    Beat k is due at k * interval plus its own offset between 0 and `jitter_percent` of the interval. Offsets
    do not add up, so the schedule never drifts, and two beats are always within ±`jitter_percent` of one
    interval apart. The offset is a hash of `seed` (name the vantage and the node) and the beat's number:
    the same after a restart, different between watchers.
    """
    digest = hashlib.sha256(f"{seed}\0{beat}".encode()).digest()
    share = int.from_bytes(digest[:8]) / 2**64
    return config.interval_sec * (beat + share * config.jitter_percent / 100)
