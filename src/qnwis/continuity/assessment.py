"""From a request and fresh evidence to a plan under an epoch, or to the rule that refuses the run."""

from __future__ import annotations

from .detection import contradiction
from .evidence import ClusterEvidence, NodeEvidence, current_primary
from .forced import forced_epoch
from .http_service import http_request_refusal
from .managers import automatic_refusal
from .planner import healthy_primary_refusal, make_plan, plan_fits
from .policy import Policy, Strategy
from .refusal import Refusal
from .run import Assessment, FailoverRequest
from .switchover import make_switchover
from .topology import Cluster, Manager, NodeStatus

EMERGENCY_OVERRIDE = "emergency_override"
"""Name of the approval workflow, in `config/rbac/continuity.yaml`."""


def assess(
    request: FailoverRequest, cluster: Cluster, policy: Policy, evidence: ClusterEvidence
) -> Assessment:
    """Decide whether this run goes on. The gates in order, then the planner's own rules.

    A dry run goes past the gates that speak of the present (a healthy primary) and notes them, because its
    purpose is to show what would happen.
    """
    evidence = _with_detection(request, evidence)
    highest = max((n.state.epoch for n in evidence.nodes if n.state is not None), default=0)
    forced = request.give_up is not None and cluster.manager is Manager.AGENTS
    epoch = forced_epoch(highest) if forced else 1 + highest
    primary = current_primary(cluster, evidence)
    if primary not in {node.node_id for node in cluster.nodes}:
        primary = None  # a standby follows something outside the topology: the planner refuses that
    notes: list[str] = []
    for gate in (
        _override_refusal(request),
        http_request_refusal(request, cluster),
        _automatic_refusal(request, cluster, primary),
        _healthy_refusal(request, evidence, primary),
        _contradiction_refusal(request, cluster, evidence, primary),
    ):
        if gate is None:
            continue
        if not request.dry_run:
            return Assessment(refusal=gate, epoch=epoch)
        notes.append(f"would be refused: {gate}")
    reason = request.plan.trigger_reason if request.plan is not None else request.reason
    if request.maintenance is None:
        planning = make_plan(
            cluster,
            policy,
            evidence,
            trigger_reason=reason,
            override=request.override,
            give_up=request.give_up,
            leaving=request.leaving,
        )
    else:
        planning = make_switchover(cluster, policy, evidence, request.maintenance, trigger_reason=reason)
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


def approval_needed(request: FailoverRequest, policy: Policy) -> tuple[bool, str]:
    """Whether people must agree to this run's plan before anything is changed, and why."""
    if request.dry_run:
        return False, "not asked for: a dry run changes nothing"
    if request.continues is not None:
        return False, "not asked for: the run had begun, and is brought to an end"
    if request.maintenance is not None and request.maintenance.returns is not None:
        return False, f"not asked for: agreed to with run {request.maintenance.returns}"
    if request.agreed_with is not None:
        return False, f"not asked for: agreed to with run {request.agreed_with}"
    if request.override:
        return True, "asked for: an emergency override"
    if request.automatic and policy.strategy is not Strategy.MANUAL:
        return False, f"not asked for: strategy {policy.strategy}"
    if request.automatic:
        return True, "asked for: strategy manual"
    if policy.approvals:
        return True, "asked for: a person started this run"
    return False, f"not asked for: policy {policy.policy_id} has approvals: false"


def approval_workflow(request: FailoverRequest, of_runbook: str | None) -> str | None:
    """Which of the approval workflows this run awaits."""
    return EMERGENCY_OVERRIDE if request.override else of_runbook


def material_change(approved: Assessment, now: Assessment, policy: Policy) -> str | None:
    """What people did not agree to, in the assessment made after their last vote."""
    if approved.plan is None or now.plan is None or approved.plan.digest != now.plan.digest:
        was, became = (a.plan.digest[:19] if a.plan is not None else "none" for a in (approved, now))
        return f"the plan was {was} and is {became}"
    lost_then, lost_now = approved.predicted_loss_bytes, now.predicted_loss_bytes
    if lost_then is not None and (lost_now is None or lost_now > lost_then + policy.max_lag_bytes):
        told = "is not known any more" if lost_now is None else f"is {lost_now} bytes"
        return f"the predicted loss was {lost_then} bytes and {told}"
    return None


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


def _override_refusal(request: FailoverRequest) -> Refusal | None:
    """Only an emergency override gives nodes up, with its own approval workflow."""
    if request.give_up is None:
        return None
    attested_by = request.give_up.attested_by
    if attested_by not in (None, request.initiated_by):
        return Refusal(
            rule="attested_by_another",
            message=f"{attested_by} is said to state that nodes are off, and {request.initiated_by} asks",
            values={"attested_by": attested_by, "initiated_by": request.initiated_by},
            remedy="Let whoever states it start the run.",
        )
    if request.override and request.maintenance is None:
        return None
    return Refusal(
        rule="override_missing",
        message=f"{', '.join(request.give_up.node_ids)} would be given up by what is no emergency override",
        values={"give_up": [*request.give_up.node_ids], "override": request.override},
        remedy="Ask with --override (override: true), which two admins have to agree to.",
    )


def _automatic_refusal(request: FailoverRequest, cluster: Cluster, primary: str | None) -> Refusal | None:
    """An automatic start needs a detection that names the primary, and nobody else who acts by himself."""
    if not request.automatic:
        return None
    if (by_itself := automatic_refusal(cluster)) is not None:
        return by_itself
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
    if primary is None or request.even_if_healthy or request.maintenance is not None:
        return None
    return healthy_primary_refusal(evidence.of(primary))


def _contradiction_refusal(
    request: FailoverRequest, cluster: Cluster, evidence: ClusterEvidence, primary: str | None
) -> Refusal | None:
    """What contradicts the detection now; the guardian looked at the same before it started the run."""
    if primary is None or not request.automatic:
        return None
    return contradiction(cluster.node(primary), evidence)
