"""Active/active: the weights of one cluster that a region leaves, or comes back to. Nothing is promoted.

How finely DNS can share the traffic out depends on who holds the name: weighted records of Route 53 take any
percentage, and so do the service records (SRV) of a name that servers hold, for clients that read them. A
geolocation record sends all of its clients to some addresses, and an address record that servers hold knows
no weights: there a region's address is in it or is not, so its share comes back all at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum

from .direction import Direction
from .model import Identifier, Model
from .refusal import Refusal
from .topology import Cluster
from .weights import RETURN_STEPS, TOTAL, Share, Weights, return_steps, without


class Steering(StrEnum):
    """How DNS sends clients to regions."""

    WEIGHTED = "weighted"  # by weight, each region a record
    GEOLOCATION = "geolocation"  # by where the client is, each region a record
    PRESENCE = "presence"  # one record with the addresses of all regions that take traffic


class WeightMove(Model):
    """Of one active/active cluster: the weights before, and after each step."""

    cluster_id: Identifier
    steering: Steering
    before: Mapping[str, int]
    steps: tuple[Mapping[str, int], ...]

    @property
    def after(self) -> Weights:
        return self.steps[-1]

    def told(self) -> str:
        """For people: `eu 50 → 0, us 50 → 100`, with what is between."""
        ways = {r: [self.before[r], *(step[r] for step in self.steps)] for r in sorted(self.before)}
        return ", ".join(f"{region} {' → '.join(map(str, way))}" for region, way in ways.items())


def steering_of(cluster: Cluster) -> Steering:
    """How the DNS service of an active/active cluster sends clients to its regions."""
    records = [node.record for node in cluster.primaries if node.record is not None]
    if not records:
        return Steering.PRESENCE if cluster.dns is None or cluster.dns.srv is None else Steering.WEIGHTED
    return Steering.GEOLOCATION if records[0].geo is not None else Steering.WEIGHTED


def spread(shares: Sequence[Share], away: Collection[str]) -> dict[str, int] | Refusal:
    """The weights while these regions take no traffic."""
    weights = {share.region: share.weight for share in shares}
    present = list(shares)
    for region in sorted(away):
        moved = without([s.model_copy(update={"weight": weights[s.region]}) for s in present], region)
        if isinstance(moved, Refusal):
            return moved
        weights |= moved
        present = [share for share in present if share.region != region]
    return weights


def shift_out(cluster: Cluster, in_force: Weights, region: str) -> WeightMove | Refusal | None:
    """The region's weight to the others, by what they have now; None where it has none."""
    if not in_force.get(region):
        return None
    shares = _in_force(cluster, in_force)
    moved = shares if isinstance(shares, Refusal) else without(shares, region)
    if isinstance(moved, Refusal):
        return moved
    return _move(cluster, in_force, (moved,))


def shift_back(
    cluster: Cluster, in_force: Weights, region: str, percents: Sequence[int] = RETURN_STEPS
) -> WeightMove | Refusal | None:
    """The region's own weight back to it, in steps where DNS can express them; None where it has it already.

    Another region that is away stays away.
    """
    now = _in_force(cluster, in_force)
    if isinstance(now, Refusal):
        return now
    away = {s.region for s in cluster.shares if s.weight and not in_force[s.region] and s.region != region}
    home = spread(cluster.shares, away)
    if isinstance(home, Refusal):
        return home
    if in_force == home or region not in home:
        return None
    shares = [
        share.model_copy(update={"weight": home[share.region]})
        for share in cluster.shares
        if share.region not in away
    ]
    steered = steering_of(cluster) is Steering.WEIGHTED
    steps = return_steps(shares, region, percents if steered else (100,))
    if isinstance(steps, Refusal):
        return steps
    out = dict.fromkeys(away, 0)
    left = [{**step, **out} for step in steps if step[region] > in_force[region]]
    return _move(cluster, in_force, tuple(left) or ({**steps[-1], **out},))


def shift_refusal(cluster: Cluster, after: Weights) -> Refusal | None:
    """Why these weights do not fit the topology as it is now, which may have been edited since."""
    capacity = {share.region: share.capacity for share in cluster.shares}
    if cluster.is_active_active and set(after) == set(capacity):
        over = {region: weight for region, weight in after.items() if weight > capacity[region]}
        if not over:
            return None
    return Refusal(
        rule="weights_no_longer_fit",
        message=f"{cluster.cluster_id}: the weights {dict(after)} do not fit its regions and their capacity"
        f" {capacity}",
        values={"after": dict(after), "capacity": dict(capacity)},
        remedy="The topology was edited meanwhile: plan again.",
    )


def unshifted(cluster: Cluster, in_force: Weights, region: str, direction: Direction) -> str | None:
    """Why the weights are not what they were to become; None once they are."""
    if direction is Direction.OUT:
        left = in_force.get(region, 0)
        return f"{region} has {left} percent of the traffic still" if left else None
    rest = shift_back(cluster, in_force, region)
    if rest is None:
        return None
    return str(rest) if isinstance(rest, Refusal) else f"weights: {rest.told()}"


def _in_force(cluster: Cluster, in_force: Weights) -> list[Share] | Refusal:
    """The shares with the weights that are in force."""
    regions = {share.region for share in cluster.shares}
    if set(in_force) == regions and sum(in_force.values()) == TOTAL:
        return [share.model_copy(update={"weight": in_force[share.region]}) for share in cluster.shares]
    return Refusal(
        rule="weights_in_force_unfit",
        message=f"The weights in force for {cluster.cluster_id} are {dict(sorted(in_force.items()))};"
        f" expected one of each of {', '.join(sorted(regions))}, which sum to {TOTAL}",
        values={"in_force": dict(in_force), "regions": sorted(regions)},
        remedy="Set the records' weights to the percentages of the topology, then plan again.",
    )


def _move(cluster: Cluster, before: Weights, steps: tuple[Weights, ...]) -> WeightMove:
    return WeightMove(
        cluster_id=cluster.cluster_id, steering=steering_of(cluster), before=dict(before), steps=steps
    )
