"""Failure detection: a pure detector per node, fed with one observation a beat.

A detector only counts; what its verdict is worth (a majority of vantages, evidence to the contrary) is
decided elsewhere. Source of the defaults and of the flow: specification, "Heartbeat Logic & Quorum Model".
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

from pydantic import Field

from .model import Model


class NodeStatus(StrEnum):
    HEALTHY = "healthy"
    DEGRADED = "degraded"  # operational with reduced capacity
    FAILED = "failed"
    UNKNOWN = "unknown"  # not determined: never treated as down


class HeartbeatConfig(Model):
    """How often nodes are asked and when silence becomes failure."""

    interval_sec: float = Field(default=5.0, gt=0)
    """Time between two beats, seconds."""
    timeout_sec: float = Field(default=2.0, gt=0)
    """A beat without an answer after this long is a miss, seconds."""
    failure_threshold: int = Field(default=3, ge=1)
    """Consecutive misses that make a node failed."""
    recovery_threshold: int = Field(default=2, ge=1)
    """Consecutive answers that make a failed node healthy again."""
    jitter_percent: float = Field(default=10.0, ge=0, le=50)
    """Each beat moves by up to this share of the interval, so that many watchers do not ask in step."""


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


def observe(
    detector: NodeDetector, ok: bool, config: HeartbeatConfig, error: str | None = None
) -> NodeDetector:
    """The detector after one more beat: an answer (`ok`), or a miss with its `error`.

    A healthy node stays healthy until `failure_threshold` misses in a row, a failed one stays failed until
    `recovery_threshold` answers in a row; an unknown one becomes healthy with its first answer.
    """
    failed = detector.status is NodeStatus.FAILED
    if ok:
        recoveries = detector.consecutive_recoveries + 1 if failed else 0
        recovering = failed and recoveries < config.recovery_threshold
        return NodeDetector(
            status=NodeStatus.FAILED if recovering else NodeStatus.HEALTHY,
            consecutive_recoveries=recoveries if recovering else 0,
            beats=detector.beats + 1,
        )
    misses = detector.consecutive_misses + 1
    return NodeDetector(
        # Once failed it stays so: after a broken recovery the misses in a row start again from 1.
        status=NodeStatus.FAILED if failed or misses >= config.failure_threshold else detector.status,
        consecutive_misses=misses,
        beats=detector.beats + 1,
        last_error=error,
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
