"""Orders to an agent, obeyed as `qnwis.agent.orders` does: one at a time, each once, none of the past."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qnwis.continuity.orders import (
    AnyOrder,
    CatchUpOrder,
    FollowOrder,
    PromoteOrder,
    Receipt,
    RejoinOrder,
)
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.timelines import AHEAD

from .database import PROMOTION_S
from .kernel import Flow
from .machine import moment

if TYPE_CHECKING:
    from .agent import Agent

PROMOTE_WITHIN_S = 30.0
CAUGHT_UP_WITHIN_S, LOOK_EVERY_S = 4.0, 0.02
GIVEN_UP_AFTER_S = 15.0
STOP_S, REWIND_S = (0.05, 0.3), (0.2, 1.0)


class Orders:
    """The door for orders of one life of an agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._node = agent.node
        self._kernel = agent.node.kernel
        self._down_since_s: dict[str, float] = {}

    def obey(self, order: AnyOrder) -> Flow:
        """Returns the receipt, a Refusal (nothing was changed), or None: it may have been."""
        while self._agent.busy:
            yield 0.02
        self._agent.busy = True
        answer = yield from self._obey(order)
        self._agent.busy = False
        return answer

    def _obey(self, order: AnyOrder) -> Flow:
        disk = self._node.disk
        promotion_begun = isinstance(order, PromoteOrder) and order.effect_id in disk.begun
        if order.epoch < self._agent.leases.epoch:
            return self._of_the_past(order, promotion_begun)
        if (done := disk.receipts.get(order.effect_id)) is not None:
            return done.model_copy(update={"changed": False})
        refusal, already = yield from self._look(order)
        if order.epoch < self._agent.leases.epoch:
            return self._of_the_past(order, promotion_begun)
        if promotion_begun and self._is_lost(order, refusal):
            leases = self._agent.leases
            if leases.released_epoch < order.epoch or leases.never_primary(order.epoch):
                return _refusal("promotion_lost", "nothing came of it")
        if refusal is not None:
            return None if promotion_begun else refusal
        if not self._agent.leases.obey(order.epoch):
            return None
        if disk.full:
            return None
        if already:
            return self._done(order, changed=order.effect_id in disk.begun)
        disk.begun.add(order.effect_id)
        failed = yield from self._carry_out(order)
        return None if failed else self._done(order, changed=True)

    def _of_the_past(self, order: AnyOrder, promotion_begun: bool) -> Receipt | Refusal | None:
        """Refuses, unless it is the promotion by which this node serves."""
        leases, database = self._agent.leases, self._node.database
        if promotion_begun and database is not None:
            primary = database.answers and not database.in_recovery
            if primary and leases.held:
                done = self._node.disk.receipts.get(order.effect_id)
                done = self._done(order, changed=True) if done is None else done
                return done and done.model_copy(update={"epoch": leases.sought})
            if primary or not database.standby or leases.held:
                return None
        return _refusal("epoch_superseded", f"epoch {order.epoch} is below {leases.epoch}")

    def _is_lost(self, order: AnyOrder, refusal: Refusal | None) -> bool:
        """Whether nothing came of a begun promotion nor can: its lease is released, and it is a standby."""
        node, database, leases = self._node, self._node.database, self._agent.leases
        if database is None or not database.standby or order.effect_id in node.disk.rejoined_since:
            return False
        if leases.released_epoch >= order.epoch:
            return True
        if refusal is not None and leases.sought < order.epoch:
            return True
        if refusal is None:
            self._down_since_s.pop(order.effect_id, None)
            return False
        since_s = self._down_since_s.setdefault(order.effect_id, self._kernel.now_s)
        if database.alive or self._kernel.now_s - since_s < GIVEN_UP_AFTER_S or not leases.give_up():
            return False
        node.guard.over()
        leases.take_nothing_up()
        return leases.released_epoch >= order.epoch

    def _look(self, order: AnyOrder) -> Flow:
        """Returns (refusal, whether it is so already)."""
        database, disk = self._node.database, self._node.disk
        if database is None:
            return _refusal("no_database", "a witness"), False
        if disk.unfinished_rejoin is not None and not isinstance(order, RejoinOrder):
            return _refusal("rejoin_unfinished", "half rewound"), False
        match order:
            case PromoteOrder():
                if not database.answers:
                    return _refusal("database_down", "does not answer"), False
                return None, not database.in_recovery and self._agent.leases.sought == order.epoch
            case FollowOrder():
                if not database.standby:
                    return _refusal("is_primary", "a primary follows nobody"), False
                if database.upstream == order.upstream and database.alive:
                    return None, True
                return (yield from self._look_at_history(order)), False
            case CatchUpOrder():
                if not database.answers or not database.in_recovery:
                    return _refusal("not_a_standby", "no standby that answers"), False
                return None, database.position.lsn >= order.to_lsn
            case RejoinOrder():
                return (yield from self._look_at_upstream(order))
        raise AssertionError(order)

    def _look_at_history(self, order: FollowOrder) -> Flow:
        """Returns why it cannot follow as it is; None also while the upstream answers as no primary."""
        database, upstream = self._node.database, self._node.peers[order.upstream].database
        assert database is not None and upstream is not None
        own = database.position
        fits = yield self._node.network.call(
            self._node.node_id,
            upstream.backends,
            lambda: not upstream.answers or upstream.in_recovery or upstream.position.contains(*own),
            1.0,
        )
        return _refusal(AHEAD, f"has more than {order.upstream}") if fits is False else None

    def _look_at_upstream(self, order: RejoinOrder) -> Flow:
        database, upstream = self._node.database, self._node.peers[order.upstream].database
        assert database is not None and upstream is not None
        if database.streaming and database.upstream == order.upstream:
            return None, True
        theirs = yield self._node.network.call(
            self._node.node_id, upstream.backends, lambda: upstream.answers and not upstream.in_recovery, 1.0
        )
        if not theirs:
            return _refusal("upstream_not_primary", f"{order.upstream} is no primary that answers"), False
        if database.answers and database.position.branch.timeline > upstream.position.branch.timeline:
            return _refusal("upstream_older", "its history is older"), False
        return None, False

    def _carry_out(self, order: AnyOrder) -> Flow:
        """Returns whether it is not known to be complete."""
        match order:
            case PromoteOrder():
                return (yield from self._promote(order))
            case FollowOrder():
                return (yield from self._follow(order))
            case CatchUpOrder():
                return (yield from self._catch_up(order))
            case RejoinOrder():
                return (yield from self._rejoin(order))
        raise AssertionError(order)

    def _promote(self, order: PromoteOrder) -> Flow:
        holding = self._agent.holding
        holding.stay()
        failed = yield from self._take_over(order)
        if failed:
            holding.wait()
        else:
            holding.end()
        return failed

    def _take_over(self, order: PromoteOrder) -> Flow:
        database = self._node.database
        assert database is not None
        if (yield from self._agent.leases.acquire(order.epoch, order.run_id)) is not None:
            return True
        began_s = self._kernel.now_s
        while database.alive and self._kernel.now_s - began_s < PROMOTE_WITHIN_S:
            yield self._kernel.rng.uniform(*PROMOTION_S)
            was_standby = database.in_recovery
            database.backends.do(database.promote)
            if database.answers and not database.in_recovery:
                if was_standby:
                    self._node.disk.changes.append(order.effect_id)
                return False
        return True

    def _follow(self, order: FollowOrder) -> Flow:
        database = self._node.database
        assert database is not None
        yield 0.005
        if database.upstream != order.upstream:
            self._node.disk.changes.append(order.effect_id)
        database.follow(self._agent.holding.upstream_of(order.epoch, order.upstream))
        if not database.alive:
            database.start()
        return False

    def _catch_up(self, order: CatchUpOrder) -> Flow:
        database = self._node.database
        assert database is not None
        database.follow(order.upstream)
        deadline_s = self._kernel.now_s + CAUGHT_UP_WITHIN_S
        while database.position.lsn < order.to_lsn and self._kernel.now_s < deadline_s:
            yield LOOK_EVERY_S
        database.follow(None)
        self._node.disk.changes.append(order.effect_id)
        return database.position.lsn < order.to_lsn

    def _rejoin(self, order: RejoinOrder) -> Flow:
        node, database = self._node, self._node.database
        upstream = node.peers[order.upstream].database
        assert database is not None and upstream is not None
        node.disk.rejoined_since |= node.disk.begun
        database.standby = True
        self._agent.stopping, self._agent.ended_by_itself = True, False
        yield self._kernel.rng.uniform(*STOP_S)
        database.kill()
        node.guard.over()
        if self._agent.leases.give_up():
            self._agent.leases.take_nothing_up()
        node.disk.unfinished_rejoin = order.effect_id
        yield self._kernel.rng.uniform(*REWIND_S)
        reached = yield node.network.call(node.node_id, upstream.backends, lambda: upstream.answers, 2.0)
        self._agent.stopping = False
        if not reached:
            return True
        database.rewind_to(upstream)
        database.follow(self._agent.holding.upstream_of(order.epoch, order.upstream))
        node.disk.unfinished_rejoin = None
        node.disk.changes.append(order.effect_id)
        database.start()
        for _ in range(600):
            yield 0.1
            if database.streaming or not database.alive:
                break
        return False

    def _done(self, order: AnyOrder, *, changed: bool) -> Receipt | None:
        if self._node.disk.full:
            return None
        receipt = Receipt(
            effect_id=order.effect_id,
            changed=changed,
            epoch=order.epoch,
            detail=f"{order.kind} is done",
            at=moment(self._kernel.now_s),
        )
        self._node.disk.receipts[order.effect_id] = receipt
        return receipt


def _refusal(rule: str, message: str) -> Refusal:
    return Refusal(rule=rule, message=message, remedy="-")
