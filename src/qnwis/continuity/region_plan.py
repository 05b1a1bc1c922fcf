"""The plan by which clusters leave a region, or come back to it: one digest for the plans of all of them."""

from __future__ import annotations

from enum import StrEnum

from .direction import Direction as Direction
from .model import Identifier, Model, sha256_digest
from .plan import Plan
from .refusal import Refusal
from .shifting import WeightMove


class Move(StrEnum):
    FAILOVER = "failover"  # its primary does not serve
    SWITCHOVER = "switchover"  # its primary serves still, and is left without a loss


class ClusterMove(Model):
    """One cluster that is moved."""

    cluster_id: Identifier
    how: Move
    plan: Plan
    predicted_loss_bytes: int | None
    """Log that is known to be lost, bytes; None where nothing is known."""


class Unmovable(Model):
    """A cluster that cannot be moved now."""

    cluster_id: Identifier
    refusal: Refusal


class RegionPlan(Model):
    """How a region is left, or come back to. Its digest covers the plans of all clusters: one approval is for
    all of them."""

    region: str
    direction: Direction = Direction.OUT
    reason: str
    waves: tuple[tuple[ClusterMove, ...], ...]
    weights: tuple[WeightMove, ...] = ()
    """Active/active clusters: of these the weights are shifted, before the waves, and nothing is promoted."""
    unmovable: tuple[Unmovable, ...] = ()
    """They stay where they are, each with the rule that refuses; nothing is done about them."""
    stop_after: int

    @property
    def digest(self) -> str:
        return sha256_digest(self)

    @property
    def moves(self) -> tuple[ClusterMove, ...]:
        return tuple(move for wave in self.waves for move in wave)

    @property
    def cluster_ids(self) -> tuple[str, ...]:
        """In the order in which they are begun."""
        return (*(shift.cluster_id for shift in self.weights), *(move.cluster_id for move in self.moves))

    @property
    def predicted_loss_bytes(self) -> int | None:
        """Of all clusters; None where of one of them nothing is known."""
        losses = [move.predicted_loss_bytes for move in self.moves]
        return None if None in losses else sum(loss for loss in losses if loss is not None)
