"""Reprotect: how many standbys a cluster wants, which are there, and why each of the others is not.

A cluster wants every node that holds data to be the primary or to stream from it. One that does not is
brought back by a rejoin where that can help: an old primary that is kept down, a standby that does not get
on. A node whose machine does not answer, or that is no member any more, needs a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from pydantic import Field

from .evidence import ClusterEvidence, NodeEvidence, NodeState, current_primary
from .model import Model
from .topology import Cluster

BRING_BACK_FIRST, BRING_BACK_LONGEST = timedelta(seconds=30), timedelta(hours=1)
"""After an attempt that did not bring a node back: before the next one, and at most."""


class Missing(Model):
    """A standby that is wanted and not there."""

    node_id: str
    why: str
    remedy: str
    rejoins: bool = False
    """Whether a rejoin to the present primary can bring it back."""


class Protection(Model):
    """The standbys of one primary."""

    cluster_id: str
    primary: str | None
    """None where nobody is known to accept writes: then nothing can be brought back to it."""
    wanted: int
    there: tuple[str, ...]
    missing: tuple[Missing, ...]

    @property
    def whole(self) -> bool:
        return self.primary is not None and not self.missing

    def same(self, other: Protection) -> bool:
        """Whether the same standbys are missing, whatever the words for why."""
        return self.primary == other.primary and self._who() == other._who()

    def _who(self) -> set[tuple[str, bool]]:
        return {(one.node_id, one.rejoins) for one in self.missing}

    @property
    def in_words(self) -> str:
        told = "; ".join(f"{one.node_id} {one.why}" for one in self.missing)
        return f"{len(self.there)} of {self.wanted} standbys stream" + (f": {told}" if told else "")


class Attempt(Model):
    """A rejoin that was ordered for a node that is still missing."""

    count: int = Field(ge=1)
    """How many in a row."""
    ended_at: datetime
    said: str
    """What came of the last one."""

    @property
    def again_at(self) -> datetime:
        return self.ended_at + min(BRING_BACK_FIRST * (1 << min(self.count - 1, 20)), BRING_BACK_LONGEST)


def protections(cluster: Cluster, evidence: ClusterEvidence) -> tuple[Protection, ...]:
    """One for each primary: of an active/active cluster each region has one."""
    if not cluster.is_active_active:
        return (protection(cluster, evidence),)
    regions = dict.fromkeys(node.region for node in cluster.nodes)
    return tuple(protection(cluster.lease_group(region), evidence) for region in regions)


def protection(cluster: Cluster, evidence: ClusterEvidence) -> Protection:
    """What the standbys say now. A witness holds no data and is no standby."""
    seen = {node.node_id: node for node in evidence.nodes}
    nodes = tuple(seen[node.node_id] for node in cluster.nodes if node.node_id in seen)
    primary_id = current_primary(cluster, evidence.model_copy(update={"nodes": nodes}))
    primary = seen[primary_id].state if primary_id in seen else None
    if primary is not None and not primary.writable:
        primary = None
    there: list[str] = []
    missing: list[Missing] = []
    data = [node.node_id for node in cluster.nodes if node.holds_data]
    for node_id in data:
        if primary is not None and node_id == primary.node_id:
            continue
        found = _why_missing(cluster, seen.get(node_id), node_id, primary)
        if found is None:
            there.append(node_id)
        else:
            missing.append(found)
    if primary is None and primary_id in data:
        # Whoever is taken for the primary does not serve, and is no standby that is missing.
        missing = [one for one in missing if one.node_id != primary_id]
    return Protection(
        cluster_id=cluster.cluster_id,
        primary=None if primary is None else primary.node_id,
        wanted=max(0, len(data) - 1),
        there=tuple(there),
        missing=tuple(missing),
    )


def next_to_bring_back(
    found: Protection, attempts: Mapping[str, Attempt], now: datetime
) -> Missing | datetime | None:
    """The node to order a rejoin to now; else from when on the next one is due; None where no rejoin helps.

    One at a time: a fresh copy burdens the primary. The node that was tried least often comes first.
    """
    waiting = [one for one in found.missing if one.rejoins]
    if found.primary is None or not waiting:
        return None
    due = [one for one in waiting if (last := attempts.get(one.node_id)) is None or last.again_at <= now]
    if due:
        return min(due, key=lambda one: attempts[one.node_id].count if one.node_id in attempts else 0)
    return min(attempts[one.node_id].again_at for one in waiting)


def _why_missing(
    cluster: Cluster, seen: NodeEvidence | None, node_id: str, primary: NodeState | None
) -> Missing | None:
    state = None if seen is None else seen.state
    if state is None:
        error = None if seen is None else seen.error
        return Missing(
            node_id=node_id,
            why=f"does not answer ({error or 'it was not asked'})",
            remedy="Start its machine and its agent, or give the node up",
        )
    if cluster.by_http:  # it does not say whom it follows: that it stands by is all there is to see
        return _not_standing_by(state, node_id)
    if state.streaming and (primary is None or _on_its_timeline(cluster, state, primary)):
        return None
    if primary is None:
        return Missing(
            node_id=node_id, why="does not stream, and no primary accepts writes", remedy="Have one promoted"
        )
    if not state.member:
        return Missing(
            node_id=node_id,
            why="takes no part any more",
            remedy=f"qnwis-continuity member replace, or member add, for {node_id}",
        )
    if state.writable:
        return Missing(
            node_id=node_id,
            why="accepts writes itself",
            remedy="Find out which of the two holds the lease before anything else",
        )
    if state.epoch > primary.epoch:
        return Missing(
            node_id=node_id,
            why=f"promised epoch {state.epoch} to a run, and {primary.node_id} serves under {primary.epoch}",
            remedy=f"Wait for that run; if there is none, qnwis-continuity rejoin {node_id}",
        )
    if state.restarting:
        return Missing(node_id=node_id, why="is starting its database", remedy="Wait")
    return Missing(
        node_id=node_id,
        why=_not_streaming(state, primary),
        remedy="Patroni brings it back by itself; see its log"
        if cluster.by_patroni
        else f"qnwis-continuity rejoin {node_id}",
        rejoins=not cluster.by_patroni,
    )


def _not_standing_by(state: NodeState, node_id: str) -> Missing | None:
    if not state.writable:
        return None
    return Missing(
        node_id=node_id,
        why="accepts writes itself",
        remedy="Ask its application to demote itself, by its own means",
    )


def _on_its_timeline(cluster: Cluster, state: NodeState, primary: NodeState) -> bool:
    if cluster.by_patroni:  # a region's members follow its standby leader
        return state.timeline == primary.timeline
    return state.upstream == primary.node_id and state.timeline == primary.timeline


def _not_streaming(state: NodeState, primary: NodeState) -> str:
    if not state.database_up:
        return f"is down ({state.why_down or 'its agent does not say why'})"
    if state.streaming:
        return f"streams from {state.upstream} on timeline {state.timeline}, not from {primary.node_id}"
    return f"does not stream from {primary.node_id}"
