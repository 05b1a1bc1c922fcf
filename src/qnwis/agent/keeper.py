"""The keeper: has the database running whenever it may run, and knows why when it may not."""

from __future__ import annotations

import asyncio

from qnwis.continuity.refusal import Refusal

from .config import AgentConfig
from .guard import now
from .journal import Journal
from .lease import Leases
from .logs import log
from .postgres import Postgres
from .processes import ProcessesRemainError, kill_processes_in

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
"""Between two attempts; each pause is twice the one before."""
ENFORCE_EVERY_S = 0.1
STEADY_AFTER_S = 10.0
"""A database that ran for this long had a good start: the pauses begin anew."""


class Keeper:
    """Starts the database when the agent starts and after each crash; never while an order is carried out."""

    def __init__(
        self,
        config: AgentConfig,
        postgres: Postgres,
        leases: Leases,
        journal: Journal,
        order_lock: asyncio.Lock,
    ) -> None:
        self._config = config
        self._postgres = postgres
        self._leases = leases
        self._journal = journal
        self._order_lock = order_lock

    async def run(self) -> None:
        """Runs until cancelled."""
        clock = asyncio.get_running_loop().time
        pause_s = FIRST_PAUSE_S
        while True:
            began = clock()
            if self._postgres.running:
                await self._postgres.wait_ended()
                log("database_ended")
            if clock() - began > STEADY_AFTER_S:
                pause_s = FIRST_PAUSE_S
            async with self._order_lock:
                if not self._postgres.running:
                    await self._try_start()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def enforce(self) -> None:
        """End a writable database whose lease is over, as its guard does too. Runs until cancelled."""
        while True:
            left_s = (self._leases.serves_until or 0.0) - now()
            await asyncio.sleep(left_s if 0 < left_s < ENFORCE_EVERY_S else ENFORCE_EVERY_S)
            if self._postgres.running and not self._postgres.standby and not self._leases.held:
                log("lease_over")
                await kill_processes_in(self._postgres.data_dir)
                await self._postgres.wait_ended()

    async def _try_start(self) -> None:
        refusal = await self._refuse_start()
        if refusal is None:
            try:
                await self._postgres.start()
                log("database_started", standby=self._postgres.standby)
                return
            except (OSError, ProcessesRemainError) as error:
                refusal = _start_failed(self._postgres, error)
        if refusal != self._postgres.not_started:
            log("database_not_started", rule=refusal.rule, message=refusal.message, remedy=refusal.remedy)
        self._postgres.not_started = refusal

    async def _refuse_start(self) -> Refusal | None:
        node_id, data_dir = self._config.node_id, str(self._postgres.data_dir)
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
            return await self._leases.take_up()
        if self._postgres.upstream is None:
            return Refusal(
                rule="no_upstream",
                message=f"{node_id} is kept as a standby, and its primary_conninfo names no peer",
                values={"data_dir": data_dir},
                remedy="Order a rejoin or a follow",
            )
        return None


def _start_failed(postgres: Postgres, error: Exception) -> Refusal:
    return Refusal(
        rule="start_failed",
        message=f"PostgreSQL could not be started: {error}",
        values={"pg_bin": str(postgres.database.pg_bin), "data_dir": str(postgres.data_dir)},
        remedy="Check pg_bin, data_dir and os_user in the agent's configuration",
    )
