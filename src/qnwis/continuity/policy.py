"""Policy: what people write in `policy.yaml`, the limits within which a failover may run.

Source: specification, "Failover Policies". Fields beyond the specification are optional.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from .model import LONGEST_S, LONGEST_TTL_S, Identifier, Model
from .weights import RETURN_STEPS

NO_LIMIT = 1 << 40

Estimate = Annotated[int, Field(ge=0, le=86_400_000)]
"""Milliseconds."""


class Strategy(StrEnum):
    AUTOMATIC = "automatic"  # fail over at once when the primary fails
    MANUAL = "manual"  # propose, and wait for people
    QUORUM_BASED = "quorum_based"  # automatic, only while the quorum of observers is there now


class Reprotection(StrEnum):
    """Who brings back a node that holds data and does not stream from the primary."""

    MANUAL = "manual"  # people, by `rejoin`; status and readiness say which and why
    AUTOMATIC = "automatic"  # the control plane, after a while and while no run goes on


class StepEstimates(Model):
    """Expected duration of each action of a plan, milliseconds, until measured history replaces it."""

    fence_primary: Estimate = 5_000
    promote_target: Estimate = 5_000
    repoint_standbys: Estimate = 3_000
    flip_dns: Estimate = 2_000
    """Without the record's TTL, which the planner adds."""
    verify_service: Estimate = 3_000
    prepare_nodes: Estimate = 5_000
    release_primary: Estimate = 1_000
    rejoin_old_primary: Estimate = 10_000


class SwitchoverLimits(Model):
    """What a planned switchover may take."""

    drain_s: float = Field(default=2.0, gt=0, lt=60)
    """How long open writing transactions may take to end once no new ones are let in; the rest are ended."""
    ttl_s: int = Field(default=1, ge=0, le=LONGEST_TTL_S)
    """TTL of the service's record while the switchover goes on; the ordinary one comes back after it."""


class Policy(Model):
    policy_id: Identifier
    name: str
    strategy: Strategy = Strategy.AUTOMATIC
    max_failover_time_s: float = Field(default=60, gt=0, le=NO_LIMIT)
    """A plan estimated above this is refused; a run that overruns it fails verification. What a switchover
    does ahead, and sets right once the service has moved, does not count."""
    require_quorum: bool = True
    region_priority: tuple[str, ...] = ()
    """Earlier is preferred; a region not listed ranks last."""
    site_priority: tuple[str, ...] = ()
    min_healthy_nodes: int = Field(default=1, ge=0)
    """Healthy nodes that must remain for a failover to start."""
    max_lag_bytes: int = Field(default=16 * 1024 * 1024, ge=0, le=NO_LIMIT)
    """Asynchronous only: a standby further behind the most advanced one is not eligible."""
    cooldown_s: float = Field(default=300, ge=0, le=LONGEST_S)
    """After a failover, no further automatic one for this long."""
    max_failovers_per_hour: int = Field(default=3, ge=1)
    startup_grace_s: float = Field(default=10, ge=0, le=LONGEST_S)
    """After the guardian starts, silence is not acted on for this long."""
    max_backup_age_s: float | None = Field(default=None, gt=0, le=LONGEST_S)
    """Readiness: the newest good backup that an agent can find must not be older. None: nobody asks."""
    approvals: bool = True
    """Whether people prove who they are, and a person's run awaits the approval workflow that its runbook
    names. False: their word is enough, and nobody else is asked."""
    reprotect: Reprotection = Reprotection.MANUAL
    """Who orders an old primary or a stuck standby to rejoin. What only that node has is exported first; a
    node that cannot be rewound takes a fresh copy of the database."""
    reprotect_after_s: float = Field(default=15, ge=0, le=LONGEST_S)
    """Automatic: for so long a node has to be missing, so that one which just comes back is left alone."""
    evacuation_priority: int = 0
    """Of the clusters that leave a region, those with a higher number go first."""
    region_strategy: Strategy = Strategy.MANUAL
    """Who has this cluster leave a region that is lost: people, or the region's guardian by itself
    (`automatic`; `quorum_based` only while the quorum of the cluster's nodes answers elsewhere)."""
    region_wait_s: float = Field(default=180, ge=0, le=3600)
    """While the loss of the primary's region is suspected, its failover waits so long for the region's
    guardian; then the cluster acts alone. 0: it never waits. Without that guardian nothing is waited for."""
    region_listen_s: float = Field(default=10, ge=0, le=LONGEST_S)
    """Where no other node of the cluster in the region answers, so long it waits to hear of others."""
    review_reminder_s: float = Field(default=24 * 3600, ge=60, le=LONGEST_S)
    """How often people are reminded of the open review of an emergency override."""
    return_steps_percent: tuple[Annotated[int, Field(ge=1, le=100)], ...] = RETURN_STEPS
    """Active/active: after each step of its return, the part of its own weight that a region has; the last
    is 100. Before each it is checked that replication has caught up (`max_lag_bytes`) and regions agree."""
    switchover: SwitchoverLimits = SwitchoverLimits()
    estimates_ms: StepEstimates = StepEstimates()

    @model_validator(mode="after")
    def _returns_in_whole(self) -> Self:
        steps = self.return_steps_percent
        if not steps or steps[-1] != 100 or list(steps) != sorted(set(steps)):
            raise ValueError("expected return_steps_percent that grow and end with 100")
        return self

    @model_validator(mode="after")
    def _listens_no_longer_than_it_waits(self) -> Self:
        if 0 < self.region_wait_s < self.region_listen_s:
            raise ValueError(
                f"region_listen_s {self.region_listen_s:g}: expected at most region_wait_s,"
                f" which is {self.region_wait_s:g}"
            )
        return self

    @property
    def limits_lag(self) -> bool:
        """False under an emergency override."""
        return self.max_lag_bytes < NO_LIMIT

    def without_limits(self) -> Policy:
        """What holds under an emergency override: no limit that is set for ordinary days."""
        return self.model_copy(
            update={"min_healthy_nodes": 0, "max_lag_bytes": NO_LIMIT, "max_failover_time_s": float(NO_LIMIT)}
        )
