"""The actions of a plan that have Patroni act, each by its REST API."""

from __future__ import annotations

from typing import Literal

from .model import Model


class PatroniSwitchover(Model):
    """Have Patroni hand the leader lock from a leader that is well to the target. The point of no return.

    Patroni stops the old primary, sees that the target has all of its log, and lets it take the lock.
    """

    kind: Literal["patroni_switchover"] = "patroni_switchover"
    action_id: str
    leader: str
    """node_id of the old primary, which becomes a replica."""
    node_id: str
    """Who takes over; in the same region."""
    estimate_ms: int


class PatroniFailover(Model):
    """Have Patroni make the target the leader, whatever has become of the old one. The point of no return."""

    kind: Literal["patroni_failover"] = "patroni_failover"
    action_id: str
    leader: str
    node_id: str
    estimate_ms: int


class PatroniDemoteCluster(Model):
    """Make the old region's cluster a standby cluster of the target, see it read-only, and see that the
    target has all of its log. Brings the fencing evidence."""

    kind: Literal["patroni_demote_cluster"] = "patroni_demote_cluster"
    action_id: str
    node_id: str
    """The old primary."""
    node_ids: tuple[str, ...]
    """All members of its region."""
    target: str
    upstream_host: str
    """Of the target's database, which the old region follows from now on."""
    upstream_port: int
    estimate_ms: int


class PatroniFenceCluster(Model):
    """Make certain that no member of the old region can write, without asking its Patroni: by the power
    switch, for every member; or on a person's word. Brings the fencing evidence."""

    kind: Literal["patroni_fence_cluster"] = "patroni_fence_cluster"
    action_id: str
    node_id: str
    """The old primary."""
    node_ids: tuple[str, ...]
    attested_by: str | None = None
    """Who states that all of them are off; None where the fencing hook switches them off."""
    estimate_ms: int


class PatroniPromoteCluster(Model):
    """Make the target's cluster one that has a primary: it is a standby cluster no more. The point of no
    return."""

    kind: Literal["patroni_promote_cluster"] = "patroni_promote_cluster"
    action_id: str
    node_id: str
    """The standby leader."""
    left: tuple[str, ...]
    """The old region's members, none of which may accept writes."""
    estimate_ms: int


PatroniAction = (
    PatroniSwitchover | PatroniFailover | PatroniDemoteCluster | PatroniFenceCluster | PatroniPromoteCluster
)
