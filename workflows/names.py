"""Names that starters and workflows agree on: workflow ids (the locks), task queues, search attributes."""

from __future__ import annotations

from temporalio.common import SearchAttributeKey

RUNBOOKS_QUEUE = "qnwis-runbooks"

CLUSTER = SearchAttributeKey.for_keyword("QnwisCluster")
KIND = SearchAttributeKey.for_keyword("QnwisKind")
OUTCOME = SearchAttributeKey.for_keyword("QnwisOutcome")
INITIATOR = SearchAttributeKey.for_keyword("QnwisInitiator")
SEARCH_ATTRIBUTES = (CLUSTER, KIND, OUTCOME, INITIATOR)
"""The one list: registered at server start, upserted by every run (an unregistered one fails every task)."""


FAILOVER_PREFIX = "failover-"


def failover_id(cluster_id: str, *, dry_run: bool = False) -> str:
    """The workflow id of a failover run. Without `dry_run` it is the cluster's lock: one run at a time."""
    return f"dry-run-failover-{cluster_id}" if dry_run else f"{FAILOVER_PREFIX}{cluster_id}"


def round_trip_id(cluster_id: str) -> str:
    """Of maintenance there and back that a person starts; what a schedule starts has the time in its id."""
    return f"round-trip-{cluster_id}"


def guardian_id(cluster_id: str) -> str:
    return f"guardian-{cluster_id}"


def reprotect_id(cluster_id: str) -> str:
    """Of what brings the standbys of a cluster back."""
    return f"reprotect-{cluster_id}"


REGION_PREFIX = "region-"


def region_id(region: str, *, dry_run: bool = False) -> str:
    """Of the evacuation of a region: the region's lock. What it starts holds each cluster's own."""
    return f"dry-run-{REGION_PREFIX}{region}" if dry_run else f"{REGION_PREFIX}{region}"


def region_guardian_id(region: str) -> str:
    return f"guardian-of-{REGION_PREFIX}{region}"


def review_id(cluster_id: str, run_id: str) -> str:
    """Of the review that the emergency override `run_id` opens; each has one."""
    return f"review-{cluster_id}-{run_id}"


def readiness_id(cluster_id: str) -> str:
    """Of an evaluation that a person asks for, and of the schedule; the server appends a time to the ids of
    what a schedule starts."""
    return f"readiness-{cluster_id}"


ACCESS_REVIEW_ID = "access-review"
"""Of a review of access that a person asks for, and of the schedule."""


def vantage_queue(vantage: str) -> str:
    """The task queue that the workers standing at this vantage poll."""
    return f"qnwis-vantage-{vantage}"
