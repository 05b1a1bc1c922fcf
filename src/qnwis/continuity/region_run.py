"""The evacuation of a region: what starts it, what it answers, and its record."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import AwareDatetime, Field

from .approvals import Window
from .audit import Approval, AuditDraft, AuditResult, role_of
from .audit_layers import Citation, Layers, Step, Verified
from .model import Identifier, Model, sha256_digest
from .patroni_actions import PatroniAction, PatroniFenceCluster
from .refusal import Refusal
from .region_plan import ClusterMove, Direction, RegionPlan
from .regions import Moved, RegionVerdict
from .run import RunOutcome, StepProgress
from .tokens import Token

OPERATIONS = {Direction.OUT: "region_evacuate", Direction.BACK: "region_failback"}
"""Of the audit record."""


class EvacuateRequest(Model):
    """Starts the evacuation. From the Temporal UI, region, initiated_by and reason are enough."""

    region: Identifier
    direction: Direction = Direction.OUT
    """`back` for the way back: to the node that each topology names as its primary, by a switchover."""
    initiated_by: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    clusters: tuple[Identifier, ...] = ()
    """Only these; empty for every registered cluster that the direction concerns."""
    dry_run: bool = False
    """Plan it, and change nothing."""
    automatic: bool = False
    """Set by the region's guardian, which alone may start it so; each cluster's policy must allow it."""
    verdict: RegionVerdict | None = None
    """Of that guardian: what it held of the region."""
    token: Token | None = None

    @property
    def cluster_id(self) -> str:
        """What notifications name: the region stands for its clusters."""
        return self.region

    @property
    def digest(self) -> str:
        """What the token is signed for: everything but the token."""
        return sha256_digest(self.model_dump(mode="json", exclude={"token"}))


class RegionResult(Model):
    """What an evacuation answers when it ends."""

    region: str
    outcome: RunOutcome
    reason: str
    run_id: str
    plan: RegionPlan | None = None
    plan_digest: str | None = None
    refusal: Refusal | None = None
    moved: tuple[Moved, ...] = ()
    """Of each cluster that was begun, how its run ended."""
    not_begun: tuple[str, ...] = ()
    """Clusters of the plan that were left as they were."""
    failures: Mapping[str, str] = {}
    """By cluster_id: why the verification does not find it where it was to go."""
    way_back: tuple[str, ...] = ()
    """The commands that bring everything back once the region is well."""
    approval: Window | None = None
    initiator_roles: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    steps: tuple[StepProgress, ...] = ()
    started_at: AwareDatetime
    ended_at: AwareDatetime
    audit_id: str | None = None

    @property
    def verified(self) -> bool:
        """Every cluster of the plan was found where it was to go."""
        return self.outcome is RunOutcome.COMPLETED and not self.failures and not self.not_begun


def not_known(plan: RegionPlan, moved: Mapping[str, Moved]) -> tuple[str, ...]:
    """Clusters with which something was begun, and nobody knows what came of it: their run was ended from
    outside, and others may finish it; or whether their weights were shifted was not answered."""
    weights = {one.cluster_id for one in plan.weights}
    return tuple(
        name
        for name in plan.cluster_ids
        if name in moved
        and moved[name].outcome is None
        and (moved[name].run_id is not None or name in weights)
    )


def way_back(plan: RegionPlan, moved: Mapping[str, Moved]) -> tuple[str, ...]:
    """The old primary of each cluster that was moved, or may be, becomes a standby again; then all go back at
    once."""
    gone = {*not_known(plan, moved), *(name for name, ended in moved.items() if ended.moved)}
    if plan.direction is Direction.BACK or not gone:
        return ()
    left = [move for move in plan.moves if move.cluster_id in gone]
    return (
        *(line for move in left if (line := _rejoin(move)) is not None),
        f"qnwis-continuity region failback {plan.region} --reason …",
    )


def _rejoin(move: ClusterMove) -> str | None:
    """What makes the region that was left follow; None where its Patroni does that already."""
    by_patroni = [a for a in move.plan.actions if isinstance(a, PatroniAction)]
    fenced = [a for a in by_patroni if isinstance(a, PatroniFenceCluster)]
    if fenced:
        return (
            f"patronictl edit-config -s standby_cluster.host=<{move.plan.failover_target_id}>"
            f" # in {move.cluster_id}'s old cluster, before {', '.join(fenced[0].node_ids)} are switched on"
        )
    if by_patroni:
        return None
    return (
        f"qnwis-continuity rejoin {move.plan.primary_node_id} --cluster <cluster.yaml of {move.cluster_id}>"
    )


def outcome_of(
    plan: RegionPlan, moved: Mapping[str, Moved], failures: Mapping[str, str], stopped: str | None
) -> tuple[RunOutcome, str]:
    """How the evacuation as a whole ended, and why. Each cluster's own run says where that one stands."""
    gone = [name for name in plan.cluster_ids if name in moved and moved[name].moved]
    unknown = not_known(plan, moved)
    left = [name for name in plan.cluster_ids if name not in gone and name not in unknown]
    doubtful = [name for name in gone if not moved[name].good]
    went = "left" if plan.direction is Direction.OUT else "came back to"
    told = f"{len(gone)} of {len(plan.cluster_ids)} clusters {went} {plan.region}"
    if not gone and not unknown:
        return _nothing_moved(moved), f"{told}; {stopped or 'see each run'}"
    if left or unknown or doubtful or failures:
        why = "; ".join(
            [
                *([f"not {', '.join(left)}"] if left else []),
                *(f"{name} not known: {moved[name].reason}" for name in unknown),
                *(f"{name} incomplete: {moved[name].reason}" for name in doubtful),
                *(f"{name}: {failure}" for name, failure in failures.items()),
            ]
        )
        return RunOutcome.INCOMPLETE, f"{told}; {why}" + (f"; {stopped}" if stopped else "")
    return RunOutcome.COMPLETED, f"{told}, verified"


def _nothing_moved(moved: Mapping[str, Moved]) -> RunOutcome:
    """Where nothing was begun, nothing was undone either."""
    outcomes = {one.outcome for one in moved.values()}
    if outcomes - {None, RunOutcome.UNTOUCHED, RunOutcome.REFUSED}:
        return RunOutcome.ROLLED_BACK
    return RunOutcome.REFUSED if RunOutcome.REFUSED in outcomes else RunOutcome.UNTOUCHED


def draft_of_region(request: EvacuateRequest, result: RegionResult) -> AuditDraft:
    """The record of an evacuation; each cluster's run has its own."""
    votes = [vote for vote in result.approval.votes if vote.approve] if result.approval is not None else []
    return AuditDraft(
        timestamp=result.ended_at,
        operation=OPERATIONS[request.direction] + ("_dry_run" if request.dry_run else ""),
        cluster_id=request.region,
        initiated_by=request.initiated_by,
        role=role_of(automatic=request.automatic, proved=result.initiator_roles),
        source_node=None,
        target_node=None,
        reason=request.reason,
        approval=Approval(
            required=result.approval is not None,
            approved_by=", ".join(vote.person for vote in votes) or None,
            approved_at=votes[-1].at if votes else None,
        ),
        result=AuditResult(
            success=result.verified,
            duration_ms=max(0, round((result.ended_at - result.started_at).total_seconds() * 1000)),
            actions_executed=sum(one.moved for one in result.moved),
        ),
        run_id=result.run_id,
        plan_digest=result.plan_digest,
        refusal=result.refusal,
        approvals=result.approval.votes if result.approval is not None else None,
        layers=_layers(result),
    )


def _layers(result: RegionResult) -> Layers:
    """Each cluster's run cites its own evidence; this one rests on how they ended."""
    clusters = result.plan.cluster_ids if result.plan is not None else ()
    ran = result.outcome is RunOutcome.COMPLETED or bool(result.failures)
    return Layers(
        l19_cited_evidence=tuple(
            Citation(
                artefact="result",
                says=f"run {one.run_id} of {one.cluster_id}: {_ended(one)}",
            )
            for one in result.moved
        ),
        l20_verification=Verified(
            passed=result.verified, checks={name: name not in result.failures for name in clusters}
        )
        if ran
        else None,
        l21_trail=tuple(Step(name=step.name, became=step.status.value) for step in result.steps),
        l22_confidence=None,
    )


def _ended(one: Moved) -> str:
    if one.outcome is not None:
        return one.outcome
    return "not begun" if one.run_id is None else "without a result"
