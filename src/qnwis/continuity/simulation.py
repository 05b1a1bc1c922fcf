"""What a simulation comes to."""

from __future__ import annotations

from .model import Model
from .refusal import Refusal
from .scenarios import Scenario
from .shifting import WeightMove


class Event(Model):
    """One moment of a simulation."""

    t_ms: int
    """Since the watch began."""
    what: str


class SimulatedFailover(Model):
    execution_id: str
    success: bool
    """Every action of the plan succeeded, or had nothing to do."""
    actions_executed: int
    """Those that succeeded, or had nothing to do."""
    total_duration_ms: int
    """Simulated, from the start of the run; the time to detect is `detection_ms`."""
    plan_id: str
    plan_digest: str
    source_node: str
    target_node: str


class SimulatedVerification(Model):
    report_id: str
    passed: bool
    consistency_ok: bool
    policy_ok: bool
    quorum_ok: bool
    failures: tuple[str, ...] = ()


class SimulationResult(Model):
    """Form: specification, "POST /api/v1/continuity/simulate"; what goes beyond it comes after."""

    scenario: Scenario
    success: bool
    """The last failover that the scenario called for happened and passed its verification; or, where a region
    of an active/active cluster is gone, its weight went to the others.

    False where a rule refused it; then `refusal` says which, and refusing may well be right.
    """
    failover: SimulatedFailover | None = None
    """The last one that was carried out."""
    verification: SimulatedVerification | None = None
    refusal: Refusal | None = None
    seed: int
    cluster_id: str
    policy_id: str
    detection_ms: int | None = None
    """From the first failure until a majority of the vantages called the primary failed."""
    assumptions: tuple[str, ...] = ()
    """Where the model goes beyond what the topology says."""
    timeline: tuple[Event, ...] = ()
    weights: WeightMove | None = None
    """Active/active, and the region is gone: the weights before and after. Nothing is promoted."""
