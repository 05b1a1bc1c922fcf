"""The order that brings a node back: to whom, and under which epoch it is obeyed."""

from __future__ import annotations

import pytest

from qnwis.continuity.orders import RejoinOrder
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.rejoining import rejoin_order

from .scenes import SPEC_CLUSTER, evidence, primary, standby


@pytest.mark.parametrize(("promised", "epoch"), [(1, 4), (4, 4), (6, 7)])
def test_the_order_is_obeyed_whatever_the_node_has_promised(promised: int, epoch: int) -> None:
    """Of the last, an old primary asked for promises in vain; it promised that epoch to nobody else."""
    seen = evidence(SPEC_CLUSTER, primary("node-2", epoch=4), standby("node-3", epoch=promised))
    order = rejoin_order(SPEC_CLUSTER, seen, "node-3", by="cli-1")
    assert isinstance(order, RejoinOrder)
    assert (order.upstream, order.epoch, order.run_id) == ("node-2", epoch, "cli-1")


def test_a_node_that_says_nothing_is_ordered_under_the_primarys_epoch() -> None:
    order = rejoin_order(
        SPEC_CLUSTER, evidence(SPEC_CLUSTER, primary("node-2", epoch=4)), "node-1", by="cli-1"
    )
    assert isinstance(order, RejoinOrder) and order.epoch == 4


@pytest.mark.parametrize(
    ("node_id", "writable", "rule"),
    [("node-2", True, "is_primary"), ("node-3", False, "no_primary_to_follow")],
)
def test_nobody_follows_itself_or_a_primary_that_takes_no_writes(
    node_id: str, writable: bool, rule: str
) -> None:
    seen = evidence(SPEC_CLUSTER, primary("node-2", epoch=4, writable=writable))
    refusal = rejoin_order(SPEC_CLUSTER, seen, node_id, by="cli-1")
    assert isinstance(refusal, Refusal) and refusal.rule == rule


@pytest.mark.parametrize(("promised", "ordered"), [(1, True), (4, True), (5, False)])
def test_what_acts_by_itself_leaves_a_node_alone_that_promised_an_epoch_to_a_run(
    promised: int, ordered: bool
) -> None:
    seen = evidence(SPEC_CLUSTER, primary("node-2", epoch=4), standby("node-3", epoch=promised))
    order = rejoin_order(SPEC_CLUSTER, seen, "node-3", by="reprotect-1", above_promises=False)
    assert isinstance(order, RejoinOrder) is ordered
    if isinstance(order, Refusal):
        assert order.rule == "promised_to_a_run" and order.values == {"promised": 5, "epoch": 4}
    else:
        assert order.epoch == 4, "a run that begins later supersedes it"
