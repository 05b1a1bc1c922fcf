"""A run of a runbook: what starts it, what it decides on, what it answers, and what it shows on the way."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Literal, Self

from pydantic import AwareDatetime, Field, ValidationInfo, field_validator, model_validator

from .approvals import PendingApproval, Window
from .evidence import ClusterEvidence
from .executor import Outcome, satisfied
from .hooks import HookResult
from .model import LONGEST_S, Identifier, Model, at_most_if_stored, is_stored, sha256_digest
from .orders import FencingEvidence
from .override import GiveUp, Suspension
from .plan import Plan
from .refusal import Refusal
from .steady_state import SteadyReading
from .targets import Candidate
from .tokens import PersonRequest, Token
from .verifier import VerificationReport

DRY_RUN_MARK = "[DRY-RUN]"
LONGEST_EXTENSION_S = 24 * 3600.0
"""What one request may add to a window."""
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
"""No window begins later: its end has to be a moment that the calendar has, and Temporal waits for a hundred
years at most."""


class RunKind(StrEnum):
    PRIMARY_FAILURE = "primary_failure"
    PLANNED_MAINTENANCE = "planned_maintenance"
    REGION_FAILURE = "region_failure"


OF_A_CLUSTER = (RunKind.PRIMARY_FAILURE, RunKind.PLANNED_MAINTENANCE)
"""What is done to one cluster; hooks are called by these, also where the run is part of an evacuation."""

RunbookOfACluster = Literal[RunKind.PRIMARY_FAILURE, RunKind.PLANNED_MAINTENANCE]
"""The same, as a type."""


class Detection(Model):
    """How the guardian found that a node failed."""

    node_id: str
    vantages: tuple[str, ...]
    """Vantages that say so."""
    misses: int
    first_miss_at: datetime | None = None
    detected_at: datetime


class Maintenance(Model):
    """What planned maintenance is told. Everything has a default: at once, to the best standby."""

    target_node_id: str | None = None
    """Who takes over; by default the planner's choice."""
    not_before: AwareDatetime | None = Field(default=None, lt=LATEST)
    """When the window begins, before the year 2100; by default as soon as the plan is approved."""
    window_s: float | None = Field(default=None, gt=0, le=LONGEST_S)
    """How long the window is, from `not_before` or from the start of the run; without it there is no end."""
    back_after_s: float | None = Field(default=None, ge=0, le=LONGEST_S)
    """Of a round trip: how long after the move the way back begins; None for no way back."""
    drill: bool = False
    """On purpose, to see that it works; the record says so, and readiness asks how long ago it was."""
    there_by: RunbookOfACluster = RunKind.PLANNED_MAINTENANCE
    """Of a drill: the runbook by which the service moves. The way back is a switchover in any case."""
    returns: str | None = None
    """Set by a round trip on its way back: the run that this returns from, and with which it was approved."""

    @field_validator("window_s", "back_after_s", mode="before")
    @classmethod
    def _length_at_most(cls, seconds: object, info: ValidationInfo) -> object:
        return at_most_if_stored(LONGEST_S, seconds, info)

    @field_validator("not_before", mode="before")
    @classmethod
    def _begins_at_latest(cls, moment: object, info: ValidationInfo) -> object:
        """As `at_most_if_stored`."""
        if not is_stored(info) or not isinstance(moment, str):
            return moment
        with contextlib.suppress(ValueError):  # what is no moment is refused as such
            read = datetime.fromisoformat(moment)
            if read.tzinfo is not None and read >= LATEST:
                return LATEST - timedelta(seconds=1)
        return moment

    @field_validator("there_by", mode="before")
    @classmethod
    def _moves_one_cluster(cls, runbook: object) -> object:
        if runbook not in OF_A_CLUSTER:
            raise ValueError(f"expected {' or '.join(OF_A_CLUSTER)}, which move one cluster")
        return runbook

    @model_validator(mode="after")
    def _a_failover_is_a_drill(self) -> Self:
        if self.there_by is RunKind.PLANNED_MAINTENANCE:
            return self
        if not self.drill or self.back_after_s is None:
            raise ValueError(
                f"there_by {self.there_by}: expected drill and back_after_s too, because it is"
                " carried out on a primary that is well only to see that it works"
            )
        if self.target_node_id is not None or self.not_before is not None or self.window_s is not None:
            raise ValueError(
                f"there_by {self.there_by}: expected no target_node_id, not_before or window_s,"
                " because it chooses its target itself, and begins when it is approved"
            )
        return self


class FailoverRequest(Model):
    """Starts a run of a runbook. From the Temporal UI, cluster_id, initiated_by and reason are enough."""

    cluster_id: Identifier
    initiated_by: str = Field(min_length=1)
    """Person or service; the guardian is `guardian-<cluster_id>`."""
    reason: str = Field(min_length=1)
    automatic: bool = False
    """Set by the guardian; then the policy's strategy must allow it and `detection` must name the primary."""
    dry_run: bool = False
    """Read the world and preview every effect; change nothing."""
    even_if_healthy: bool = False
    """Go on although the primary answers and accepts writes; it will be fenced."""
    override: bool = False
    """Go past the limits of the policy (health of the others, lag, expected time), each of which is listed.
    Awaits the approval workflow `emergency_override`; needs the permission of that name."""
    give_up: GiveUp | None = None
    """Of an override: nodes that are gone, the primary among them. The cluster goes on without them under a
    membership that no majority agreed to, and the guarantee of a single primary is suspended."""
    leaving: str | None = None
    """A region in which no target may be."""
    agreed_with: str | None = None
    """Set by the run of which this one is a part, the evacuation of a region: people agreed to it there."""
    initiator_roles: tuple[str, ...] = ()
    """Set by the run of which this one is a part: the roles that whoever began it all had proved there."""
    plan: Plan | None = None
    """A plan made earlier; the run refuses if planning anew gives another digest."""
    detection: Detection | None = None
    maintenance: Maintenance | None = None
    """Of planned maintenance and of drills: the primary is well, and the service moves away from it."""
    continues: str | None = None
    """A run that was terminated, by its run_id or as `unfinished`: this one brings it to an end and does
    nothing else. What was begun is undone before the point of no return, and completed past it."""
    token: Token | None = None
    """By which a person proves to be `initiated_by`; `qnwis-continuity execute` makes it. The guardian has
    none."""

    @property
    def digest(self) -> str:
        """What a token to start this is signed for: everything but the token, and what no person may set."""
        return sha256_digest(self.model_dump(mode="json", exclude={"token", "initiator_roles"}))


class AbortRequest(PersonRequest):
    """Stop a run at the next safe place and undo what it has begun."""


class PauseRunRequest(PersonRequest):
    """Hold a run before its next action. Nothing that goes on is cut off, and past return nothing is held."""


class ResumeRunRequest(PersonRequest):
    """Let a run that is held go on."""


class ExtendRequest(PersonRequest):
    """Give the window that is open more time: the one for votes, which the run's initiator cannot extend,
    else the one for maintenance."""

    by_s: float = Field(gt=0, le=LONGEST_EXTENSION_S)


class ConfirmRequest(PersonRequest):
    """Say that something a person had to do by hand is done."""

    manual_step: str
    """Its name, as the runbook declares it."""


class SkipRequest(PersonRequest):
    """Have a step left out that has not begun, where the runbook allows it."""

    step: str
    """Its name, as the runbook and the checklist have it."""


class Assessment(Model):
    """What the run will do, or why it does nothing."""

    plan: Plan | None = None
    refusal: Refusal | None = None
    epoch: int = 0
    """Fencing token of this run: one above the highest that any agent has obeyed."""
    predicted_loss_bytes: int | None = None
    """Write-ahead log that the target may lack, bytes; None where nothing is known of it."""
    candidates: tuple[Candidate, ...] = ()
    """Every node besides the primary, and why it may or may not take over."""
    notes: tuple[str, ...] = ()
    """What a dry run went past; shown to people and kept in the record."""


class RunOutcome(StrEnum):
    COMPLETED = "completed"  # verified: the service runs on the new primary
    INCOMPLETE = "incomplete"  # past return, but an action failed or verification did not pass
    ROLLED_BACK = "rolled_back"  # what was begun was undone
    UNTOUCHED = "untouched"  # stopped before anything was changed
    REFUSED = "refused"  # a rule said no; nothing was changed
    REJECTED = "rejected"  # a person said no; nothing was changed
    EXPIRED = "expired"  # too few people agreed in time; nothing was changed
    PREVIEWED = "previewed"  # dry run


DECIDING = "deciding"
"""Where its outcome is to be, of a run that has asked for no effect."""
ACTING = "running"
"""The same from its first effect on; of a run of an earlier version from its start."""


class StepStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


class StepProgress(Model):
    """One step of the runbook, as shown while the run goes on."""

    name: str
    title: str
    expected_ms: int
    status: StepStatus = StepStatus.PENDING
    elapsed_ms: float | None = None
    note: str = ""
    """A sentence beside it."""
    remarks: tuple[str, ...] = ()
    """Further ones below it: what people are asked for, and whose vote was refused."""


class RunProgress(Model):
    """Answer of the `progress` query."""

    kind: RunKind
    cluster_id: str
    dry_run: bool
    steps: tuple[StepProgress, ...]
    outcomes: tuple[Outcome, ...] = ()
    plan_digest: str | None = None
    approval: PendingApproval | None = None
    """What waits for people's votes now."""
    paused: str | None = None
    """By whom and why the run is held."""
    awaits: tuple[str, ...] = ()
    """Manual steps that a person has to confirm before the run goes on."""
    undelivered: tuple[str, ...] = ()
    """Notifications that did not reach somebody, and a record that could not be written, a sentence each."""


class Continued(Model):
    """That a run was interrupted by people, and went on."""

    execution_id: str
    """Temporal's run id of the execution that ended before."""
    ended: str
    """How it ended, for people."""
    outcomes: tuple[Outcome, ...]
    """What was known by then; of these nothing was done a second time."""


class RunResult(Model):
    """What a run answers when it ends."""

    kind: RunKind
    outcome: RunOutcome
    reason: str
    cluster_id: str
    run_id: str
    """Names the run, whatever executions it took."""
    dry_run: bool = False
    epoch: int | None = None
    old_primary: str | None = None
    new_primary: str | None = None
    plan: Plan | None = None
    plan_digest: str | None = None
    predicted_loss_bytes: int | None = None
    """As the assessment by which the run acted had it; None where nothing was known, and in older records."""
    refusal: Refusal | None = None
    outcomes: tuple[Outcome, ...] = ()
    fencing: FencingEvidence | None = None
    suspension: Suspension | None = None
    """Where nodes were given up: since when the guarantee is suspended. Its review says until when."""
    verification: VerificationReport | None = None
    steps: tuple[StepProgress, ...] = ()
    hooks: tuple[HookResult, ...] = ()
    """What came of each hook, in the order of the calls."""
    steady_state: tuple[SteadyReading, ...] = ()
    """What the operator's probes answered before the run acted and after it, and each breach during it."""
    notes: tuple[str, ...] = ()
    """What a dry run went past, which hooks and probes failed, and whom the run could not tell; its record
    has what was known by then."""
    approval: Window | None = None
    """The newest window in which people voted; None where nobody had to."""
    initiator_roles: tuple[str, ...] = ()
    """Of whoever proved to have started it, or what it is a part of; empty where nobody did."""
    continues: Continued | None = None
    started_at: datetime
    ended_at: datetime
    audit_id: str | None = None

    @property
    def actions_executed(self) -> int:
        """As many as the plan has where all of it is done. A dry run executes none, and skips each."""
        return 0 if self.dry_run else satisfied(self.outcomes)

    @property
    def moved(self) -> bool:
        """Whether the service runs on another node since, verified or not."""
        return self.outcome in {RunOutcome.COMPLETED, RunOutcome.INCOMPLETE}

    @property
    def verified(self) -> bool:
        """Success is what the verifier said after reading the world again, nothing else."""
        return (
            self.outcome is RunOutcome.COMPLETED
            and self.verification is not None
            and self.verification.passed
        )


class RunArtefacts(Model):
    """What a run leaves behind: the content of its audit record."""

    request: FailoverRequest
    evidence_before: ClusterEvidence | None
    evidence_after: ClusterEvidence | None
    result: RunResult

    def parts(self) -> dict[str, Model]:
        """The artefacts that exist, by the name under which the manifest lists them."""
        named: dict[str, Model | None] = {
            "request": self.request,
            "evidence_before": self.evidence_before,
            "continues": self.result.continues,
            "plan": self.result.plan,
            "refusal": self.result.refusal,
            "fencing": self.result.fencing,
            "suspension": self.result.suspension,
            "evidence_after": self.evidence_after,
            "verification": self.result.verification,
            "result": self.result,
        }
        return {name: value for name, value in named.items() if value is not None}
