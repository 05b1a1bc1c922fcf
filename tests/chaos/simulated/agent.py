"""A node's agent, as `qnwis.agent` has it: orders, the keeper, and what it says of its node."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from qnwis.continuity.evidence import NodeState
from qnwis.continuity.orders import AnyOrder, FollowOrder, PromoteOrder, Receipt, RejoinOrder
from qnwis.continuity.refusal import Refusal

from .agent_leases import AgentLeases
from .database import PROMOTION_S
from .kernel import Flow, Future

if TYPE_CHECKING:
    from .node import Node

BEGIN = datetime(2000, 1, 1, tzinfo=UTC)
"""Simulated time 0; any fixed moment would do."""
ENFORCE_EVERY_S = 0.1
FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_AFTER_S = 0.1, 5.0, 10.0
PROMOTE_WITHIN_S = 30.0
STOP_S, REWIND_S = (0.05, 0.3), (0.2, 1.0)
STARTING_S = 10.0
RETURN_AFTER_S = 5.0
QUERY_TIMEOUT_S = 1.0
SILENT_KNOWN_S = 1.4
"""A database that hangs for so long is known to: then the agent says so without delay."""
SILENT_PATIENCE_S = 0.2


def _leases_of(node: Node, peer: str) -> AgentLeases:
    return node.peers[peer].agent.leases


def moment(now_s: float) -> datetime:
    return BEGIN + timedelta(seconds=now_s)


class Agent:
    """One life of it; what outlives it is on the node's disk."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._kernel = node.kernel
        self.leases = AgentLeases(
            node.agent_process,
            node.disk,
            node.clock.now,
            node.terms,
            node.network,
            {peer: partial(_leases_of, node, peer) for peer in node.peers if peer != node.node_id},
        )
        self.leases.on_until = self._lease_lasts
        self._busy = False
        """An order is carried out, or the keeper starts the database."""
        self._changed = Future()
        """The database started or ended."""
        self._enforcing = False
        self._stopping = False
        self.ended_by_itself = False
        self.let_down = False
        self.restarting = False

    def run(self) -> None:
        process = self._node.agent_process
        process.spawn(self.leases.renew())
        if self._node.database is not None:
            process.spawn(self._keep())
            process.after(ENFORCE_EVERY_S, self._enforce)

    # What it says

    def state(self) -> NodeState | Flow:
        """A flow where the database lets it wait longer than anybody waits for the agent."""
        database = self._node.database
        if database is not None and database.hung_since_s is not None:
            return self._state_of_a_hung_database(database.hung_since_s)
        return self._state()

    def _state_of_a_hung_database(self, since_s: float) -> Flow:
        known = self._kernel.now_s - since_s > SILENT_KNOWN_S
        yield SILENT_PATIENCE_S if known else QUERY_TIMEOUT_S
        return self._state()

    def _state(self) -> NodeState:
        node, database = self._node, self._node.database
        known: dict[str, Any] = {"node_id": node.node_id, "role": node.role, "epoch": self.leases.epoch}
        if database is None:
            return NodeState(database_up=False, **known)
        known |= {"database_ended": self.let_down, "restarting": self.restarting}
        if not database.answers or database.hung_since_s is not None:
            return NodeState(database_up=False, upstream=database.upstream, **known)
        position, standby = database.position, database.in_recovery
        return NodeState(
            **known,
            database_up=True,
            writable=not standby,
            in_recovery=standby,
            system_identifier="simulated",
            timeline=position.branch.timeline,
            write_lsn=None if standby else position.lsn,
            receive_lsn=position.lsn if standby else None,
            replay_lsn=position.lsn if standby else None,
            upstream=database.upstream if standby else None,
            streaming=database.streaming,
            last_message_age_s=self._kernel.now_s - database.last_message_s if database.streaming else None,
        )

    # The keeper

    def database_changed(self) -> None:
        database = self._node.database
        assert database is not None
        if database.alive:
            self.let_down = self.ended_by_itself = False
        elif not self._stopping:
            self.ended_by_itself = True
        self._changed.resolve()

    def _keep(self) -> Flow:
        """Has the database running whenever it may; one that ended by itself is let down for a while."""
        database = self._node.database
        assert database is not None
        pause_s = FIRST_PAUSE_S
        while True:
            while self._busy:
                yield 0.02
            self._busy = True
            down_s = 0.0
            if self.ended_by_itself:
                down_s = self._after_end()
            elif not database.alive and (yield from self._may_start()):
                self.restarting = True
                database.start()
            self._busy = False
            began_s = self._kernel.now_s
            if database.alive:
                yield from self._until_ended()
            else:
                yield self._change_within(max(pause_s, down_s))
            steady = self._kernel.now_s - began_s > STEADY_AFTER_S
            pause_s = FIRST_PAUSE_S if steady else min(2 * pause_s, LONGEST_PAUSE_S)

    def _after_end(self) -> float:
        """Release the lease of a database that ended by itself. For how long it is let down."""
        database = self._node.database
        assert database is not None
        if not database.standby:
            self._node.guard.over()
            if not self.leases.give_up():
                return 0.0
        self.ended_by_itself, self.let_down = False, True
        self._node.on_event(self._node)
        return RETURN_AFTER_S

    def _until_ended(self) -> Flow:
        database = self._node.database
        assert database is not None
        began_s = self._kernel.now_s
        while self.restarting and database.alive and self._kernel.now_s - began_s < STARTING_S:
            if database.answers:
                break
            yield 0.05
        self.restarting = False
        while database.alive:
            self._changed = Future()
            yield self._changed

    def _change_within(self, within_s: float) -> Future:
        self._changed = changed = Future()
        self._node.agent_process.after(within_s, changed.resolve)
        return changed

    def _may_start(self) -> Flow:
        database, disk = self._node.database, self._node.disk
        assert database is not None
        if disk.unfinished_rejoin is not None:
            return False
        if not database.standby:
            return (yield from self.leases.take_up()) is None
        return database.upstream is not None

    def _lease_lasts(self, until: float) -> None:
        self._node.guard.tell(until)
        if not self._enforcing:
            self._enforcing = True
            self._watch_the_lease()

    def _watch_the_lease(self) -> None:
        rest_s = self._node.clock.true_s(self.leases.serves_until) - self._kernel.now_s
        late_s = self._kernel.rng.uniform(0, ENFORCE_EVERY_S)
        self._node.agent_process.after(max(0.0, rest_s) + late_s, self._enforce)

    def _enforce(self) -> None:
        """End a writable database whose lease is over, as its guard does too."""
        database = self._node.database
        if self.leases.held:
            self._watch_the_lease()
            return
        self._enforcing = False
        if database is not None and database.alive and not database.standby:
            database.kill()

    # Orders

    def obey(self, order: AnyOrder) -> Flow:
        """Returns the receipt, a Refusal (nothing was changed), or None: it may have been."""
        while self._busy:
            yield 0.02
        self._busy = True
        answer = yield from self._obey(order)
        self._busy = False
        return answer

    def _obey(self, order: AnyOrder) -> Flow:
        disk = self._node.disk
        if order.epoch < self.leases.epoch:
            return _refusal("epoch_superseded", f"epoch {order.epoch} is below {self.leases.epoch}")
        if (done := disk.receipts.get(order.effect_id)) is not None:
            return done.model_copy(update={"changed": False})
        refusal, already = yield from self._look(order)
        if refusal is None and order.epoch > self.leases.epoch:
            promised = self.leases.obey(order.epoch, order.run_id)
            if promised is None:
                return None
            refusal = promised if isinstance(promised, Refusal) else None
        if refusal is not None:
            return refusal
        if disk.full:
            return None
        if already:
            return self._done(order, changed=order.effect_id in disk.begun)
        disk.begun.add(order.effect_id)
        failed = yield from self._carry_out(order)
        return None if failed else self._done(order, changed=True)

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
                return None, not database.in_recovery and self.leases.sought == order.epoch
            case FollowOrder():
                if not database.standby:
                    return _refusal("is_primary", "a primary follows nobody"), False
                return None, database.upstream == order.upstream and database.alive
            case RejoinOrder():
                return (yield from self._look_at_upstream(order))
        raise AssertionError(order)

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
            case RejoinOrder():
                return (yield from self._rejoin(order))

    def _promote(self, order: PromoteOrder) -> Flow:
        database = self._node.database
        assert database is not None
        if (yield from self.leases.acquire(order.epoch, order.run_id)) is not None:
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
        database.follow(order.upstream)
        if not database.alive:
            database.start()
        return False

    def _rejoin(self, order: RejoinOrder) -> Flow:
        node, database = self._node, self._node.database
        upstream = node.peers[order.upstream].database
        assert database is not None and upstream is not None
        node.disk.unfinished_rejoin = order.effect_id
        database.standby = True
        self._stopping, self.ended_by_itself = True, False
        yield self._kernel.rng.uniform(*STOP_S)
        database.kill()
        node.guard.over()
        if self.leases.give_up():
            self.leases.take_nothing_up()
        yield self._kernel.rng.uniform(*REWIND_S)
        reached = yield node.network.call(node.node_id, upstream.backends, lambda: upstream.answers, 2.0)
        self._stopping = False
        if not reached:
            return True
        database.rewind_to(upstream)
        database.start()
        for _ in range(600):
            yield 0.1
            if database.streaming:
                node.disk.unfinished_rejoin = None
                node.disk.changes.append(order.effect_id)
                return False
            if not database.alive:
                return True
        return True

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
