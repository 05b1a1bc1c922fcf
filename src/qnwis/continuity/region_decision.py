"""What a region's guardian does about a loss: nothing yet, leave it to people, or begin the evacuation, once.

It begins one only for clusters whose policy says so, only where vantages that are known to stand outside the
region see the loss, and never a second time for the same loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from .model import Model
from .policy import Strategy
from .refusal import Refusal
from .region_sight import ClusterInRegion
from .region_wait import RegionFinding
from .regions import RegionRules, RegionVerdict
from .run import RunOutcome

GOES_ON = "goes on"
"""The reason, of an evacuation that has not ended."""


@dataclass(frozen=True)
class Evacuate:
    """Begin the evacuation of these clusters."""

    clusters: tuple[str, ...]
    left: Mapping[str, str]
    """By cluster_id: why another one, whose primary is in the region too, is left as it is."""
    why: str


class Begun(Model):
    """The evacuation that this guardian began, or found begun, for one loss."""

    since: datetime
    """When that loss began."""
    clusters: tuple[str, ...]
    run_id: str | None = None
    """None where somebody else had begun one."""
    outcome: RunOutcome | None = None
    """None while it goes on, and where it ended without a result."""
    reason: str = GOES_ON

    @property
    def goes_on(self) -> bool:
        """Whether it is one whose end is not known yet; of one of nobody knows which, it never is."""
        return self.run_id is not None and self.outcome is None and self.reason == GOES_ON


def decide_region(
    verdict: RegionVerdict, seen: Sequence[ClusterInRegion], rules: RegionRules, begun: Begun | None
) -> Evacuate | Refusal | None:
    """What is done now. None where there is nothing to decide: it is not lost, or no primary is in it."""
    if verdict.finding is not RegionFinding.LOST:
        return None
    if begun is not None and begun.since == verdict.since:
        return _begun_before(verdict, begun)
    inside = [cluster for cluster in seen if cluster.primary_inside]
    if not inside:
        return None
    if all(cluster.strategy is Strategy.MANUAL for cluster in inside):
        return _left_to_people(verdict, inside)
    refusal = _seen_from_outside(verdict, seen, rules)
    if refusal is not None:
        return refusal
    left = {cluster.cluster_id: why for cluster in inside if (why := _stays(cluster)) is not None}
    going = tuple(cluster.cluster_id for cluster in inside if cluster.cluster_id not in left)
    if not going:
        return _none_may_go(verdict, left)
    return Evacuate(going, left, f"{verdict.region} is lost: {verdict.why}")


def to_tell(
    verdict: RegionVerdict, seen: Sequence[ClusterInRegion], rules: RegionRules, registered: int
) -> tuple[str, ...]:
    """The clusters whose guardians were told something else last. Where fewer clusters are registered in the
    region than a loss takes, none is told: nobody waits for what cannot come."""
    if registered < rules.min_clusters:
        return ()
    return tuple(cluster.cluster_id for cluster in seen if cluster.heard is not verdict.finding)


def region_answers(region: str, answering: Sequence[str]) -> Refusal | None:
    """Asked again at the last moment: a region where an agent answers is not lost, whatever was reported."""
    if not answering:
        return None
    return Refusal(
        rule="region_answers",
        message=f"{region} is called lost, but {', '.join(answering[:5])} in it answer",
        values={"region": region, "answering": [*answering]},
        remedy=f"Nothing is moved automatically; a person can leave it: {_command(region)}",
    )


def lock_taken(region: str, clusters: Sequence[str]) -> Refusal:
    """Why an evacuation does not begin although it should: a run that does not leave the region, a failback,
    holds its lock."""
    return Refusal(
        rule="region_lock_taken",
        message=f"{region} is lost, and the evacuation of {', '.join(clusters)} cannot begin: a run that does"
        f" not leave {region} holds its lock, a failback most likely",
        values={"region": region, "clusters": [*clusters]},
        remedy="It is tried again by itself. To let it begin:"
        f" qnwis-continuity region abort {region} --reason …",
    )


def stays_manual(region: str, cluster_id: str) -> Refusal:
    """Of one cluster that an automatic evacuation does not take along."""
    return Refusal(
        rule="region_strategy_manual",
        message=f"The policy of {cluster_id} leaves it to people whether it leaves {region}",
        values={"cluster_id": cluster_id, "region_strategy": Strategy.MANUAL.value},
        remedy=f"A person decides: {_command(region)}",
    )


def _stays(cluster: ClusterInRegion) -> str | None:
    if cluster.strategy is Strategy.MANUAL:
        return "region_strategy manual"
    if cluster.held_back is not None:
        return f"its guardian starts nothing by itself: {cluster.held_back}"
    if cluster.strategy is Strategy.QUORUM_BASED and not cluster.quorum_elsewhere:
        return "region_strategy quorum_based, and its quorum does not answer elsewhere"
    return None


def _seen_from_outside(
    verdict: RegionVerdict, seen: Sequence[ClusterInRegion], rules: RegionRules
) -> Refusal | None:
    sure = [cluster for cluster in seen if cluster.failed_from_outside]
    nodes = sum(len(cluster.failed_from_outside) for cluster in sure)
    if len(sure) >= rules.min_clusters and nodes >= rules.min_nodes:
        return None
    return Refusal(
        rule="not_seen_from_outside",
        message=f"Vantages that are known to stand outside {verdict.region} call {nodes} nodes of {len(sure)}"
        f" clusters failed; needed are {rules.min_nodes} of {rules.min_clusters}",
        values={
            "region": verdict.region,
            "nodes": nodes,
            "min_nodes": rules.min_nodes,
            "clusters": [cluster.cluster_id for cluster in sure],
            "min_clusters": rules.min_clusters,
        },
        remedy="Say in each cluster.yaml where its vantages stand (vantage_regions), most of them outside;"
        f" until then people decide: {_command(verdict.region)}",
    )


def _begun_before(verdict: RegionVerdict, begun: Begun) -> Refusal:
    run = f"run {begun.run_id}" if begun.run_id is not None else "a run that somebody else started"
    ended = "" if begun.outcome is None else f" {begun.outcome.value}"
    return Refusal(
        rule="evacuation_begun",
        message=f"For this loss of {verdict.region} an evacuation was begun, {run}:{ended} {begun.reason}",
        values={
            "region": verdict.region,
            "run_id": begun.run_id,
            "outcome": begun.outcome.value if begun.outcome is not None else None,
        },
        remedy=f"Nothing further starts by itself before {verdict.region} was well again; a person decides:"
        f" {_command(verdict.region)}",
    )


def _left_to_people(verdict: RegionVerdict, inside: Sequence[ClusterInRegion]) -> Refusal:
    names = [cluster.cluster_id for cluster in inside]
    return Refusal(
        rule="region_strategy_manual",
        message=f"{verdict.region} is lost; whether to leave it, the policies of {', '.join(names)} leave to"
        " people",
        values={"region": verdict.region, "clusters": [*names]},
        remedy=f"A person decides: {_command(verdict.region)}",
    )


def _none_may_go(verdict: RegionVerdict, left: Mapping[str, str]) -> Refusal:
    told = "; ".join(f"{cluster_id}: {why}" for cluster_id, why in left.items())
    return Refusal(
        rule="no_cluster_may_leave",
        message=f"{verdict.region} is lost, and no cluster leaves it by itself: {told}",
        values={"region": verdict.region, "left": {**left}},
        remedy="It is looked at again when one of these changes; a person decides:"
        f" {_command(verdict.region)}",
    )


def _command(region: str) -> str:
    return f"qnwis-continuity region evacuate {region} --reason … (--dry-run shows the plan)"
