"""Activities that wait for as long as nothing changes: how often they speak up."""

from __future__ import annotations

from temporalio import activity

WORDS_IN_A_TIMEOUT = 4
"""So often in the time after which a silent worker is taken for gone: three words may be lost or late."""
UNLESS_GIVEN_S = 1.0


def speaks_every_s() -> float:
    """Of the activity that asks, seconds; its workflow chose the heartbeat timeout."""
    timeout = activity.info().heartbeat_timeout
    return timeout.total_seconds() / WORDS_IN_A_TIMEOUT if timeout else UNLESS_GIVEN_S
