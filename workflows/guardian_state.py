"""What a guardian keeps, what it answers, and what people say to it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from temporalio import workflow

from .watching import Statement

with workflow.unsafe.imports_passed_through():
    from pydantic import Field

    from qnwis.continuity.detection import Verdict
    from qnwis.continuity.guardian_record import GuardianDecision
    from qnwis.continuity.guardian_rules import PastRun, Pause
    from qnwis.continuity.model import Identifier, Model
    from qnwis.continuity.region_wait import FailedSince, Heard
    from qnwis.continuity.run import RunResult
    from qnwis.continuity.tokens import PersonRequest
    from qnwis.continuity.topology import NodeStatus


class PauseRequest(PersonRequest):
    """Switch automatic failover off."""


class ResumeRequest(PersonRequest):
    """Switch automatic failover on again."""


class AcknowledgeRequest(PersonRequest):
    """A person has looked at a run that ended: it holds no further failover back."""

    run_id: str = Field(min_length=1)


class AlertRequest(Model):
    """Somebody outside says that something is wrong. It proves nothing: the guardian looks for itself."""

    alert_id: str = Field(min_length=1)
    by: str = Field(min_length=1)
    reason: str = Field(min_length=1)


class AlertAnswer(Model):
    """What the guardian made of it."""

    run_id: str | None
    """Temporal's run id of the run of its own that goes on; None where it started none."""
    primary_node_id: str | None
    finding: str | None
    """Its verdict on the primary; None while nobody knows which node that is."""
    why: str
    holding: str | None
    """Why a primary that is called failed is not acted on now."""


class GuardianState(Model):
    """All that a guardian knows; what it continues as new with. To start one, `cluster_id` is enough."""

    cluster_id: Identifier
    statements: Mapping[str, Statement] = {}
    """By vantage; one that abstains has none."""
    abstaining: Mapping[str, str] = {}
    changed_at: datetime | None = None
    """When a vote last changed."""
    history: tuple[PastRun, ...] = ()
    last_result: RunResult | None = None
    pause: Pause | None = None
    watching_since: datetime | None = None
    failed: FailedSince | None = None
    """The primary, while it is called failed."""
    regions: Mapping[Identifier, Heard] = {}
    """What the regions' guardians said last, by region."""
    own_run: str | None = None
    """Temporal's run id of the run that this guardian started and that went on then."""
    refused_for: str | None = None
    """The rule, and since when, of the refused failover that was recorded last."""
    unrecorded: tuple[GuardianDecision, ...] = ()
    """What was not on record yet."""
    events_before_new: int | None = None
    """Continue as new after this many events instead of at the server's suggestion (for tests)."""


class GuardianView(Model):
    """Answer of the `view` query."""

    cluster_id: str
    primary_node_id: str | None
    """None also where there is one in each region."""
    primaries: Mapping[str, str | None] = {}
    """By region, of an active/active cluster; None where nobody knows."""
    verdicts: dict[str, Verdict]
    statuses: dict[str, NodeStatus]
    """The verdicts in the specification's words."""
    statements: Mapping[str, Statement]
    """By vantage, as of the last change of a status."""
    abstaining: Mapping[str, str]
    """Vantages that have no say now, and why."""
    changed_at: datetime
    """When a vote last changed."""
    watching_since: datetime
    pause: Pause | None
    failed: FailedSince | None = None
    """The primary, and since when it is called failed; None while it is not."""
    regions: Mapping[str, Heard] = {}
    """What the guardians of regions said last, by region; of a region that none watches, nothing."""
    own_run: str | None = None
    """Temporal's run id of the run that this guardian started, while that goes on."""
    holding: str | None
    """Why a primary that is called failed is not acted on now."""
    last_refused: str | None
    """The newest signal of a person that was not obeyed, and why."""
    last_result: RunResult | None
    history: tuple[PastRun, ...]
