"""From a request and fresh evidence to a plan under an epoch, or to the rule that refuses the run."""

from __future__ import annotations

from .detection import contradiction
from .evidence import ClusterEvidence, NodeEvidence, current_primary
from .planner import healthy_primary_refusal, make_plan, plan_fits
from .policy import Policy, Strategy
from .refusal import Refusal
from .run import Assessment, FailoverRequest
from .topology import Cluster, NodeStatus


def assess(
    request: FailoverRequest, cluster: Cluster, policy: Policy, evidence: ClusterEvidence
) -> Assessment:
    """Decide whether this run goes on. The gates in order, then the planner's own rules.

    A dry run goes past the gates that speak of the present (a healthy primary) and notes them, because its
    purpose is to show what would happen.
    """
    evidence = _with_detection(request, evidence)
    epoch = 1 + max((n.state.epoch for n in evidence.nodes if n.state is not None), default=0)
    primary = current_primary(cluster, evidence)
    if primary not in {node.node_id for node in cluster.nodes}:
        primary = None  # a standby follows something outside the topology: the planner refuses that
    notes: list[str] = []
    for gate in (
        _automatic_refusal(request, policy, primary),
        _healthy_refusal(request, evidence, primary),
        _contradiction_refusal(request, cluster, evidence, primary),
    ):
        if gate is None:
            continue
        if not request.dry_run:
            return Assessment(refusal=gate, epoch=epoch)
        notes.append(f"would be refused: {gate}")
    reason = request.plan.trigger_reason if request.plan is not None else request.reason
    planning = make_plan(cluster, policy, evidence, trigger_reason=reason)
    if request.plan is not None:
        misfit = plan_fits(request.plan, planning)
        if misfit is not None:
            return Assessment(refusal=misfit, epoch=epoch)
    return Assessment(
        plan=planning.plan,
        refusal=planning.refusal,
        epoch=epoch,
        predicted_loss_bytes=planning.predicted_loss_bytes,
        notes=(*notes, *planning.notes),
        candidates=planning.candidates,
    )


def _with_detection(request: FailoverRequest, evidence: ClusterEvidence) -> ClusterEvidence:
    """What the guardian's vantages agreed on turns this one collector's "unknown" into "failed"."""
    if request.detection is None:
        return evidence

    def judged(node: NodeEvidence) -> NodeEvidence:
        agreed = request.detection is not None and node.node_id == request.detection.node_id
        if agreed and node.status is NodeStatus.UNKNOWN:
            return node.model_copy(update={"status": NodeStatus.FAILED})
        return node

    return evidence.model_copy(update={"nodes": tuple(judged(n) for n in evidence.nodes)})


def _automatic_refusal(request: FailoverRequest, policy: Policy, primary: str | None) -> Refusal | None:
    """An automatic start needs a strategy that allows it and a detection that names the primary."""
    if not request.automatic:
        return None
    if policy.strategy is Strategy.MANUAL:
        return Refusal(
            rule="strategy_manual",
            message=f"Policy {policy.policy_id} has strategy manual, so nothing starts by itself",
            values={"strategy": policy.strategy.value},
            remedy="A person executes the proposed plan, or the policy's strategy changes.",
        )
    detected = request.detection.node_id if request.detection is not None else None
    if detected is None or detected != primary:
        return Refusal(
            rule="detection_names_another_node",
            message=f"The detection names {detected}, but the primary is {primary}",
            values={"detected": detected, "primary": primary},
            remedy="Nothing to do if the primary has already moved.",
        )
    return None


def _healthy_refusal(
    request: FailoverRequest, evidence: ClusterEvidence, primary: str | None
) -> Refusal | None:
    if primary is None or request.even_if_healthy:
        return None
    return healthy_primary_refusal(evidence.of(primary))


def _contradiction_refusal(
    request: FailoverRequest, cluster: Cluster, evidence: ClusterEvidence, primary: str | None
) -> Refusal | None:
    """What contradicts the detection now; the guardian looked at the same before it started the run."""
    if primary is None or not request.automatic:
        return None
    return contradiction(cluster.node(primary), evidence)
