"""The plan: an ordered list of typed actions, as canonical JSON with a SHA-256 digest.

One plan, four readers: it is simulated, approved (by its digest), executed and audited. It holds what
decides and nothing that merely varies (no clock, no log positions), so that planning again from
evidence that has not materially changed gives the same digest.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .evidence import ClusterEvidence
from .http_actions import HttpDemote, HttpFence, HttpPromote
from .model import Identifier, Model, sha256_digest
from .patroni_actions import (
    PatroniDemoteCluster,
    PatroniFailover,
    PatroniFenceCluster,
    PatroniPromoteCluster,
    PatroniSwitchover,
)


class FencePrimary(Model):
    """Make certain that the old primary cannot acknowledge another write, and record the evidence."""

    kind: Literal["fence_primary"] = "fence_primary"
    action_id: str
    node_id: str
    estimate_ms: int


class ForceMembership(Model):
    """Install a membership and an epoch without the nodes that are lost. Only an emergency override plans it.

    No majority agrees, so from here on the guarantee of a single primary is suspended: it is these people's
    word that the lost nodes are gone.
    """

    kind: Literal["force_membership"] = "force_membership"
    action_id: str
    node_id: str
    """The old primary, one of the lost."""
    lost: tuple[str, ...]
    members: tuple[str, ...]
    """Who is left."""
    attested_by: str | None
    """Who states that the lost nodes are off; None where it is only that they do not answer."""
    estimate_ms: int


class LowerTtl(Model):
    """Let clients keep the service's address for a short time only. One old TTL later all of them do."""

    kind: Literal["lower_ttl"] = "lower_ttl"
    action_id: str
    record: str
    from_ttl_s: int
    to_ttl_s: int
    estimate_ms: int


class PrepareNodes(Model):
    """Write checkpoints ahead, so that the old primary stops in a short time."""

    kind: Literal["prepare_nodes"] = "prepare_nodes"
    action_id: str
    node_ids: tuple[str, ...]
    estimate_ms: int


class ReleasePrimary(Model):
    """Let no new writes in, let the target catch up, stop the old primary and have it release its lease.

    Brings the fencing evidence, and the demotion token: where the log ends.
    """

    kind: Literal["release_primary"] = "release_primary"
    action_id: str
    node_id: str
    target: str
    """node_id of whoever takes over."""
    drain_s: float
    """How long open writing transactions may take to end."""
    estimate_ms: int


class PromoteTarget(Model):
    """Make the target the primary, under the run's epoch. The point of no return."""

    kind: Literal["promote_target"] = "promote_target"
    action_id: str
    node_id: str
    estimate_ms: int


class RepointStandbys(Model):
    """Let the remaining standbys follow the new primary."""

    kind: Literal["repoint_standbys"] = "repoint_standbys"
    action_id: str
    node_ids: tuple[str, ...]
    upstream: str
    estimate_ms: int


class FlipDns(Model):
    """Move the service's address record from the old primary to the target, by compare-and-swap.

    `record` is None where the topology has no DNS service: the step is then reported as not executed.
    """

    kind: Literal["flip_dns"] = "flip_dns"
    action_id: str
    record: str | None
    from_address: str
    to_address: str
    ttl_s: int
    estimate_ms: int


class RejoinOldPrimary(Model):
    """Let the old primary come back as a standby of the new one."""

    kind: Literal["rejoin_old_primary"] = "rejoin_old_primary"
    action_id: str
    node_id: str
    upstream: str
    estimate_ms: int


class RestoreTtl(Model):
    """Give the service's record its ordinary TTL again."""

    kind: Literal["restore_ttl"] = "restore_ttl"
    action_id: str
    record: str
    to_ttl_s: int
    estimate_ms: int


class VerifyService(Model):
    """Read the world again and let the verifier say whether the failover succeeded."""

    kind: Literal["verify_service"] = "verify_service"
    action_id: str
    node_id: str
    estimate_ms: int


Action = Annotated[
    FencePrimary
    | ForceMembership
    | LowerTtl
    | PrepareNodes
    | ReleasePrimary
    | PromoteTarget
    | RepointStandbys
    | FlipDns
    | RejoinOldPrimary
    | RestoreTtl
    | VerifyService
    | PatroniSwitchover
    | PatroniFailover
    | PatroniDemoteCluster
    | PatroniFenceCluster
    | PatroniPromoteCluster
    | HttpDemote
    | HttpFence
    | HttpPromote,
    Field(discriminator="kind"),
]


class Plan(Model):
    """What a run will do. Made by `planner.make_plan`; `digest` names exactly this content."""

    schema_version: Literal[1] = 1
    cluster_id: Identifier
    policy_id: Identifier
    topology_digest: str
    """Of the cluster without its nodes' `status`, which is evidence and not topology."""
    policy_digest: str
    trigger_reason: str
    primary_node_id: str
    failover_target_id: str
    actions: tuple[Action, ...]

    @property
    def digest(self) -> str:
        return sha256_digest(self)

    @property
    def plan_id(self) -> str:
        return "plan-" + self.digest.removeprefix("sha256:")[:12]

    @property
    def lost(self) -> tuple[str, ...]:
        """Nodes that the plan gives up; only an emergency override does."""
        return tuple(n for action in self.actions if isinstance(action, ForceMembership) for n in action.lost)

    @property
    def estimated_total_ms(self) -> int:
        return sum(action.estimate_ms for action in self.actions)


class PlanFile(Model):
    """A plan as `plan --output` writes it: the plan, its identity, and the evidence it was made from."""

    plan_id: str
    digest: str
    plan: Plan
    estimated_total_ms: int
    action_count: int
    evidence: ClusterEvidence | None = None
