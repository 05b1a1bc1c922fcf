"""How an evacuation as a whole ended, and the way back: from how each cluster's own run ended."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from qnwis.continuity.region_plan import ClusterMove, Direction, Move, RegionPlan
from qnwis.continuity.region_run import outcome_of, way_back
from qnwis.continuity.regions import Moved
from qnwis.continuity.run import RunOutcome
from qnwis.continuity.shifting import Steering, WeightMove
from tests.unit.continuity.scenes import spec_plan

DONE, INCOMPLETE, UNDONE = RunOutcome.COMPLETED, RunOutcome.INCOMPLETE, RunOutcome.ROLLED_BACK
UNTOUCHED, REFUSED = RunOutcome.UNTOUCHED, RunOutcome.REFUSED


def plan(*names: str, weights: Sequence[str] = (), direction: Direction = Direction.OUT) -> RegionPlan:
    moves = tuple(
        ClusterMove(cluster_id=name, how=Move.FAILOVER, plan=spec_plan(), predicted_loss_bytes=None)
        for name in names
    )
    shifts = tuple(
        WeightMove(
            cluster_id=name,
            steering=Steering.WEIGHTED,
            before={"r": 50, "s": 50},
            steps=({"r": 0, "s": 100},),
        )
        for name in weights
    )
    return RegionPlan(
        region="r", direction=direction, reason="flood", waves=(moves,), weights=shifts, stop_after=1
    )


def ended(run_id: str | None = "run", **outcomes: RunOutcome | None) -> dict[str, Moved]:
    return {
        name: Moved(cluster_id=name, outcome=outcome, run_id=run_id, reason=f"why of {name}")
        for name, outcome in outcomes.items()
    }


def outcome(moved: dict[str, Moved], *, weights: Sequence[str] = ()) -> RunOutcome:
    names = [name for name in moved if name not in weights]
    return outcome_of(plan(*names, weights=weights), moved, {}, None)[0]


def test_what_moved_and_was_not_verified_has_moved() -> None:
    moved = ended(a=INCOMPLETE)
    found, why = outcome_of(plan("a"), moved, {}, None)
    assert found is INCOMPLETE
    assert why == "1 of 1 clusters left r; a incomplete: why of a"
    assert way_back(plan("a"), moved) == (
        "qnwis-continuity rejoin node-1 --cluster <cluster.yaml of a>",
        "qnwis-continuity region failback r --reason …",
    )


def test_all_that_is_not_well_is_told() -> None:
    moved = ended(a=DONE, b=INCOMPLETE, c=UNDONE)
    found, why = outcome_of(plan("a", "b", "c", "d"), moved, {"a": "node-1 serves"}, "aborted by bob")
    assert found is INCOMPLETE
    assert why == (
        "2 of 4 clusters left r; not c, d; b incomplete: why of b; a: node-1 serves; aborted by bob"
    )
    assert len(way_back(plan("a", "b", "c", "d"), moved)) == 3


def test_all_moved_and_verified_is_done() -> None:
    assert outcome_of(plan("a", "b"), ended(a=DONE, b=DONE), {}, None) == (
        DONE,
        "2 of 2 clusters left r, verified",
    )
    assert way_back(plan("a", direction=Direction.BACK), ended(a=DONE)) == ()


@pytest.mark.parametrize(
    ("moved", "found"),
    [
        ({}, UNTOUCHED),
        (ended(a=UNTOUCHED), UNTOUCHED),
        (ended(a=REFUSED), REFUSED),
        (ended(a=REFUSED, b=UNTOUCHED), REFUSED),
        (ended(None, a=None), UNTOUCHED),
        ({**ended(None, a=None), **ended(b=REFUSED)}, REFUSED),
        (ended(a=UNDONE, b=REFUSED), UNDONE),
    ],
)
def test_only_what_was_begun_was_undone(moved: dict[str, Moved], found: RunOutcome) -> None:
    assert outcome(moved) is found
    assert way_back(plan(*moved), moved) == ()


def test_a_cluster_whose_run_was_ended_from_outside_may_have_left() -> None:
    """What the run did is not known, and others may finish it forward."""
    moved = ended(a=None)
    assert outcome_of(plan("a", "b"), moved, {"a": "nobody serves"}, None) == (
        INCOMPLETE,
        "0 of 2 clusters left r; not b; a not known: why of a; a: nobody serves",
    )
    assert len(way_back(plan("a", "b"), moved)) == 2


@pytest.mark.parametrize(
    ("moved", "stayed", "found"),
    [(True, False, INCOMPLETE), (False, True, UNDONE), (False, False, None)],
)
def test_what_is_found_afterwards_is_how_it_ended(
    moved: bool, stayed: bool, found: RunOutcome | None
) -> None:
    assert ended(a=None)["a"].found(moved=moved, stayed=stayed).outcome is found


def test_of_weights_without_an_outcome_it_is_not_known_whether_they_were_shifted() -> None:
    assert outcome(ended(None, w=None), weights=["w"]) is INCOMPLETE
    assert way_back(plan(weights=["w"]), ended(None, w=None)) != ()
    assert outcome(ended(None, w=REFUSED), weights=["w"]) is REFUSED
    found, _ = outcome_of(plan(weights=["w"]), ended(None, w=INCOMPLETE), {}, None)
    assert found is INCOMPLETE
    assert way_back(plan(weights=["w"]), ended(None, w=INCOMPLETE)) != ()
