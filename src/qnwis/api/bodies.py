"""Requests and answers of the four endpoints of the specification, "API Endpoints"; what goes beyond it
stands after its own fields and is optional."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from qnwis.cluster_status import Status
from qnwis.continuity.confidence import Band
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.executor import OutcomeStatus
from qnwis.continuity.model import Identifier, Model
from qnwis.continuity.plan import Plan
from qnwis.continuity.policy import Policy
from qnwis.continuity.quorum import ClusterState
from qnwis.continuity.region_groups import GroupView
from qnwis.continuity.reprotect import Protection
from qnwis.continuity.run import RunOutcome, RunResult
from qnwis.continuity.simulate import Scenario, SimulationResult
from qnwis.continuity.topology import MOST_NODES, Cluster
from qnwis.continuity.verifier import VerificationReport

Milliseconds = dict[str, float]


def example(**body: Any) -> ConfigDict:
    """One request of this form, for the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": [{**body}]})


SHOP = {"cluster_id": "prod-cluster"}
RULES = {"policy_id": "shop", "name": "Shop", "strategy": "automatic", "max_failover_time_s": 60}
TOPOLOGY = {
    "cluster_id": "prod-cluster",
    "name": "Shop",
    "regions": ["region-1"],
    "nodes": [
        {
            "node_id": f"node-{n}",
            "hostname": f"10.0.0.{n}",
            "role": "primary" if n == 1 else "secondary",
            "region": "region-1",
            "site": f"site-{n}",
        }
        for n in (1, 2, 3)
    ],
}
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]


class ReasonBody(Model):
    model_config = example(reason="wait for the backup")

    reason: str = Field(min_length=1, max_length=1000)


class Said(Model):
    request_id: str
    answer: str


class NamedCluster(Model):
    """A registered cluster, by its id."""

    cluster_id: Identifier


class NamedPlan(Model):
    """A plan that POST /plan made, by its id."""

    plan_id: str = Field(pattern=r"^plan-[0-9a-f]{12}$")


def _of_bounded_size(topology: Any) -> Any:
    """A list that is too long is refused by its length alone. Pydantic looks at every entry first, and makes
    several errors of each that is wrong: half a minute of work for one body."""
    for name in ("nodes", "regions", "vantages", "vantage_regions") if isinstance(topology, Mapping) else ():
        entries = topology.get(name)
        if isinstance(entries, list | dict) and len(entries) > MOST_NODES:
            raise PydanticCustomError(
                "too_long",
                "expected at most {most} {name}, found {found}",
                {"most": MOST_NODES, "name": name, "found": len(entries)},
            )
    return topology


OfBoundedSize = BeforeValidator(_of_bounded_size)


class PlanRequest(Model):
    model_config = example(cluster=SHOP, trigger_reason="manual", live=True)

    cluster: Annotated[Cluster | NamedCluster, OfBoundedSize]
    policy: Policy | None = None
    """By default the one that is registered for the cluster."""
    trigger_reason: str = Field(default="manual", min_length=1, max_length=1000)
    live: bool = False
    """Ask the nodes, in place of the statuses in the body; of a registered cluster only."""
    override: bool = False
    """Go past the limits of the policy; needs the permission override_constraints."""


class PlanResponse(Model):
    request_id: str
    plan_id: str
    cluster_id: str
    policy_id: str
    primary_node_id: str
    failover_target_id: str
    estimated_total_ms: int
    action_count: int
    timings_ms: Milliseconds
    digest: str
    plan: Plan
    """What /execute takes."""
    notes: tuple[str, ...] = ()


class ExecuteRequest(Model):
    model_config = example(plan={"plan_id": "plan-0123456789ab"}, dry_run=True)

    plan: Plan | NamedPlan
    dry_run: bool = False
    even_if_healthy: bool = False
    """Fence and fail over although the primary accepts writes; needs override_constraints."""
    override: bool = False
    """An emergency override; needs override_constraints and emergency_override, and its own approvals."""
    reason: str | None = Field(default=None, min_length=1, max_length=1000)
    """By default the plan's trigger_reason."""


class ShortConfidence(Model):
    score: int
    band: Band


class ExecuteResponse(Model):
    request_id: str
    execution_id: str
    plan_id: str
    success: bool
    actions_executed: int
    """Those that succeeded, or had nothing to do; none in a dry run."""
    actions_failed: int
    total_duration_ms: int
    """The whole run, with the time that people took to vote."""
    audit_id: str | None
    confidence: ShortConfidence | None
    """None where nothing was verified, for example in a dry run."""
    timings_ms: Milliseconds
    """`total`: until this answer; `execution`: carrying out the plan; `approval`: waiting for people, where
    they were asked."""
    outcome: RunOutcome
    reason: str
    dry_run: bool
    verification: VerificationReport | None = None


class Accepted(Model):
    """The run goes on; where to look."""

    request_id: str
    execution_id: str
    plan_id: str | None
    cluster_id: str
    run_url: str
    events_url: str


class StatusRequest(Model):
    model_config = example(cluster=SHOP)

    cluster: Annotated[Cluster | NamedCluster, OfBoundedSize]


class StatusResponse(Model):
    request_id: str
    cluster_id: str
    total_nodes: int
    healthy_nodes: int
    quorum_size: int
    has_quorum: bool
    primary_node_id: str | None
    timings_ms: Milliseconds
    state: ClusterState
    evidence: ClusterEvidence
    protection: tuple[Protection, ...]
    """The standbys that are wanted and there, of each primary."""
    guardian_note: str | None
    """Why nothing is known of the guardian."""
    regions: tuple[GroupView, ...]
    """Of an active/active cluster, which has a primary in each."""
    weights_note: str | None
    """Why the weights of the regions are not known."""
    holding: str | None
    """Why the guardian does not act on a failed primary."""

    @classmethod
    def of(cls, status: Status, request_id: str) -> StatusResponse:
        guardian = status.guardian
        fields = {name: getattr(status, name) for name in Status.model_fields if name != "guardian"}
        holding = None if guardian is None else guardian.holding
        return cls(request_id=request_id, holding=holding, **fields)


class SimulateRequest(Model):
    model_config = example(cluster=SHOP, scenario="primary_failure", seed=42)

    cluster: Annotated[Cluster | NamedCluster, OfBoundedSize]
    policy: Policy | None = None
    scenario: Scenario = Scenario.PRIMARY_FAILURE
    seed: Seed = 42


class SimulateResponse(SimulationResult):
    request_id: str
    timings_ms: Milliseconds


def executed(result: RunResult, plan_id: str, request_id: str, total_ms: float) -> ExecuteResponse:
    """A run that has ended, in the specification's form."""
    took_ms = (result.ended_at - result.started_at).total_seconds() * 1000
    report = result.verification
    failed = (OutcomeStatus.FAILED, OutcomeStatus.UNKNOWN)
    return ExecuteResponse(
        request_id=request_id,
        execution_id=result.run_id,
        plan_id=plan_id,
        success=result.verified or result.outcome is RunOutcome.PREVIEWED,
        actions_executed=result.actions_executed,
        actions_failed=sum(one.status in failed for one in result.outcomes),
        total_duration_ms=round(took_ms),
        audit_id=result.audit_id,
        confidence=None
        if report is None
        else ShortConfidence(score=report.confidence.score, band=report.confidence.band),
        timings_ms={"total": round(total_ms, 1), **_steps_ms(result)},
        outcome=result.outcome,
        reason=result.reason,
        dry_run=result.dry_run,
        verification=report,
    )


def _steps_ms(result: RunResult) -> Milliseconds:
    """The step that carried the plan out, and how long people were waited for before it."""
    took_ms = {step.name: round(step.elapsed_ms or 0.0, 1) for step in result.steps}
    timings = {"execution": took_ms.get("execution", 0.0)}
    return timings if result.approval is None else timings | {"approval": took_ms.get("approval", 0.0)}
