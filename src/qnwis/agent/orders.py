"""Obeying: one order at a time, never an older epoch's, each effect once, with a trace before and after.

But for `prepare`, which may take minutes and changes nothing that another order depends on: no promotion
waits for a checkpoint that a switchover wanted before its primary died.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from qnwis.continuity.membership import Peer
from qnwis.continuity.orders import (
    AnyOrder,
    CatchUpOrder,
    DemoteOrder,
    FollowOrder,
    HandOverOrder,
    PrepareOrder,
    PromoteOrder,
    QuiesceOrder,
    Receipt,
    RejoinOrder,
    ResumeOrder,
)
from qnwis.continuity.refusal import Refusal
from qnwis.logs import log
from qnwis.whereabouts import standing_at

from .catch_up import catch_up
from .config import AgentConfig
from .effects import AlreadySo, Decision, Done, Effect, EffectError, Node, demote, promote, promoted_since
from .follow import follow
from .hand_over import hand_over, resume
from .journal import Journal, Line, Mark
from .lease import Leases
from .lost_promotion import LostPromotion
from .peers import Peers
from .quiesce import prepare, quiesce
from .rejoin import rejoin


class Orders:
    """The one door for orders. `lock` is held while one is carried out; the keeper takes it too."""

    def __init__(
        self,
        config: AgentConfig,
        peers: Peers,
        leases: Leases,
        journal: Journal,
        node: Node | None,
    ) -> None:
        """`node` is None for a witness."""
        self.lock = asyncio.Lock()
        self._preparing = asyncio.Lock()
        """Held while a prepare is carried out: one that is sent again gets the receipt of the first."""
        self._config = config
        self._peers = peers
        self._leases = leases
        self._journal = journal
        self._node = node
        self._lost = None if node is None else LostPromotion(config, node, journal)

    async def obey(self, order: AnyOrder) -> Receipt | Refusal:
        """Carry the order out. A Refusal means that nothing was changed, or that it was taken back; of a
        promotion also that no earlier attempt has changed anything, since a run goes back on its strength.

        Raises EffectError when the effect began and is not known to be complete: the same order may then be
        sent again, and is carried out again.
        """
        async with self._preparing if isinstance(order, PrepareOrder) else self.lock:
            with standing_at(run_id=order.run_id):
                return await self._obey(order)

    async def _obey(self, order: AnyOrder) -> Receipt | Refusal:
        if order.epoch < self._leases.epoch:
            return await self._of_the_past(order)
        receipt = self._journal.receipt_of(order.effect_id)
        if receipt is not None:
            return receipt.model_copy(update={"changed": False})
        decision = await self._decide(order)
        if order.epoch < self._leases.epoch:  # promised meanwhile: what was looked at is no longer so
            return await self._of_the_past(order)
        if (lost := await self._lost_promotion(order, decision)) is not None:
            return self._refuse(order, lost)
        if not isinstance(decision, Refusal) and order.epoch > self._leases.epoch:
            # Only now: an order refused must not take the present holder's lease from it.
            decision = self._leases.obey(order.epoch) or decision
        if isinstance(decision, Refusal):
            if self._is_begun_promotion(order):
                # Without a line of its own: what the journal says of the earlier attempt stays the last word.
                _log(order, Mark.FAILED, str(decision))
                raise EffectError(f"{order.kind} {order.effect_id} was begun, and cannot go on: {decision}")
            return self._refuse(order, decision)
        if isinstance(decision, AlreadySo):
            # If this effect was begun before, it is why the world is as ordered.
            begun = self._journal.begun(order.effect_id)
            return self._done(order, Done(decision.detail), changed=begun)
        assert self._node is not None, "a witness refuses every order"
        if isinstance(order, PrepareOrder):
            return await self._carry_out(order, decision)  # beside another order, which it must not end
        with self._node.receiving.ordered():
            return await self._carry_out(order, decision)

    async def _of_the_past(self, order: AnyOrder) -> Receipt | Refusal:
        """Refuse an order of an older epoch, unless it is the promotion by which this node serves."""
        if self._node is not None and self._is_begun_promotion(order):
            promoted = await promoted_since(self._node, order.epoch)
            if promoted is not None:
                receipt = self._journal.receipt_of(order.effect_id)
                if receipt is not None:
                    return receipt.model_copy(update={"changed": False, "epoch": self._leases.sought})
                return self._done(order, Done(promoted.detail), changed=True, epoch=self._leases.sought)
        return self._refuse(order, _superseded(self._config.node_id, order, self._leases.epoch))

    def _is_begun_promotion(self, order: AnyOrder) -> bool:
        """Whether it asks for a promotion that an earlier attempt began: that one may have taken the lease,
        and the new timeline may be on disk, so a refusal would not be true of the promotion as a whole."""
        return isinstance(order, PromoteOrder) and self._journal.begun(order.effect_id)

    async def _lost_promotion(self, order: AnyOrder, decision: Decision) -> Refusal | None:
        """Why it is refused, where it is a begun promotion of which nothing came nor can come."""
        if self._lost is None or not isinstance(order, PromoteOrder) or not self._is_begun_promotion(order):
            return None
        return await self._lost.refusal(order, decision)

    async def _carry_out(self, order: AnyOrder, effect: Effect) -> Receipt | Refusal:
        self._write(order, Mark.INTENT)
        try:
            done = await effect()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            self._write(order, Mark.FAILED, reason=reason)
            raise EffectError(
                f"{order.kind} {order.effect_id} is not known to be complete: {reason}"
            ) from error
        if isinstance(done, Refusal):
            return self._refuse(order, done)
        return self._done(order, done, changed=True)

    async def _decide(self, order: AnyOrder) -> Decision:
        if self._node is None:
            return _no_database(self._config.node_id, order)
        if (foreign := self._node.postgres.refuse_foreign()) is not None:
            return foreign
        unfinished = self._journal.unfinished_rejoin()
        match order:
            case DemoteOrder():
                return await demote(self._node, order)
            case RejoinOrder():
                upstream = self._upstream(order)
                if isinstance(upstream, Refusal):
                    return upstream
                return await rejoin(
                    self._node,
                    order,
                    upstream,
                    interrupted=unfinished is not None,
                    mark=lambda mark: self._write(order, mark),
                )
            case _ if unfinished is not None:
                return _half_rejoined(self._config.node_id, order, unfinished)
            case PromoteOrder():
                return await promote(self._node, order)
            case FollowOrder():
                upstream = self._upstream(order)
                return (
                    upstream if isinstance(upstream, Refusal) else await follow(self._node, order, upstream)
                )
            case CatchUpOrder():
                source = self._upstream(order)
                return source if isinstance(source, Refusal) else await catch_up(self._node, order, source)
            case QuiesceOrder():
                return await quiesce(self._node, order)
            case PrepareOrder():
                return await prepare(self._node, order)
            case HandOverOrder():
                return await hand_over(self._node, order)
            case ResumeOrder():
                return await resume(self._node, order)

    def _upstream(self, order: FollowOrder | RejoinOrder | CatchUpOrder) -> Peer | Refusal:
        peer = self._peers.of(order.upstream)
        if peer is not None and peer.database is not None:
            return peer
        known = [p.node_id for p in self._peers.all if p.database is not None]
        return Refusal(
            rule="unknown_upstream",
            message=f"{self._config.node_id} cannot {order.kind} {order.upstream}: expected one of {known}",
            values={"upstream": order.upstream, "known": list(known)},
            remedy="Name a peer that holds data, or make it a member",
        )

    def _refuse(self, order: AnyOrder, refusal: Refusal) -> Refusal:
        self._write(order, Mark.REFUSED, reason=str(refusal))
        return refusal

    def _done(self, order: AnyOrder, done: Done, *, changed: bool, epoch: int | None = None) -> Receipt:
        if self._node is not None and not isinstance(order, PrepareOrder | CatchUpOrder):
            self._node.receiving.forget()
        receipt = Receipt(
            effect_id=order.effect_id,
            changed=changed,
            epoch=epoch or order.epoch,
            detail=done.detail,
            at=datetime.now(UTC),
            token=done.token,
        )
        self._write(order, Mark.DONE, receipt=receipt)
        return receipt

    def _write(
        self, order: AnyOrder, mark: Mark, *, receipt: Receipt | None = None, reason: str | None = None
    ) -> None:
        marks_replacing = True if mark is Mark.INTENT and isinstance(order, RejoinOrder) else None
        self._journal.append(
            Line(
                at=datetime.now(UTC),
                mark=mark,
                order=order,
                receipt=receipt,
                reason=reason,
                marks_replacing=marks_replacing,
            )
        )
        _log(order, mark, receipt.detail if receipt is not None else reason)


def _log(order: AnyOrder, mark: Mark, detail: str | None) -> None:
    log(
        f"order_{mark.value}",
        kind=order.kind,
        effect_id=order.effect_id,
        run_id=order.run_id,
        epoch=order.epoch,
        detail=detail,
    )


def _superseded(node_id: str, order: AnyOrder, epoch: int) -> Refusal:
    return Refusal(
        rule="epoch_superseded",
        message=f"{node_id} refuses to {order.kind} under epoch {order.epoch}: it has obeyed epoch {epoch}",
        values={"order_epoch": order.epoch, "epoch": epoch},
        remedy="Another run has taken over; start anew under a higher epoch if this is still wanted",
    )


def _no_database(node_id: str, order: AnyOrder) -> Refusal:
    return Refusal(
        rule="no_database",
        message=f"{node_id} cannot {order.kind}: it is a witness and holds no data",
        values={"node_id": node_id},
        remedy="Send the order to a node that holds data",
    )


def _half_rejoined(node_id: str, order: AnyOrder, unfinished: RejoinOrder) -> Refusal:
    return Refusal(
        rule="rejoin_unfinished",
        message=f"{node_id} cannot {order.kind}: its rejoin {unfinished.effect_id} to {unfinished.upstream}"
        " did not finish, so its data may be half rewound",
        values={"effect_id": unfinished.effect_id, "upstream": unfinished.upstream},
        remedy="Order the rejoin again, and then this",
    )
