"""The node's state, asked anew each time, and the events that come of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from qnwis.continuity.evidence import NodeEvent, NodeState

from .config import AgentConfig
from .database import ConnectionsExhaustedError, DatabaseDownError, Facts
from .effects import Node
from .events import Events
from .lease import Leases

LOOK_EVERY_S = 0.5
"""How often a change that nobody ordered (a restart, a promotion by hand) is looked for."""
LOOK_WHILE_STARTING_S = 0.05
SILENT_PATIENCE_S = 0.2
"""A database that gave no answer the last time gets so long to give one before it is said again. Who asks has
little patience, and needs to hear it from the agent."""


@dataclass(frozen=True)
class Report:
    """One look at the node."""

    state: NodeState
    facts: Facts | None
    """None while the database does not answer, and on a witness."""


class Reporter:
    """Looks at the database for everyone who asks; whoever looks, watchers hear of a change."""

    def __init__(self, config: AgentConfig, leases: Leases, node: Node | None) -> None:
        """`node` is None for a witness."""
        self._config = config
        self._leases = leases
        self._node = node
        self.events = Events(self._event(database_up=False, writable=False))
        self._silent: str | None = None
        """Why the database, which runs, gave no answer the last time."""
        self._looking: asyncio.Task[Report] | None = None

    async def look(self) -> Report:
        """The node as it is now. Never raises; answers in bounded time."""
        silent, looking = self._silent, self._looking
        if silent is None:
            return await self._look_and_tell()
        if looking is None or looking.done():
            self._looking = looking = asyncio.ensure_future(self._look_and_tell())
        done, _ = await asyncio.wait({looking}, timeout=SILENT_PATIENCE_S)
        return looking.result() if done else self._down(silent)

    async def _look_and_tell(self) -> Report:
        report = await self._look()
        state = report.state
        runs = self._node is not None and self._node.postgres.running
        self._silent = state.why_down if runs and not state.database_up else None
        self.events.publish(self._event(database_up=state.database_up, writable=state.writable))
        return report

    def database_changed(self) -> None:
        """The database started, ended or is let down: watchers hear of it before anybody can ask."""
        if self._node is None or not self._node.postgres.running:
            self._silent = None
            self.events.publish(self._event(database_up=False, writable=False), again=True)

    def epoch_changed(self) -> None:
        latest = self.events.latest
        self.events.publish(self._event(database_up=latest.database_up, writable=latest.writable))

    async def keep_looking(self) -> None:
        """Runs until cancelled."""
        while True:
            report = await self.look()
            if self._node is not None:
                self._node.receiving.seen(report.facts)
            starting = self._node is not None and self._node.postgres.running and not report.state.database_up
            await asyncio.sleep(LOOK_WHILE_STARTING_S if starting else LOOK_EVERY_S)

    async def _look(self) -> Report:
        if self._node is None:
            return self._down("this node holds no data")
        postgres = self._node.postgres
        if not postgres.running:
            refusal = postgres.not_started
            return self._down(
                "PostgreSQL is not running; see postgres.log" if refusal is None else str(refusal)
            )
        try:
            facts = await self._node.connection.facts()
        except ConnectionsExhaustedError as error:
            return self._down(str(error), database_up=True)
        except DatabaseDownError as error:
            return self._down(str(error))
        if not postgres.running:
            # A backend can answer a moment longer than its postmaster lives.
            return self._down("the database has just ended")
        return Report(self._state(facts), facts)

    def _down(self, why: str, *, database_up: bool = False) -> Report:
        return Report(self._state().model_copy(update={"why_down": why, "database_up": database_up}), None)

    def _state(self, facts: Facts | None = None) -> NodeState:
        postgres = self._node.postgres if self._node is not None else None
        upstream = self._node.receiving.upstream if self._node is not None else None
        base = NodeState(
            node_id=self._config.node_id,
            role=self._config.role,
            database_up=facts is not None,
            database_ended=postgres is not None and postgres.let_down,
            restarting=postgres is not None and postgres.restarting,
            quiesced=postgres is not None and postgres.quiesced,
            handed_over=self._node is not None and self._node.handed_over.there,
            upstream=None if upstream is None else upstream.node_id,
            epoch=self._leases.epoch,
            member=self._leases.member,
        )
        if facts is None:
            return base
        return base.model_copy(
            update={
                "writable": not facts.in_recovery and not facts.read_only,
                "in_recovery": facts.in_recovery,
                "system_identifier": facts.system_identifier,
                "timeline": facts.timeline,
                "write_lsn": facts.write_lsn,
                "receive_lsn": facts.receive_lsn,
                "replay_lsn": facts.replay_lsn,
                "upstream": base.upstream if facts.in_recovery else None,
                "streaming": facts.streaming,
                "last_message_age_s": facts.last_message_age_s,
                "standbys": facts.standbys,
            }
        )

    def _event(self, *, database_up: bool, writable: bool) -> NodeEvent:
        node = self._node
        in_hand = node is not None and (node.handed_over.there or node.postgres.restarting)
        return NodeEvent(
            node_id=self._config.node_id,
            database_up=database_up,
            writable=writable,
            epoch=self._leases.epoch,
            in_hand=in_hand and not database_up,
        )
