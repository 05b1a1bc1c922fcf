"""A standby that receives nothing between its promise to a run and what the run orders.

Whatever the former primary still sends is confirmed by nobody who promised: the run compares positions that
stand still.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qnwis.continuity.lease_messages import Promised, PromiseRequest

from .kernel import Flow
from .machine import Held

if TYPE_CHECKING:
    from .agent import Agent

STOPPED_WITHIN_S = 1.0
"""A receiver that is not gone by then is frozen with its database: the promise is answered anyway."""
LOOK_EVERY_S = 0.01


class Holding:
    """Of one life of an agent; what is held is on the node's disk."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._node = agent.node
        self._kernel = agent.node.kernel
        self._turn = 0
        """Grows when the time to go on is set anew."""
        self._began_s = self._kernel.now_s

    def resume(self) -> None:
        """After a restart, which forgot how much of the time had passed."""
        if self._node.disk.held is not None:
            self._stop_receiver()

    def promise(self, request: PromiseRequest) -> Flow:
        """A run asks. Returns what `AgentLeases.promise` does, once the receiver is gone."""
        node, database = self._node, self._node.database
        answer = self._agent.leases.promise(request)
        if not isinstance(answer, Promised) or not node.holds_receiver:
            return answer
        if database is None or not database.standby:
            return answer
        held, former = Held(request.epoch, request.run_id, database.upstream), node.disk.held
        if former is not None:
            held = replace(held, upstream=former.upstream)
        if held != former:
            if node.disk.full:
                return None
            node.disk.held, self._began_s = held, self._kernel.now_s
        self._stop_receiver()
        while database.stream is not None and self._kernel.now_s < self._began_s + STOPPED_WITHIN_S:
            yield LOOK_EVERY_S
        return answer

    def withdrawn(self, epoch: int, run_id: str) -> bool:
        held = self._node.disk.held
        if held is not None and (held.epoch, held.run_id) == (epoch, run_id):
            self._go_on()
        return self._agent.leases.withdrawn(epoch, run_id)

    def stay(self) -> None:
        """Until `wait` or `end`, however long the promotion takes."""
        self._turn += 1

    def wait(self) -> None:
        """Go on in `reserve_s`, unless the holding ends before."""
        self._turn += 1
        self._node.agent_process.after(self._node.terms.reserve_s, self._go_on_at, self._turn)

    def end(self) -> None:
        self._node.disk.held = None

    def upstream_of(self, epoch: int, upstream: str) -> str | None:
        """What to receive from by an order of that epoch; None while a later epoch's promise is held."""
        held = self._node.disk.held
        if held is not None and held.epoch > epoch:
            self._node.disk.held = replace(held, upstream=upstream)
            return None
        self.end()
        return upstream

    def _stop_receiver(self) -> None:
        assert self._node.database is not None
        self._node.database.follow(None)
        self.wait()

    def _go_on_at(self, turn: int) -> None:
        if turn == self._turn:
            self._go_on()

    def _go_on(self) -> None:
        if self._agent.busy:  # an order says whom to follow
            self.wait()
            return
        held, database = self._node.disk.held, self._node.database
        if held is not None and database is not None:
            self.end()
            database.follow(held.upstream)
