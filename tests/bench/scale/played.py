"""A cluster's agents as they are played: what each says of its database, and what becomes of an order.

Every answer is one of the product's own messages, so that the real activities carry the real runs out. Behind
them is no database: an effect takes no time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from qnwis.continuity.evidence import NodeEvent, NodeState, StandbyConnection
from qnwis.continuity.lease_messages import (
    LastGrant,
    LeaseTerms,
    Membership,
    Promised,
    PromiseRequest,
    Withdrawal,
)
from qnwis.continuity.membership import MembershipView
from qnwis.continuity.orders import AnyOrder, FollowOrder, PromoteOrder, Receipt, RejoinOrder
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import NodeRole

from .world import NODES, node_id

LEASE_S = LeaseTerms().duration_s
LSN = 0x3000000
MEMBERS = Membership(version=1, members=tuple(node_id(index) for index in range(NODES)))


@dataclass
class PlayedNode:
    index: int
    epoch: int = 1
    promised_to: str = ""
    timeline: int = 1
    upstream: int | None = None
    """Of a standby: whom it follows."""
    up: bool = True
    receipts: dict[str, Receipt] = field(default_factory=dict)


class PlayedCluster:
    """Five nodes, of which one is the primary; `clock` gives seconds."""

    def __init__(self, number: int, clock: Callable[[], float]) -> None:
        self._number = number
        self._clock = clock
        self._lease_ends: float | None = None
        """Of the primary; None while it is renewed."""
        self._served_epoch = 1
        self.primary = 0
        self.nodes = tuple(PlayedNode(index, upstream=None if index == 0 else 0) for index in range(NODES))

    def fail(self, index: int) -> None:
        self.nodes[index].up = False
        if index == self.primary:
            self._end_lease()

    def heal(self, index: int) -> None:
        """It is there again; of a primary that was replaced, as a standby of the new one."""
        node = self.nodes[index]
        node.up = True
        if index != self.primary:
            node.upstream, node.timeline = self.primary, self.nodes[self.primary].timeline
            node.epoch = max(node.epoch, self._served_epoch)
        elif node.epoch == self._served_epoch:
            self._lease_ends = None

    def _end_lease(self) -> None:
        if self._lease_ends is None:
            self._lease_ends = self._clock() + LEASE_S

    def _left_s(self) -> float:
        return LEASE_S if self._lease_ends is None else max(0.0, self._lease_ends - self._clock())

    def _writable(self, index: int) -> bool:
        return index == self.primary and self._left_s() > 0

    def _streams(self, node: PlayedNode) -> bool:
        return node.upstream == self.primary and self.nodes[self.primary].up and self._writable(self.primary)

    def state(self, index: int) -> NodeState:
        node, is_primary = self.nodes[index], index == self.primary
        standbys = [other for other in self.nodes if other.up and self._streams(other)]
        streams = not is_primary and self._streams(node)
        return NodeState(
            node_id=node_id(index),
            role=NodeRole.PRIMARY if index == 0 else NodeRole.SECONDARY,
            database_up=True,
            writable=self._writable(index),
            in_recovery=not is_primary,
            system_identifier=str(7_000_000_000 + self._number),
            timeline=node.timeline,
            write_lsn=LSN if is_primary else None,
            receive_lsn=None if is_primary else LSN,
            replay_lsn=None if is_primary else LSN,
            upstream=None if node.upstream is None else node_id(node.upstream),
            streaming=streams,
            last_message_age_s=0.1 if streams else None,
            standbys=tuple(
                StandbyConnection(
                    application_name=node_id(other.index),
                    state="streaming",
                    sync_state="quorum",
                    flush_lag_bytes=0,
                )
                for other in standbys
            )
            if is_primary
            else (),
            epoch=node.epoch,
        )

    def event(self, index: int) -> NodeEvent:
        return NodeEvent(
            node_id=node_id(index),
            database_up=True,
            writable=self._writable(index),
            epoch=self.nodes[index].epoch,
        )

    def membership(self, index: int) -> MembershipView:
        return MembershipView(node_id=node_id(index), disk_id=f"{self._number}-{index}", membership=MEMBERS)

    def promise(self, index: int, asked: PromiseRequest) -> Promised | Refusal:
        node = self.nodes[index]
        if asked.epoch < node.epoch or (asked.epoch == node.epoch and asked.run_id != node.promised_to):
            return _refused("epoch_promised", f"{node_id(index)} has promised epoch {node.epoch}")
        node.epoch, node.promised_to = asked.epoch, asked.run_id
        self._end_lease()
        return Promised(
            member=node_id(index),
            epoch=asked.epoch,
            run_id=asked.run_id,
            membership_version=MEMBERS.version,
            granted=LastGrant(epoch=self._served_epoch, holder=node_id(self.primary), duration_s=LEASE_S),
            remaining_s=self._left_s(),
        )

    def withdraw(self, withdrawal: Withdrawal) -> Withdrawal:
        """A run gave up: a primary that lives takes its lease up again."""
        if self.nodes[self.primary].up:
            self._lease_ends = None
        return withdrawal

    def obey(self, index: int, order: AnyOrder) -> Receipt | Refusal:
        node = self.nodes[index]
        if order.epoch < node.epoch:
            return _refused("epoch_superseded", f"{node_id(index)} has obeyed epoch {node.epoch}")
        if (before := node.receipts.get(order.effect_id)) is not None:
            return before.model_copy(update={"changed": False})
        match order:
            case PromoteOrder():
                self._promote(node, order.epoch)
                detail = f"{node_id(index)} is the primary on timeline {node.timeline} at LSN {LSN}"
            case FollowOrder() | RejoinOrder():
                node.upstream = MEMBERS.members.index(order.upstream)
                node.timeline = self.nodes[node.upstream].timeline
                detail = f"{node_id(index)} follows {order.upstream}"
            case _:
                return _refused("not_played", f"an order to {order.kind} is not played here")
        node.epoch = order.epoch
        receipt = Receipt(
            effect_id=order.effect_id, changed=True, epoch=order.epoch, detail=detail, at=datetime.now(UTC)
        )
        node.receipts[order.effect_id] = receipt
        return receipt

    def _promote(self, node: PlayedNode, epoch: int) -> None:
        self.primary, self._served_epoch, self._lease_ends = node.index, epoch, None
        node.upstream, node.timeline = None, node.timeline + 1


def _refused(rule: str, message: str) -> Refusal:
    return Refusal(rule=rule, message=message, remedy="Start anew under a higher epoch.")
