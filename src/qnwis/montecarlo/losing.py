"""What was acknowledged and is lost, as seconds of writes: the lag of the standby that takes over.

Which one that is, is the order of the real plan's candidates and the real rule of `targets`: of those that
are at most `max_lag_bytes` behind the most advanced one, the most preferred.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qnwis.continuity.policy import Policy
from qnwis.continuity.topology import Cluster, ReplicationMode

from .draws import Draws, Floats, Ints
from .world import World


def lost_s(
    cluster: Cluster, policy: Policy, world: World, candidates: Sequence[str], draws: Draws, count: int
) -> Floats:
    """`candidates`: the eligible standbys, the most preferred first."""
    if cluster.replication.mode is ReplicationMode.SYNCHRONOUS:
        return np.zeros(count)  # a node that could lack an acknowledged write is no target
    lags_s = np.stack(
        [draws.spread(f"lag {node_id}", world.replication.lag_s, count) for node_id in candidates], axis=1
    )
    lags_bytes = np.floor(lags_s * world.replication.write_bytes_per_s)
    chosen = chosen_target(lags_bytes, policy.max_lag_bytes)
    return np.asarray(np.take_along_axis(lags_s, chosen[:, None], axis=1)[:, 0])


def chosen_target(lags_bytes: Floats, max_lag_bytes: int) -> Ints:
    """By failure, the index of the standby that takes over."""
    behind = lags_bytes - lags_bytes.min(axis=1, keepdims=True)
    return np.asarray(np.argmax(behind <= max_lag_bytes, axis=1), dtype=np.int64)
