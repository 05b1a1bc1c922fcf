"""A promotion that was begun, and whose database does not come back: given up, once nothing can come of it.

While its database may come back, what becomes of it is not known. Without an end to that the run would ask
for ever, and the agent renew the lease for a database that is gone.
"""

from __future__ import annotations

from qnwis.continuity.orders import PromoteOrder
from qnwis.continuity.refusal import Refusal

from .config import AgentConfig
from .effects import Decision, Node
from .guard import now
from .journal import Journal
from .processes import processes_in

GIVEN_UP_AFTER_S = 10.0
"""From the first attempt that found no database on, beyond `return_after_s`, for which the keeper may leave
it down: by then that has started it again, and more than once, if it can be started."""


class LostPromotion:
    """Whether a begun promotion came to nothing, and cannot come to anything any more.

    The data directory tells: PostgreSQL removes standby.signal, for certain on disk, before it accepts a
    write or ends its recovery on the new timeline. So one that has it, and was not given it anew by an order
    of this epoch or a later one, never was a primary's under it, and starts as nothing but a standby's; a
    request to promote does not outlive the postmaster. The lease is released before that is answered: under
    this epoch nothing is served again. And every peer is told that nothing was: whoever was primary before
    may come back, or be failed over from.
    """

    def __init__(self, config: AgentConfig, node: Node, journal: Journal) -> None:
        self._after_s = config.return_after_s + GIVEN_UP_AFTER_S
        self._node = node
        self._journal = journal
        self._down: tuple[str, float] | None = None
        """The effect whose database was found down at each attempt, and since when, in the guard's clock."""

    async def refusal(self, order: PromoteOrder, decision: Decision) -> Refusal | None:
        """What to answer where it is lost, with the lease released and peers told; None while it is not.
        `decision` is what this attempt would do. To be asked under the lock of orders, so that nothing is
        started meanwhile.

        Raises OSError where the release cannot be written down; then it is not lost yet.
        """
        node = self._node
        down = isinstance(decision, Refusal) and decision.rule == "database_down"
        if not down:
            self._down = None
        if not node.postgres.standby or self._journal.made_standby_under(order.epoch):
            return None
        if node.leases.released_epoch < order.epoch:
            if isinstance(decision, Refusal) and node.leases.sought < order.epoch:
                return decision  # it ended before it asked for the lease: as if it had not begun
            if not down or not self._is_final(order):
                return None
            await node.give_up_for_good()
            if node.leases.released_epoch < order.epoch:
                return None
        # At every attempt: it may have been released for another reason, or the agent have ended since.
        node.leases.never_primary(order.epoch)
        await node.leases.told()
        return Refusal(
            rule="promotion_lost",
            message=f"{node.node_id} began its promotion under epoch {order.epoch}, and its database ended"
            " before it was a primary; it has released the lease of that epoch, and stays a standby",
            values={"epoch": order.epoch, "down_s": self._after_s},
            remedy="Let the old primary take its lease up again, or promote another standby under a new"
            " epoch; see postgres.log for why it ended",
        )

    def _is_final(self, order: PromoteOrder) -> bool:
        """Whether no database has been found for long enough, and no process of it is left now."""
        if self._down is None or self._down[0] != order.effect_id:
            self._down = (order.effect_id, now())
        if now() - self._down[1] < self._after_s:
            return False
        return not self._node.postgres.running and not processes_in(self._node.postgres.data_dir)
