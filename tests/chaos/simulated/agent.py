"""A node's agent, as `qnwis.agent` has it: the keeper, and what it says of its node."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qnwis.continuity.evidence import NodeState

from .agent_leases import AgentLeases
from .holding import Holding
from .kernel import Flow, Future
from .orders import Orders

if TYPE_CHECKING:
    from .node import Node

ENFORCE_EVERY_S = 0.1
FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_AFTER_S = 0.1, 5.0, 10.0
STARTING_S = 10.0
RETURN_AFTER_S = 5.0
QUERY_TIMEOUT_S = 1.0
SILENT_KNOWN_S = 1.4
"""A database that hangs for so long is known to: then the agent says so without delay."""
SILENT_PATIENCE_S = 0.2


def _leases_of(node: Node, peer: str) -> AgentLeases:
    return node.peers[peer].agent.leases


class Agent:
    """One life of it; what outlives it is on the node's disk."""

    def __init__(self, node: Node) -> None:
        self.node = node
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
        self.busy = False
        """An order is carried out, or the keeper starts the database: one after the other."""
        self._changed = Future()
        """The database started or ended."""
        self._enforcing = False
        self.holding = Holding(self)
        self.orders = Orders(self)
        self.stopping = False
        self.ended_by_itself = False
        self.let_down = False
        self.restarting = False

    def run(self) -> None:
        process = self.node.agent_process
        process.spawn(self.leases.renew())
        if self.node.database is not None:
            self.holding.resume()
            process.spawn(self._keep())
            process.after(ENFORCE_EVERY_S, self._enforce)

    # What it says

    def state(self) -> NodeState | Flow:
        """A flow where the database lets it wait longer than anybody waits for the agent."""
        database = self.node.database
        if database is not None and database.hung_since_s is not None:
            return self._state_of_a_hung_database(database.hung_since_s)
        return self._state()

    def _state_of_a_hung_database(self, since_s: float) -> Flow:
        known = self._kernel.now_s - since_s > SILENT_KNOWN_S
        yield SILENT_PATIENCE_S if known else QUERY_TIMEOUT_S
        return self._state()

    def _state(self) -> NodeState:
        node, database = self.node, self.node.database
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
        database = self.node.database
        assert database is not None
        if database.alive:
            self.let_down = self.ended_by_itself = False
        elif not self.stopping:
            self.ended_by_itself = True
        self._changed.resolve()

    def _keep(self) -> Flow:
        """Has the database running whenever it may; one that ended by itself is let down for a while."""
        database = self.node.database
        assert database is not None
        pause_s = FIRST_PAUSE_S
        while True:
            while self.busy:
                yield 0.02
            self.busy = True
            down_s = 0.0
            if self.ended_by_itself:
                down_s = self._after_end()
            elif not database.alive and (yield from self._may_start()):
                self.restarting = True
                database.start()
            self.busy = False
            began_s = self._kernel.now_s
            if database.alive:
                yield from self._until_ended()
            else:
                yield self._change_within(max(pause_s, down_s))
            steady = self._kernel.now_s - began_s > STEADY_AFTER_S
            pause_s = FIRST_PAUSE_S if steady else min(2 * pause_s, LONGEST_PAUSE_S)

    def _after_end(self) -> float:
        """Release the lease of a database that ended by itself. For how long it is let down."""
        database = self.node.database
        assert database is not None
        if not database.standby and not self.leases.give_up():  # its disk does not take that: tried again
            if not self.let_down:
                self.let_down = True
                self.node.on_event(self.node)
            return 0.0
        if not database.standby:
            self.node.guard.over()
        self.ended_by_itself, self.let_down = False, True
        self.node.on_event(self.node)
        return RETURN_AFTER_S

    def _until_ended(self) -> Flow:
        database = self.node.database
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
        self.node.agent_process.after(within_s, changed.resolve)
        return changed

    def _may_start(self) -> Flow:
        database, disk = self.node.database, self.node.disk
        assert database is not None
        if disk.unfinished_rejoin is not None:
            return False
        if not database.standby:
            return (yield from self.leases.take_up()) is None
        return database.upstream is not None or disk.held is not None

    def _lease_lasts(self, until: float) -> None:
        self.node.guard.tell(until)
        if not self._enforcing:
            self._enforcing = True
            self._watch_the_lease()

    def _watch_the_lease(self) -> None:
        rest_s = self.node.clock.true_s(self.leases.serves_until) - self._kernel.now_s
        late_s = self._kernel.rng.uniform(0, ENFORCE_EVERY_S)
        self.node.agent_process.after(max(0.0, rest_s) + late_s, self._enforce)

    def _enforce(self) -> None:
        """End a writable database whose lease is over, as its guard does too."""
        database = self.node.database
        if self.leases.held:
            self._watch_the_lease()
            return
        self._enforcing = False
        if database is not None and database.alive and not database.standby:
            database.kill()
