"""Whether the plan's target may be promoted, asked between fencing and the point of no return, and what it
takes from another standby first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .evidence import ClusterEvidence
from .http_service import http_refusal_to_move, others_write
from .patroni import old_region_writes, refusal_to_move
from .plan import Plan
from .policy import Policy
from .refusal import Refusal
from .targets import Basis, Survey, coverage_refusal, rank, survey
from .topology import Cluster


class MissingLog(NamedTuple):
    """What the target lacks and another standby has."""

    node_id: str
    """Who has it."""
    to_lsn: int


def missing_log(plan: Plan, cluster: Cluster, policy: Policy, evidence: ClusterEvidence) -> MissingLog | None:
    """What the target has to take from a more advanced standby, on evidence taken after the fence; None where
    it is the most advanced, or where that is not known. The preferred target need not be, and while the
    primary still wrote nobody could say which would be."""
    view = survey(cluster, policy, evidence, plan.primary_node_id)
    own = view.positions.get(plan.failover_target_id)
    if view.primary_writes or own is None or view.head is None or own.timeline != view.head.timeline:
        return None
    if own == view.head:
        return None
    ahead = min(node_id for node_id, position in view.positions.items() if position == view.head)
    return MissingLog(ahead, view.head.lsn)


def promotion_refusal(
    plan: Plan, cluster: Cluster, policy: Policy, evidence: ClusterEvidence
) -> Refusal | None:
    """Why the plan's target must not be promoted, on live evidence taken after the primary was fenced.

    Between planning and fencing the primary may have acknowledged writes that only another standby holds;
    after it, positions stand still and the answer is final. A plan that gives nodes up was agreed to as one
    that loses what only those hold.
    """
    view = survey(cluster, policy, evidence, plan.primary_node_id)
    if view.primary_writes:
        return Refusal(
            rule="primary_still_writes",
            message=f"The primary {plan.primary_node_id} still accepts writes after it was fenced.",
            values={"node_id": plan.primary_node_id, "source": view.primary.source},
            remedy="Check what fenced it: that said it had stopped, and it goes on serving.",
        )
    if view.basis is Basis.FILE:
        return Refusal(
            rule="evidence_not_live",
            message=f"The evidence on {plan.failover_target_id} is from a file, not from the node.",
            values={"basis": view.basis},
            remedy="Take the evidence from the nodes' agents.",
        )
    if (uncovered := coverage_refusal(view)) is not None and not plan.lost:
        return uncovered
    return _target_refusal(plan, view)


def patroni_failover_refusal(
    plan: Plan, cluster: Cluster, policy: Policy, evidence: ClusterEvidence
) -> Refusal | None:
    """Why Patroni must not be asked to fail over to the plan's target; the old primary may still write,
    Patroni stops it."""
    view = survey(cluster, policy, evidence, plan.primary_node_id)
    return _target_refusal(plan, view) or refusal_to_move(
        cluster, view.seen, plan.primary_node_id, plan.failover_target_id
    )


def patroni_promotion_refusal(
    plan: Plan, cluster: Cluster, policy: Policy, evidence: ClusterEvidence, *, left: Sequence[str]
) -> Refusal | None:
    """Why the target's region must not be promoted, after the old one was demoted or fenced."""
    return old_region_writes(evidence, left=left) or promotion_refusal(plan, cluster, policy, evidence)


def http_promotion_refusal(
    plan: Plan, cluster: Cluster, policy: Policy, evidence: ClusterEvidence
) -> Refusal | None:
    """Why the plan's target must not be promoted, after the old node was demoted or fenced."""
    view = survey(cluster, policy, evidence, plan.primary_node_id)
    return others_write(
        cluster, evidence, target=plan.failover_target_id, left=plan.primary_node_id
    ) or _target_refusal(plan, view)


def http_demotion_refusal(
    plan: Plan, cluster: Cluster, policy: Policy, evidence: ClusterEvidence
) -> Refusal | None:
    """What has changed since the plan was made and makes it useless, or dangerous, to demote the old node."""
    view = survey(cluster, policy, evidence, plan.primary_node_id)
    return _target_refusal(plan, view) or http_refusal_to_move(
        cluster, view.seen, plan.primary_node_id, plan.failover_target_id
    )


def _target_refusal(plan: Plan, view: Survey) -> Refusal | None:
    target = next(c for c in rank(view) if c.node_id == plan.failover_target_id)
    if target.eligible:
        return None
    return Refusal(
        rule="target_no_longer_suitable",
        message=f"The target {target.node_id} {target.reason}.",
        values={"node_id": target.node_id, "reason": target.reason, "lag_bytes": target.lag_bytes},
        remedy="Plan again: another standby is further on, or the target must recover.",
    )
