"""Readiness of an active/active cluster as a whole: would the others carry on if a region were lost now?

There is no target and no standby of the whole: each region's lease group has a readiness of its own. Read
`REGION_CHECKS` as the list. Missing data never gives Ready.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import JsonValue

from .losses import Effect, losses
from .readiness_facts import Check, Facts, Grade
from .refusal import Refusal
from .region_groups import GroupView, group_views
from .weights import step_refusal, without


def each_region_serves(facts: Facts) -> Check:
    """In each region one primary takes writes, under a lease that the region's own nodes grant."""
    name = "each region serves"
    if facts.evidence is None:
        return _unknown(name, "no agent was asked")
    views = group_views(facts.cluster, facts.evidence, facts.weights)
    faults = [(_grade_of(view), _fault(view)) for view in views if not view.serves]
    right = ", ".join(f"{view.primary_node_id} in {view.region}" for view in views)
    taken_at = facts.evidence.taken_at
    return Check(
        name=name,
        grade=_worst([grade for grade, _ in faults]),
        reason="; ".join(told for _, told in faults) or f"writes are taken by {right}",
        values={view.region: view.primary_node_id for view in views},
        age_s=None if taken_at is None else max(0.0, (facts.now - taken_at).total_seconds()),
    )


def regions_replicate(facts: Facts) -> Check:
    """Each region has what the others wrote, up to what the policy lets be missing: that much is not there
    for a while when a region is lost."""
    name, allowed = "replication between regions", facts.policy.max_lag_bytes
    faults: list[tuple[Grade, str]] = []
    for region in (share.region for share in facts.cluster.shares):
        found = facts.regions.get(region)
        if found is None or None in found.model_dump().values():
            faults.append(
                (Grade.NOT_EVALUATED, f"{region}: {'not asked' if found is None else found.told()}")
            )
        elif step_refusal(region, found, max_lag_bytes=allowed) is not None:
            faults.append((Grade.NOT_READY, f"{region}: {found.told()}"))
    values: dict[str, JsonValue] = {r: found.model_dump(mode="json") for r, found in facts.regions.items()}
    return Check(
        name=name,
        grade=_worst([grade for grade, _ in faults]),
        reason="; ".join(told for _, told in faults) or "all regions hold the same rows, and keep up",
        values={**values, "max_lag_bytes": allowed},
        age_s=None if faults and not facts.regions else 0,
    )


def weights_are_at_home(facts: Facts) -> Check:
    """DNS sends to each region the share that the topology gives it."""
    name = "DNS weights"
    if facts.weights is None:
        return _unknown(name, "the weights in force could not be read")
    home = {share.region: share.weight for share in facts.cluster.shares}
    away = {
        region: facts.weights.get(region, 0) for region in home if facts.weights.get(region) != home[region]
    }
    told = ", ".join(f"{region} takes {weight}, at home {home[region]}" for region, weight in away.items())
    return Check(
        name=name,
        grade=Grade.WARNING if away else Grade.READY,
        reason=told or f"every server gives each region its share: {_shares(home)}",
        values={"in_force": dict(facts.weights), "home": dict(home)},
        age_s=0,
    )


def others_have_room(facts: Facts) -> Check:
    """The loss of each region that takes traffic: whether the others that serve can take its share."""
    name = "loss of any region"
    if facts.evidence is None or facts.weights is None:
        return _unknown(name, "agents or the weights in force could not be asked")
    serving = {v.region for v in group_views(facts.cluster, facts.evidence, facts.weights) if v.serves}
    shares = [
        share.model_copy(update={"weight": facts.weights.get(share.region, 0)})
        for share in facts.cluster.shares
    ]
    stopped: dict[str, JsonValue] = {}
    for lost in (share.region for share in shares if share.weight):
        left = [s if s.region in {*serving, lost} else s.model_copy(update={"capacity": 0}) for s in shares]
        moved = without(left, lost)
        if isinstance(moved, Refusal):
            stopped[lost] = moved.message
    told = "; ".join(f"{region}: {why}" for region, why in stopped.items())
    return Check(
        name=name,
        grade=Grade.WARNING if stopped else Grade.READY,
        reason=told or "the others would take its share, one region at a time",
        values={"serving": sorted(serving), "stopped": stopped},
        age_s=0,
    )


def nodes_are_spare(facts: Facts) -> Check:
    """The loss of each node: its region goes on, or goes with it. Counted on the topology alone."""
    found = [loss for loss in losses(facts.cluster) if not loss.what.startswith("region ")]
    worse = {loss.what: loss.why for loss in found if loss.effect in (Effect.SHIFTS, Effect.STOPS)}
    stops = any(loss.effect is Effect.STOPS for loss in found)
    grade = Grade.NOT_READY if stops else Grade.WARNING if worse else Grade.READY
    told = "; ".join(f"{node_id} takes its region along: {why}" for node_id, why in worse.items())
    return Check(
        name="loss of any node",
        grade=grade,
        reason=told or f"{len(found)} losses would be survived within their regions, one at a time",
        values={"takes_its_region_along": dict(worse)},
        age_s=0,
    )


def groups_have_runs(facts: Facts) -> Check:
    """What verifies a configuration happens within the regions."""
    groups = ", ".join(group.cluster_id for group in facts.cluster.lease_groups)
    reason = f"runs and drills are of the lease groups: see the readiness of {groups}"
    return Check(name="last drill", grade=Grade.NOT_EVALUATED, reason=reason, counts=False)


REGION_CHECKS: tuple[Callable[[Facts], Check], ...] = (
    each_region_serves,
    regions_replicate,
    others_have_room,
    nodes_are_spare,
    weights_are_at_home,
    groups_have_runs,
)


def _grade_of(view: GroupView) -> Grade:
    """Of a region that does not serve. Silence is not known; a region that nobody is sent to is no fault of
    those that serve."""
    if not view.is_needed:
        return Grade.WARNING
    return Grade.NOT_READY if view.answering >= view.quorum_size else Grade.NOT_EVALUATED


def _fault(view: GroupView) -> str:
    takes = "not known what" if view.weight is None else f"{view.weight} percent"
    quorum = "" if view.has_quorum else f", quorum {view.quorum_size} not reached"
    return (
        f"{view.region} has no one primary that takes writes ({view.healthy_nodes} of {view.total_nodes}"
        f" nodes healthy{quorum}); of the traffic it takes {takes}"
    )


def _shares(weights: dict[str, int]) -> str:
    return ", ".join(f"{region} {weight}" for region, weight in sorted(weights.items()))


def _worst(grades: Sequence[Grade]) -> Grade:
    return max(grades, key=list(Grade).index, default=Grade.READY)


def _unknown(name: str, why: str) -> Check:
    return Check(name=name, grade=Grade.NOT_EVALUATED, reason=why)
