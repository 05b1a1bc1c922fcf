"""The keeper: has the database running whenever it may run, and knows why when it may not."""

from __future__ import annotations

import asyncio
from typing import Any

from qnwis.continuity.refusal import Refusal
from qnwis.logs import log

from .config import AgentConfig
from .effects import Node
from .guard import now
from .journal import Journal
from .postgres import Postgres
from .watched import ProcessesRemainError, kill_processes_in

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
"""Between two attempts; each pause is twice the one before."""
ENFORCE_EVERY_S = 0.1
STEADY_AFTER_S = 10.0
"""A database that ran for this long had a good start: pauses begin anew, and one more restart is worth it."""
STARTING_S = 10.0
"""For so long a start is reported as one; how much longer it may take is for whoever watches to judge."""
LOOK_S = 0.02


class Keeper:
    """Starts the database when the agent starts; restarts it or lets it down for a while when it ended by
    itself. Never while an order is carried out."""

    def __init__(self, config: AgentConfig, node: Node, journal: Journal, order_lock: asyncio.Lock) -> None:
        self._config = config
        self._node = node
        self._postgres = node.postgres
        self._leases = node.leases
        self._journal = journal
        self._order_lock = order_lock
        self._restart_within_s: float | None = None
        """How long the present start may take, where it is a restart under the lease; None for others."""
        self._restarted_at = float("-inf")
        node.postgres.on_end = self._on_end

    async def run(self) -> None:
        """Runs until cancelled."""
        pause_s = FIRST_PAUSE_S
        while True:
            least_pause_s = 0.0
            async with self._order_lock:
                if self._postgres.ended_by_itself:
                    least_pause_s = await self._after_end()
                elif not self._postgres.running:
                    await self._try_start()
                    least_pause_s = self._node.handed_over.left_s
            began = now()
            if self._postgres.running:
                await self._until_ended()
            else:
                await self._wait_started(max(pause_s, least_pause_s))
            pause_s = FIRST_PAUSE_S if now() - began > STEADY_AFTER_S else min(2 * pause_s, LONGEST_PAUSE_S)

    async def enforce(self) -> None:
        """End a writable database whose lease is over, as its guard does too. Runs until cancelled."""
        while True:
            left_s = (self._leases.serves_until or 0.0) - now()
            await asyncio.sleep(left_s if 0 < left_s < ENFORCE_EVERY_S else ENFORCE_EVERY_S)
            if self._postgres.running and not self._postgres.standby and not self._leases.held:
                log("lease_over")
                await kill_processes_in(self._postgres.data_dir)
                await self._postgres.wait_ended()

    def _on_end(self) -> None:
        """The database ended by itself: decide at once, so that whoever looks now hears it."""
        again = now() - self._restarted_at < STEADY_AFTER_S
        may_run = self._postgres.standby or self._leases.held
        self._postgres.restarting = self._config.local_restart_s > 0 and may_run and not again
        log("database_ended", restarting=self._postgres.restarting)

    async def _after_end(self) -> float:
        """Restart it, or release its lease and let it down. For how long it is let down, 0 if it is not."""
        postgres = self._postgres
        if postgres.restarting:
            self._restarted_at = now()
            await self._try_start()
            if postgres.running:
                self._restart_within_s = self._config.local_restart_s
                return 0.0
        try:
            await kill_processes_in(postgres.data_dir)
        except ProcessesRemainError as error:
            self._keep_down(_start_failed(postgres, error))
            return 0.0
        try:
            if not postgres.standby and not self._node.give_up():
                return 0.0
        except OSError as error:
            # Tried again. Nobody is told of a release that is not on disk: one who forgot it would serve
            # under that epoch again. Nothing is renewed, so whoever takes over waits for the lease's end.
            self._leave_down(_state_not_written(self._config, error))
            return 0.0
        postgres.ended_by_itself = False
        self._leave_down(_let_down(self._config.node_id, self._config.return_after_s))
        return self._config.return_after_s

    def _leave_down(self, refusal: Refusal) -> None:
        """Say that it ended, to whoever waits to hear it."""
        postgres, said = self._postgres, self._postgres.not_started
        self._keep_down(refusal)
        postgres.let_down = True
        if refusal != said:
            postgres.on_change()

    async def _until_ended(self) -> None:
        if self._postgres.restarting:
            await self._until_up()
        self._restart_within_s = None
        if self._postgres.standby:
            self._node.guarding.be_on_call()
        await self._postgres.wait_ended()

    async def _until_up(self) -> None:
        """Wait until the database answers, or has taken too long; a restart that did is ended."""
        within_s = self._restart_within_s or STARTING_S
        while self._postgres.running and now() - self._postgres.started_at < within_s:
            if await self._node.facts() is not None:
                break
            await asyncio.sleep(LOOK_S)
        else:
            if self._restart_within_s is not None:
                await self._end_restart(self._postgres.started_at)
        if not self._postgres.ended_by_itself:  # else it is said what becomes of it
            self._postgres.restarting = False

    async def _end_restart(self, started_at: float) -> None:
        async with self._order_lock:
            if self._postgres.running and self._postgres.started_at == started_at:
                log("restart_too_slow", within_s=self._restart_within_s)
                await kill_processes_in(self._postgres.data_dir)
                await self._postgres.wait_ended()

    async def _wait_started(self, within_s: float) -> None:
        """Wait for somebody else to start it, an order, or to say that it need not be left down any more."""
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._postgres.started.wait())]
        limit_s: float | None = within_s
        if self._postgres.refuse_foreign() is not None:
            waits.append(asyncio.ensure_future(self._postgres.foreign_ended()))
            limit_s = None
        if self._node.handed_over.there:
            waits.append(asyncio.ensure_future(self._node.handed_over.ended.wait()))
        try:
            await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _try_start(self) -> None:
        if self._postgres.running:
            return
        try:
            refusal = await self._refuse_start()
        except OSError as error:
            refusal = _state_not_written(self._config, error)
        if refusal is None:
            self._postgres.restarting = True
            try:
                await self._postgres.start()
                log("database_started", standby=self._postgres.standby)
                return
            except (OSError, ProcessesRemainError) as error:
                refusal = _start_failed(self._postgres, error)
        self._postgres.restarting = False
        self._keep_down(refusal)

    def _keep_down(self, refusal: Refusal) -> None:
        if refusal != self._postgres.not_started:
            log("database_not_started", rule=refusal.rule, message=refusal.message, remedy=refusal.remedy)
        self._postgres.not_started = refusal

    async def _refuse_start(self) -> Refusal | None:
        node_id, data_dir = self._config.node_id, str(self._postgres.data_dir)
        if (foreign := self._postgres.refuse_foreign()) is not None:
            return foreign
        unfinished = self._journal.unfinished_rejoin()
        if unfinished is not None:
            return Refusal(
                rule="rejoin_unfinished",
                message=f"{node_id}: rejoin {unfinished.effect_id} to {unfinished.upstream} did not finish,"
                " so the data directory may be half rewound",
                values={"effect_id": unfinished.effect_id, "upstream": unfinished.upstream},
                remedy="Order the rejoin again",
            )
        if not self._postgres.initialised:
            return Refusal(
                rule="no_data",
                message=f"{node_id}: {data_dir} holds no PostgreSQL data directory",
                values={"data_dir": data_dir},
                remedy="Order a rejoin to the primary, or create it with initdb",
            )
        if not self._postgres.standby:
            left_s = self._node.handed_over.left_s
            return _handed_over(node_id, left_s) if left_s > 0 else await self._leases.take_up()
        if self._node.receiving.upstream is None:  # one that is held is started, and receives nothing yet
            return Refusal(
                rule="no_upstream",
                message=f"{node_id} is kept as a standby, and its primary_conninfo names no peer",
                values={"data_dir": data_dir},
                remedy="Order a rejoin or a follow",
            )
        return None


def _let_down(node_id: str, for_s: float) -> Refusal:
    return Refusal(
        rule="database_ended",
        message=f"The database of {node_id} ended by itself and its lease is released; for {for_s:g} s it is"
        " left down, so that a run may take over",
        values={"return_after_s": for_s},
        remedy="Wait, or order a failover; see postgres.log for why it ended",
    )


def _handed_over(node_id: str, left_s: float) -> Refusal:
    return Refusal(
        rule="handed_over",
        message=f"{node_id} handed its lease over; for another {left_s:.1f} s it is left down, so that"
        " the run may take over",
        values={"left_s": left_s},
        remedy="Wait, or order it to resume",
    )


def _state_not_written(config: AgentConfig, error: OSError) -> Refusal:
    reason = error.strerror or str(error)
    return Refusal(
        rule="state_not_written",
        message=f"{config.node_id}: what its agent must not forget cannot be written to {config.state_dir}"
        f" ({reason}), so the database is kept down",
        values={"state_dir": str(config.state_dir), "reason": reason},
        remedy=f"Make room on the disk of {config.state_dir}; it is tried again every few seconds",
    )


def _start_failed(postgres: Postgres, error: Exception) -> Refusal:
    return Refusal(
        rule="start_failed",
        message=f"PostgreSQL could not be started: {error}",
        values={"pg_bin": str(postgres.database.pg_bin), "data_dir": str(postgres.data_dir)},
        remedy="Check pg_bin, data_dir and os_user in the agent's configuration",
    )
