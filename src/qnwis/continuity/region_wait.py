"""What a region's guardian tells the clusters' guardians, and how long they wait before each acts alone.

The wait is bounded by the cluster guardian's own clock: a region's guardian that dies, or that says the same
for ever, holds nobody for longer than the policy allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum

from .detection import Finding, Verdict
from .guardian_rules import Hold
from .heartbeat import NodeDetector
from .model import Identifier, Model
from .policy import Policy
from .refusal import Refusal
from .topology import Cluster, NodeStatus


class RegionFinding(StrEnum):
    WELL = "well"
    SUSPECTED = "suspected"  # lost by what is known, and not yet for long enough
    LOST = "lost"


class RegionWord(Model):
    """Told by a region's guardian to the guardian of each cluster that has nodes there."""

    region: Identifier
    finding: RegionFinding
    why: str


class Heard(Model):
    """The newest word on one region."""

    word: RegionWord
    suspected_at: datetime | None = None
    """When the first word of the present suspicion was taken in, by whoever took it in; None while it is
    well. From then on the wait counts."""


def heard_after(before: Heard | None, word: RegionWord, now: datetime) -> Heard:
    """With this word. A suspicion that goes on keeps its beginning, whatever is said of it."""
    if word.finding is RegionFinding.WELL:
        return Heard(word=word)
    began = before.suspected_at if before is not None else None
    return Heard(word=word, suspected_at=began or now)


class FailedSince(Model):
    """The primary, and since when it is called failed."""

    node_id: str
    at: datetime


def failed_after(before: FailedSince | None, primary: Verdict | None, now: datetime) -> FailedSince | None:
    """Since when the primary is failed, with this verdict on it. What is not known neither begins nor ends
    it: only a primary that is healthy, or another one, has the next wait begin anew."""
    if primary is None:
        return before
    if before is not None and before.node_id != primary.node_id:
        before = None
    if primary.finding is Finding.FAILED:
        return before or FailedSince(node_id=primary.node_id, at=now)
    return None if primary.finding is Finding.HEALTHY else before


Sights = Mapping[str, Mapping[str, NodeDetector]]
"""By vantage, then by node: what its watch has counted."""


def answering(cluster: Cluster, sights: Sights, primary_node_id: str) -> tuple[str, ...]:
    """Other nodes of the primary's region that answered a vantage outside it at its last beat.

    A vantage speaks when a status changes: only the word of those counts who call the primary failed, as that
    of another one may be older than the failure. A node that is called healthy and has missed the last beat
    may be about to follow the primary.
    """
    region = cluster.node(primary_node_id).region
    outside = [
        vantage
        for vantage in cluster.vantages
        if cluster.vantage_regions.get(vantage) != region
        and (seen := sights.get(vantage, {}).get(primary_node_id)) is not None
        and seen.status is NodeStatus.FAILED
    ]
    return tuple(
        node.node_id
        for node in cluster.nodes
        if node.region == region
        and node.node_id != primary_node_id
        and any(_answers(sights.get(vantage, {}).get(node.node_id)) for vantage in outside)
    )


def _answers(seen: NodeDetector | None) -> bool:
    return seen is not None and seen.status is NodeStatus.HEALTHY and seen.consecutive_misses == 0


def region_hold(
    policy: Policy,
    region: str,
    heard: Heard | None,
    failed_at: datetime,
    answers: tuple[str, ...],
    now: datetime,
) -> Hold | None:
    """Why a primary that failed at `failed_at` is left to its region's guardian, and until when at most.

    `heard`: the newest word on the primary's region; None where no guardian watches it. `answers`: other
    nodes in it that do.

    | told      | others there answer | held                                                            |
    |-----------|---------------------|-----------------------------------------------------------------|
    | nothing   |                     | no: nobody watches the region                                   |
    | well      | yes                 | no: the node is lost and not its region                         |
    | well      | no                  | for `region_listen_s`: of the other clusters nothing is known yet |
    | suspected |                     | for `region_wait_s`                                             |
    | lost      |                     | for `region_wait_s`                                             |
    """
    if heard is None or policy.region_wait_s == 0:
        return None
    told = heard.word
    if told.finding is RegionFinding.WELL:
        until = failed_at + timedelta(seconds=policy.region_listen_s)
        return None if answers or now >= until else Hold(_listening(policy, region, failed_at, until), until)
    # The earlier of both: neither a suspicion without end nor one that comes again and again holds it.
    began = min(failed_at, heard.suspected_at or failed_at)
    until = began + timedelta(seconds=policy.region_wait_s)
    return None if now >= until else Hold(_waiting(policy, told, began, until), until)


def _listening(policy: Policy, region: str, failed_at: datetime, until: datetime) -> Refusal:
    return Refusal(
        rule="region_not_known_yet",
        message=f"No other node of this cluster in {region} answers; whether those of other clusters do is"
        f" known within {policy.region_listen_s:g} s",
        values={
            "region": region,
            "failed_at": failed_at.isoformat(),
            "region_listen_s": policy.region_listen_s,
        },
        remedy=f"The rule ends at {until.isoformat()}, or when a node there answers; if the region's loss is"
        " suspected by then, region_loss_suspected follows.",
    )


def _waiting(policy: Policy, told: RegionWord, began: datetime, until: datetime) -> Refusal:
    return Refusal(
        rule="region_loss_suspected",
        message=f"{told.region} is {told.finding.value}: {told.why}; this cluster waits for the region's"
        f" guardian for {policy.region_wait_s:g} s at most",
        values={
            "region": told.region,
            "finding": told.finding.value,
            "waits_since": began.isoformat(),
            "region_wait_s": policy.region_wait_s,
        },
        remedy=f"The rule ends at {until.isoformat()}, when {told.region} is well again, or when its"
        f" evacuation moves this cluster (qnwis-continuity region evacuate {told.region} --reason …); a"
        " person can execute a plan before that.",
    )


def wait_advice(policy: Policy, dwell_s: float) -> str | None:
    """What is odd about a wait that ends before a loss counts as one."""
    if policy.region_wait_s == 0 or policy.region_wait_s > dwell_s:
        return None
    return (
        f"region_wait_s {policy.region_wait_s:g} is no longer than dwell_s {dwell_s:g}: this cluster acts"
        " alone before the loss of its region counts as one; 0 says so plainly, above dwell_s it waits"
    )
