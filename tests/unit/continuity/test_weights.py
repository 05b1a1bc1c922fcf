"""Weights of an active/active cluster: they sum to all traffic, and no region gets more than it can take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.refusal import Refusal
from qnwis.continuity.weights import (
    TOTAL,
    Share,
    StepCheck,
    return_steps,
    step_refusal,
    without,
)


def shares(**of: tuple[int, int]) -> list[Share]:
    return [Share(region=name, weight=weight, capacity=capacity) for name, (weight, capacity) in of.items()]


@st.composite
def valid_shares(draw: st.DrawFn) -> list[Share]:
    cuts = sorted(draw(st.lists(st.integers(0, TOTAL), min_size=1, max_size=4)))
    weights = [b - a for a, b in zip([0, *cuts], [*cuts, TOTAL], strict=True)]
    return [
        Share(region=f"r{n}", weight=weight, capacity=weight + draw(st.integers(0, 100)))
        for n, weight in enumerate(weights)
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (shares(eu=(50, 100), us=(50, 100)), {"eu": 0, "us": 100}),
        (shares(eu=(40, 100), us=(40, 100), ap=(20, 100)), {"eu": 0, "us": 67, "ap": 33}),
        # ap is full after 5 percent: us takes the rest.
        (shares(eu=(40, 100), us=(40, 100), ap=(20, 25)), {"eu": 0, "us": 75, "ap": 25}),
        # A region that took nothing gets something only where the others are full.
        (shares(eu=(40, 100), us=(60, 80), ap=(0, 100)), {"eu": 0, "us": 80, "ap": 20}),
    ],
)
def test_the_lost_regions_weight_goes_to_the_others_by_theirs(
    before: list[Share], after: dict[str, int]
) -> None:
    assert without(before, "eu") == after


def test_without_room_for_it_nothing_is_moved_and_the_numbers_are_named() -> None:
    found = without(shares(eu=(50, 100), us=(30, 60), ap=(20, 30)), "eu")
    assert isinstance(found, Refusal) and found.rule == "not_enough_capacity"
    assert (found.values["weight"], found.values["room"]) == (50, 40)
    assert "us takes 30 of 60, ap takes 20 of 30" in found.message


@given(valid_shares(), st.data())
def test_the_weights_sum_to_all_traffic_and_no_region_gets_more_than_it_can_take(
    before: list[Share], data: st.DataObject
) -> None:
    lost = data.draw(st.sampled_from(before)).region
    capacity = {share.region: share.capacity for share in before}
    for after in (without(before, lost), return_steps(before, lost)):
        if isinstance(after, Refusal):
            assert after.rule == "not_enough_capacity"
            continue
        for weights in (after,) if isinstance(after, dict) else after:
            assert sum(weights.values()) == TOTAL
            assert all(0 <= weight <= capacity[region] for region, weight in weights.items())
            assert all(weights[s.region] >= s.weight for s in before if s.region != lost)


@given(valid_shares(), st.data())
def test_it_refuses_only_where_the_others_have_no_room(before: list[Share], data: st.DataObject) -> None:
    lost = data.draw(st.sampled_from(before))
    room = sum(share.capacity - share.weight for share in before if share is not lost)
    assert isinstance(without(before, lost.region), Refusal) is (room < lost.weight)


@given(valid_shares(), st.data())
def test_a_region_that_returns_gets_more_with_each_step_and_at_the_end_all_are_as_they_were(
    home: list[Share], data: st.DataObject
) -> None:
    region = data.draw(st.sampled_from(home)).region
    if isinstance(without(home, region), Refusal):
        return  # it can never have been away
    steps = return_steps(home, region)
    assert isinstance(steps, tuple)
    assert steps[-1] == {share.region: share.weight for share in home}
    taken = [step[region] for step in steps]
    assert taken == sorted(taken) and len(set(taken)) == len(taken)


def test_the_steps_are_parts_of_the_regions_own_weight() -> None:
    assert return_steps(shares(eu=(50, 100), us=(50, 100)), "eu") == (
        {"eu": 5, "us": 95},
        {"eu": 25, "us": 75},
        {"eu": 50, "us": 50},
    )


def test_a_region_that_the_cluster_does_not_have_is_refused() -> None:
    for found in (without(shares(eu=(100, 100)), "us"), return_steps(shares(eu=(100, 100)), "us")):
        assert isinstance(found, Refusal) and found.rule == "region_has_no_weight"


GOOD = StepCheck(writable=True, unsent_bytes=0, unreceived_bytes=10, differing_rows=0)


@pytest.mark.parametrize(
    ("found", "rule"),
    [
        (GOOD, None),
        (StepCheck(), "region_does_not_write"),
        (GOOD.model_copy(update={"writable": False}), "region_does_not_write"),
        (GOOD.model_copy(update={"unsent_bytes": None}), "region_lags"),
        (GOOD.model_copy(update={"unsent_bytes": 11}), "region_lags"),
        (GOOD.model_copy(update={"unreceived_bytes": 11}), "region_lags"),
        (GOOD.model_copy(update={"differing_rows": None}), "regions_differ"),
        (GOOD.model_copy(update={"differing_rows": 1}), "regions_differ"),
    ],
)
def test_between_steps_what_is_not_known_is_no(found: StepCheck, rule: str | None) -> None:
    refusal = step_refusal("eu", found, max_lag_bytes=10)
    assert (refusal and refusal.rule) == rule
