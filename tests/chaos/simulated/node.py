"""A node as a machine: agent, guard and database, which die and freeze apart or together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qnwis.continuity.lease_messages import LeaseTerms
from qnwis.continuity.topology import NodeRole
from tests.chaos.story import Part

from .agent import Agent
from .database import Database
from .guard import Guard
from .kernel import Kernel, Process
from .machine import Clock, Disk
from .network import Network

THAW_LAG_S = 0.02
"""Of two processes that thaw together, one runs up to so long before the other."""


class Node:
    def __init__(
        self,
        kernel: Kernel,
        network: Network,
        node_id: str,
        role: NodeRole,
        terms: LeaseTerms,
        disk: Disk,
        database: Database | None,
        peers: Mapping[str, Node],
    ) -> None:
        self.kernel, self.network, self.terms = kernel, network, terms
        self.node_id, self.role = node_id, role
        self.peers = peers
        """Every node of the cluster, itself included."""
        self.clock = Clock(kernel)
        self.disk = disk
        self.database = database
        self.agent_process = Process(kernel, node_id)
        self.agent_process.on_kill.append(self._agent_ended)
        if database is not None:
            self.guard = Guard(kernel, node_id, self.clock, database)
            database.on_change = self._database_changed
        self.agent = Agent(self)
        self.on_event: Callable[[Node], None] = lambda node: None
        """Called when whoever watches would hear that the agent ended or that the database is gone."""
        self.thawed_whole_s: list[float] = []

    def start(self) -> None:
        """Start what does not run: the agent, and with it the database."""
        if self.agent_process.alive:
            return
        self.agent_process.start()
        self.agent = Agent(self)
        self.agent.run()

    def kill(self, part: Part) -> None:
        database = self.database
        if part in (Part.AGENT, Part.ALL):
            self.agent_process.kill()
        if database is None:
            return
        if part in (Part.GUARD, Part.ALL):
            self.guard.process.kill()
        if part in (Part.DATABASE, Part.POSTMASTER, Part.ALL):
            database.kill()
        if part is Part.RECEIVER and database.stream is not None:
            database.disconnected(database.stream)

    def freeze(self, part: Part) -> None:
        if part in (Part.AGENT, Part.ALL):
            self.agent_process.freeze()
        if (database := self.database) is None:
            return
        if part in (Part.GUARD, Part.ALL):
            self.guard.process.freeze()
        if part in (Part.DATABASE, Part.ALL):
            database.freeze()
        if part is Part.POSTMASTER:
            database.freeze_postmaster()
        if part is Part.RECEIVER:
            database.receiver.freeze()

    def thaw(self, part: Part) -> None:
        def lag_s() -> float:
            return self.kernel.rng.uniform(0, THAW_LAG_S) if part is Part.ALL else 0.0

        if part is Part.ALL:
            self.thawed_whole_s.append(self.kernel.now_s)
        if part in (Part.AGENT, Part.ALL):
            self.agent_process.thaw(lag_s())
        if (database := self.database) is None:
            return
        if part in (Part.GUARD, Part.ALL):
            self.guard.process.thaw(lag_s())
        if part in (Part.DATABASE, Part.POSTMASTER, Part.ALL):
            database.thaw(lag_s())
        if part is Part.RECEIVER:
            database.receiver.thaw()

    def _agent_ended(self) -> None:
        if self.database is not None:
            self.guard.agent_gone()
        self.on_event(self)

    def _database_changed(self) -> None:
        self.agent_process.do(self._agent_hears)

    def _agent_hears(self) -> None:
        self.agent.database_changed()
        if self.database is not None and not self.database.alive:
            self.on_event(self)
