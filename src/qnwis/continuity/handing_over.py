"""A switchover as the agents see it: which orders they obey, and where a promotion may begin."""

from __future__ import annotations

from .orders import DemotionToken, HandOverOrder, PrepareOrder, QuiesceOrder, ResumeOrder
from .refusal import Refusal

PresentOrder = QuiesceOrder | PrepareOrder | HandOverOrder | ResumeOrder
"""Orders of the present epoch: they bring no epoch, so nobody's lease ends by them."""


def epoch_refusal(node_id: str, order: PresentOrder, *, obeyed: int, serves: int) -> Refusal | None:
    """Why an order is not of the present epoch, or None.

    `obeyed` is the highest epoch that the agent promised or granted, `serves` the one of its own database.
    Once a run was promised an epoch above, a primary is not stopped under its own any more; to let it serve
    again is always right.
    """
    wanted = {obeyed, serves} if isinstance(order, QuiesceOrder | HandOverOrder) else {obeyed}
    if wanted == {order.epoch}:
        return None
    return Refusal(
        rule="epoch_not_present",
        message=f"{node_id} refuses to {order.kind} under epoch {order.epoch}: it has obeyed epoch {obeyed}"
        f" and serves under {serves}",
        values={"order_epoch": order.epoch, "epoch": obeyed, "serves": serves},
        remedy="Read the node's state again: another run may be at work, or this node is not the primary",
    )


def token_refusal(
    node_id: str, token: DemotionToken, *, timeline: int, receive_lsn: int | None, replay_lsn: int | None
) -> Refusal | None:
    """Why a standby does not continue where the old primary ended, or None.

    It has replayed the old primary's last record only if it stands after the beginning of that.
    """
    at = [receive_lsn, replay_lsn]
    if timeline == token.timeline and all(lsn is not None and lsn > token.lsn for lsn in at):
        return None
    return Refusal(
        rule="token_not_reached",
        message=f"{node_id} is on timeline {timeline}, received up to {receive_lsn} and replayed up to"
        f" {replay_lsn}; the old primary ended on timeline {token.timeline} with the record at {token.lsn}",
        values={
            "timeline": timeline,
            "receive_lsn": receive_lsn,
            "replay_lsn": replay_lsn,
            "token_timeline": token.timeline,
            "token_lsn": token.lsn,
        },
        remedy="Promote a standby that has all of it, or let the old primary resume",
    )
