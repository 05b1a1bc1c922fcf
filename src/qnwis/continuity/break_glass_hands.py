"""What every break-glass step is written from, and what one is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import JsonValue

from .break_glass_shell import block, moved, tell
from .evidence import ClusterEvidence, NodeState
from .lease_messages import Membership, PromiseRequest, Withdrawal
from .model import Model
from .plan import Action, FlipDns, Plan, ReleasePrimary
from .topology import Cluster, Node

PROMISE, AGAIN, HANDED_OVER, PROMOTED = "promise", "again", "hand-over", "promote"
"""Names of the kept answers."""


class Otherwise(Model):
    """What is pasted only when `when` is the case: to turn back, or where an agent is gone."""

    when: str
    text: str
    commands: str


class Step(Model):
    """One numbered step."""

    title: str
    does: str
    commands: str
    """For bash; as they stand."""
    see: str
    """What one must see before going on."""
    past_return: bool = False
    otherwise: tuple[Otherwise, ...] = ()


@dataclass(frozen=True)
class Hands:
    """What every step is written from."""

    run_id: str
    epoch: int
    plan: Plan
    cluster: Cluster
    evidence: ClusterEvidence
    membership: Membership
    needed: int
    """Standbys that must answer before the promotion."""
    allowed_lag_bytes: int

    @property
    def primary(self) -> Node:
        return self.cluster.node(self.plan.primary_node_id)

    @property
    def target(self) -> Node:
        return self.cluster.node(self.plan.failover_target_id)

    @property
    def hands_over(self) -> bool:
        return any(isinstance(action, ReleasePrimary) for action in self.plan.actions)

    def members(self) -> list[Node]:
        """The silent ones last, so that nobody waits for them."""
        nodes = [node for node in self.cluster.nodes if node.node_id in self.membership.members]
        return sorted(nodes, key=lambda node: self.state(node) is None)

    def data_nodes(self) -> list[Node]:
        return [node for node in self.cluster.nodes if node.holds_data]

    def state(self, node: Node) -> NodeState | None:
        return self.evidence.of(node.node_id).state

    def epoch_of(self, node: Node) -> int:
        """The epoch that the node has obeyed, which orders of the present carry."""
        state = self.state(node)
        return 1 if state is None else max(1, state.epoch)

    def effect(self, action: Action, *more: str) -> str:
        return "/".join([self.run_id, action.action_id, *more])

    def block(self, *lines: str) -> str:
        return block(self.run_id, lines)

    def ask_promises(self, name: str) -> Iterator[str]:
        asked = PromiseRequest(
            epoch=self.epoch, run_id=self.run_id, membership_version=self.membership.version
        )
        for node in self.members():
            yield tell(f"{name}-{node.node_id}", node, "/lease/promise", asked, within_s=2) + " || true"

    def withdraw(self) -> Iterator[str]:
        gone = Withdrawal(epoch=self.epoch, run_id=self.run_id)
        for node in self.members():
            yield tell(f"withdraw-{node.node_id}", node, "/lease/withdraw", gone, within_s=2) + " || true"

    def retold(self, from_address: str, to_address: str, ttl_s: int) -> list[str]:
        """The service's record, moved if it is as expected."""
        dns, name = self.cluster.dns, self.flip.record
        assert dns is not None and name is not None, "without a DNS service no plan changes a record"
        return moved(dns, name, from_address=from_address, to_address=to_address, ttl_s=ttl_s)

    @property
    def flip(self) -> FlipDns:
        return next(action for action in self.plan.actions if isinstance(action, FlipDns))

    def order_head(self, action: Action, *more: str, epoch: int | None = None) -> dict[str, JsonValue]:
        return {
            "effect_id": self.effect(action, *more),
            "run_id": self.run_id,
            "epoch": self.epoch if epoch is None else epoch,
        }
