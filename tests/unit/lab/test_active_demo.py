"""When the active/active part of the demonstration counts as verified."""

from __future__ import annotations

from typing import Any

import pytest

from qnwis.continuity.conflicts import Conflict, Version, Why
from qnwis.lab.acks import Ack, AckLog, analyse
from qnwis.lab.active_demo import CONTESTED, ActiveReport, NotYetElsewhere
from tests.unit.continuity.scenes import NOON

ACKS = AckLog((Ack(1.0, "0", 1, "node-1"), Ack(2.0, "0", 2, "node-2")), (), (), 3.0)
WELL = {("0", 1), ("0", 2)}


def version(region: str, second: int) -> Version:
    return Version(region=region, clock={region: 1}, written_at=NOON.replace(second=second), row={})


CONFLICT = Conflict(
    table="public.items",
    key={"id": CONTESTED},
    winner=version("region-2", 2),
    loser=version("region-1", 1),
    why=Why.LATER,
    seen_in=("region-1", "region-2"),
    found_at=NOON,
)
GOOD = ActiveReport(
    cluster_id="shop",
    writes=analyse(ACKS, WELL),
    not_yet=NotYetElsewhere(unsent_bytes=100, allowed_bytes=100, writes=1),
    conflicts=(CONFLICT,),
    differing_rows=0,
    timelines_before={"region-1": 1, "region-2": 1},
    timelines_after={"region-1": 1, "region-2": 1},
)


def test_what_was_only_late_is_no_loss() -> None:
    assert GOOD.verified and not GOOD.promoted


@pytest.mark.parametrize(
    "changes",
    [
        {"writes": analyse(ACKS, {("0", 1)})},
        {"not_yet": NotYetElsewhere(unsent_bytes=101, allowed_bytes=100, writes=1)},
        {"conflicts": ()},
        {"differing_rows": 1},
        {"timelines_after": {"region-1": 1, "region-2": 2}},
    ],
)
def test_a_loss_a_lag_a_difference_a_promotion_or_a_conflict_that_nobody_found_is_not_verified(
    changes: dict[str, Any],
) -> None:
    assert not GOOD.model_copy(update=changes).verified
