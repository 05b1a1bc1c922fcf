"""Receiving: a standby that promised an epoch to a run receives no more, until it is told whom to follow.

A position that it says afterwards stays true, and nothing that the former primary may still write is
confirmed here: a machine that froze whole and thaws in the middle of a run gets no acknowledgement any more.
A run that gives up lets it go on, and so does the end of the reservation. While an order is carried out, only
that says whom to follow; but a promise given meanwhile holds, whatever the order meant.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from qnwis.continuity.membership import Peer
from qnwis.continuity.refusal import Refusal
from qnwis.logs import log

from .database import Connection, DatabaseDownError, Facts
from .guard import now
from .postgres import Postgres
from .two_copies import TwoCopies

HELD_UPSTREAM = "held-upstream"
STOPPED_WITHIN_S = 0.5
KILLED_AFTER_S = 0.25
"""A receiver that hangs does not stop when it is told to. Without it the standby recovers anew, and says no
position meanwhile."""
POLL_S = 0.003
AWAY_S = 60.0
"""A standby that has received nothing for so long tries seldom. Each attempt that fails is some lines of its
log: in a day without a primary, hundreds of megabytes on the disk of the agent's own records."""
AGAIN_S = 1.0
"""After a moment at which the disk took nothing: a standby is let go once it does."""

_RECEIVERS = "SELECT array_agg(pid) AS receivers FROM pg_stat_wal_receiver"


class Receiving:
    """Whether the local standby receives, and from whom it did when it was held."""

    def __init__(self, postgres: Postgres, connection: Connection, state_dir: Path, reserve_s: float) -> None:
        """A standby that an earlier agent held is held on, for the length of a reservation. Raises StateError
        for a record of that which cannot be read."""
        self._postgres = postgres
        self._connection = connection
        self._held_from = TwoCopies(state_dir / HELD_UPSTREAM)
        self._reserve_s = reserve_s
        self._timer: asyncio.TimerHandle | None = None
        self._ordered = False
        self._held_meanwhile = False
        self._nothing_since: float | None = None
        if self._held:
            self._let_go_later()

    @property
    def upstream(self) -> Peer | None:
        """Whom the standby follows, or will again."""
        if self._postgres.upstream is None and self._postgres.standby and self._held:
            return self._former
        return self._postgres.upstream

    @property
    def _held(self) -> bool:
        return self._held_from.text != ""

    @property
    def _former(self) -> Peer | None:
        return self._postgres.peers.of(self._held_from.text or "")

    @property
    def held_meanwhile(self) -> bool:
        """Whether a promise held it since the present order began."""
        return self._ordered and self._held_meanwhile

    @contextlib.contextmanager
    def ordered(self) -> Iterator[None]:
        """While an order is carried out."""
        self._ordered, self._held_meanwhile = True, False
        self._stop_timer()
        try:
            yield
        finally:
            self._ordered = False
            if self._held:
                self._let_go_later()

    def receive_from(self, upstream: Peer) -> None:
        """As an order says, from the next reload or start on; held by a promise since, once it is let go."""
        self._try_often()
        if self.held_meanwhile:
            self._held_from.write(upstream.node_id)
        self._postgres.set_upstream(None if self.held_meanwhile else upstream)

    async def hold(self) -> Refusal | None:
        """Stop to receive; returns when that is certain. Why it is not, for a database that answers."""
        self._held_meanwhile = True
        self._try_often()
        postgres = self._postgres
        if (foreign := postgres.refuse_foreign()) is not None:
            return foreign  # it goes on receiving, and confirms what the former primary writes
        if not postgres.standby:
            return None
        if (upstream := postgres.upstream) is not None:
            self._held_from.write(upstream.node_id)
            postgres.set_upstream(None)
            postgres.reload()
            log("receiver_held", upstream=upstream.node_id)
        if self._held:
            self._let_go_later()
        return await self._until_stopped()

    def seen(self, facts: Facts | None) -> None:
        """Have it try seldom once it has received nothing for long, and often again as soon as it does."""
        if facts is None:
            return  # nothing is known, and nothing changes
        if not facts.in_recovery or facts.streaming:
            self._nothing_since = None
        elif self._nothing_since is None:
            self._nothing_since = now()
        seldom = self._nothing_since is not None and now() - self._nothing_since > AWAY_S
        if seldom == self._postgres.tries_seldom:
            return
        self._postgres.tries_seldom = seldom
        with contextlib.suppress(OSError):  # it is written with the next settings
            if self._postgres.set_settings({}):
                self._postgres.reload()

    def _try_often(self) -> None:
        """From the next settings on: whoever is told to receive, or promised a run, does so at once."""
        self._nothing_since, self._postgres.tries_seldom = None, False

    def go_on(self) -> None:
        """Receive again from whom it did, unless it was told otherwise since."""
        if self._ordered or not self._held:
            return
        # Not the present one: a node that died while it caught up may still have another.
        upstream = self._former if self._postgres.standby else None
        if upstream is not None and self._postgres.set_upstream(upstream):
            self._postgres.reload()
            log("receiver_goes_on", upstream=upstream.node_id)
        self.forget()

    def forget(self) -> None:
        """An order said what the database does from now on, unless a promise holds it since."""
        if self.held_meanwhile:
            return
        self._stop_timer()
        self._held_from.clear()

    def _let_go_later(self) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(self._reserve_s, self._go_on_by_itself)

    def _go_on_by_itself(self) -> None:
        try:
            self.go_on()
        except OSError as error:
            log("receiver_still_held", reason=str(error), again_in_s=AGAIN_S)
            self._timer = asyncio.get_running_loop().call_later(AGAIN_S, self._go_on_by_itself)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _kill(self, receivers: Sequence[int]) -> None:
        for pid in receivers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                log("receiver_killed", pid=pid)

    async def _until_stopped(self) -> Refusal | None:
        clock = asyncio.get_running_loop().time
        began, killed = clock(), False
        deadline = began + STOPPED_WITHIN_S
        while self._postgres.running and clock() < deadline:
            try:
                row = await self._connection.row(_RECEIVERS, timeout_s=max(0.01, deadline - clock()))
            except DatabaseDownError:
                return None  # it says no position either, so nothing is counted on
            if not row["receivers"]:
                return None
            if not killed and clock() - began > KILLED_AFTER_S:
                killed = True
                self._kill(row["receivers"])
            await asyncio.sleep(POLL_S)
        if not self._postgres.running:
            return None
        return Refusal(
            rule="receiver_not_stopped",
            message=f"The database still receives {STOPPED_WITHIN_S:g} s after it was told to stop",
            values={"within_s": STOPPED_WITHIN_S},
            remedy="Ask again; see postgres.log if it stays so.",
        )
