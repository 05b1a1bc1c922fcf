"""What is seen of a region: of which clusters, which of their nodes there, and from where."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel

from .detection import Finding, Verdict
from .guardian_rules import PastRun, Pause, held_back
from .managers import automatic_refusal
from .model import Identifier, Model
from .policy import Policy, Strategy
from .region_wait import Heard, RegionFinding
from .topology import Cluster, NodeStatus, majority


class FailedFrom(StrEnum):
    """Where those stand who call a node of a region failed."""

    OUTSIDE = "outside"  # a majority of the vantages that may be outside, each of them known to be
    UNPLACED = "unplaced"  # such a majority, of vantages of some of which nobody knows where they stand
    INSIDE = "inside"  # no majority without those in the region itself


def failed_from(cluster: Cluster, region: str, saying: Collection[str]) -> FailedFrom:
    """`saying`: the vantages that call the node failed. A vantage of which nobody knows where it stands may
    be outside; to have a region's loss suspected that is enough, to move anything it is not."""
    places = cluster.vantage_regions
    others = [vantage for vantage in cluster.vantages if places.get(vantage) != region]
    agreeing = [vantage for vantage in others if vantage in saying]
    need = majority(len(others))
    if sum(vantage in places for vantage in agreeing) >= need:
        return FailedFrom.OUTSIDE
    return FailedFrom.UNPLACED if len(agreeing) >= need else FailedFrom.INSIDE


class ClusterInRegion(Model):
    """What a cluster's guardian holds of the part of its cluster that is in one region."""

    cluster_id: Identifier
    priority: int = 0
    """The higher, the earlier it is moved; from its policy."""
    primary_inside: bool
    """Of an active/active cluster: whether one of its primaries is at home there."""
    findings: Mapping[str, Finding]
    """By node_id, of its nodes in the region."""
    seen_from: Mapping[str, FailedFrom] | None = None
    """By node_id, of those that are failed; None where it was not asked."""
    strategy: Strategy = Strategy.MANUAL
    """Who has it leave a lost region; from its policy."""
    quorum_elsewhere: bool = False
    """Whether so many of its nodes outside the region are healthy as its quorum asks for; of an active/active
    cluster as the quorum of each other region asks for."""
    held_back: str | None = None
    """The rule by which its guardian would start nothing by itself now."""
    heard: RegionFinding | None = None
    """What its guardian was told of the region last."""

    @property
    def failed(self) -> tuple[str, ...]:
        """Those that not only vantages inside the region call failed."""
        return tuple(n for n in self._failed if self._from(n) is not FailedFrom.INSIDE)

    @property
    def failed_from_outside(self) -> tuple[str, ...]:
        """Those of which vantages say so that are known to stand outside."""
        return tuple(n for n in self._failed if self._from(n) is FailedFrom.OUTSIDE)

    @property
    def alive(self) -> tuple[str, ...]:
        """Those that are healthy, and those of which somebody, a standby or a vantage, says that they are."""
        shown = (
            {Finding.HEALTHY} if self.seen_from is None else {Finding.HEALTHY, Finding.PARTITION_SUSPECTED}
        )
        return tuple(node_id for node_id, finding in self.findings.items() if finding in shown)

    @property
    def _failed(self) -> Sequence[str]:
        return [node_id for node_id, finding in self.findings.items() if finding is Finding.FAILED]

    def _from(self, node_id: str) -> FailedFrom:
        return (self.seen_from or {}).get(
            node_id, FailedFrom.UNPLACED if self.seen_from is None else FailedFrom.INSIDE
        )


class _Detector(BaseModel):
    status: NodeStatus


class _Vote(BaseModel):
    detector: _Detector


class _Statement(BaseModel):
    votes: dict[str, _Vote]


class HeldByGuardian(BaseModel):
    """Of what a cluster's guardian answers when it is asked, the part that a region is judged by."""

    primary_node_id: str | None
    verdicts: dict[str, Verdict]
    statements: dict[str, _Statement] = {}
    history: tuple[PastRun, ...] = ()
    pause: Pause | None = None
    watching_since: datetime | None = None
    changed_at: datetime | None = None
    regions: dict[str, Heard] = {}

    def of_region(self, cluster: Cluster, region: str, policy: Policy, now: datetime) -> ClusterInRegion:
        """The same, of one region alone."""
        inside = {node.node_id for node in cluster.nodes if node.region == region}
        findings = {node_id: v.finding for node_id, v in self.verdicts.items()}
        healthy = {n for n, finding in findings.items() if finding is Finding.HEALTHY and n not in inside}
        heard = self.regions.get(region)
        by_patroni = automatic_refusal(cluster)
        return ClusterInRegion(
            cluster_id=cluster.cluster_id,
            priority=policy.evacuation_priority,
            primary_inside=any(node.node_id in inside for node in cluster.primaries)
            if cluster.is_active_active
            else self.primary_node_id in inside,
            findings={node_id: finding for node_id, finding in findings.items() if node_id in inside},
            seen_from={
                node_id: failed_from(cluster, region, self._calling_failed(node_id))
                for node_id, finding in findings.items()
                if node_id in inside and finding is Finding.FAILED
            },
            strategy=policy.region_strategy,
            quorum_elsewhere=_quorum_elsewhere(cluster, region, healthy),
            held_back=by_patroni.message if by_patroni is not None else self._held_back(policy, now),
            heard=heard.word.finding if heard is not None else None,
        )

    def _calling_failed(self, node_id: str) -> set[str]:
        return {
            vantage
            for vantage, said in self.statements.items()
            if node_id in said.votes and said.votes[node_id].detector.status is NodeStatus.FAILED
        }

    def _held_back(self, policy: Policy, now: datetime) -> str | None:
        """Only the rule's name: a sentence that tells the time would be another one each time."""
        held = held_back(
            policy=policy,
            history=self.history,
            pause=self.pause,
            watching_since=self.watching_since or now,
            changed_at=self.changed_at or now,
            now=now,
        )
        return held.refusal.rule if held is not None else None


def _quorum_elsewhere(cluster: Cluster, region: str, healthy: Collection[str]) -> bool:
    """`healthy`: of its nodes outside the region."""
    if not cluster.is_active_active:
        return len(healthy) >= cluster.quorum
    others = [group for group in cluster.lease_groups if region not in group.regions]
    return all(sum(node.node_id in healthy for node in group.nodes) >= group.quorum for group in others)
