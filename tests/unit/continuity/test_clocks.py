"""Vector clocks: their order, and what both have seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.clocks import Order, compare, merge, tick

clocks = st.dictionaries(st.sampled_from(["eu", "us", "ap"]), st.integers(1, 3))
MIRRORED = {Order.BEFORE: Order.AFTER, Order.AFTER: Order.BEFORE}


@pytest.mark.parametrize(
    ("one", "other", "order"),
    [
        ({}, {}, Order.EQUAL),
        ({"eu": 1}, {"eu": 1}, Order.EQUAL),
        ({}, {"eu": 1}, Order.BEFORE),
        ({"eu": 1}, {"eu": 1, "us": 1}, Order.BEFORE),
        ({"eu": 2, "us": 1}, {"eu": 1, "us": 1}, Order.AFTER),
        ({"eu": 1}, {"us": 1}, Order.CONCURRENT),
        ({"eu": 2, "us": 1}, {"eu": 1, "us": 2}, Order.CONCURRENT),
    ],
)
def test_how_two_clocks_stand(one: dict[str, int], other: dict[str, int], order: Order) -> None:
    assert compare(one, other) is order
    assert compare(other, one) is MIRRORED.get(order, order)


@given(clocks, clocks, clocks)
def test_what_was_seen_is_the_same_in_whatever_order_it_is_put_together(
    a: dict[str, int], b: dict[str, int], c: dict[str, int]
) -> None:
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, a) == a


@given(clocks, clocks)
def test_the_merged_clock_has_seen_both_and_no_more(a: dict[str, int], b: dict[str, int]) -> None:
    both = merge(a, b)
    assert compare(a, both) in (Order.BEFORE, Order.EQUAL) and compare(b, both) in (Order.BEFORE, Order.EQUAL)
    assert all(count in (a.get(region), b.get(region)) for region, count in both.items())


@given(clocks, st.sampled_from(["eu", "us"]))
def test_a_further_write_is_after_what_it_was_written_on(clock: dict[str, int], region: str) -> None:
    assert compare(tick(clock, region), clock) is Order.AFTER
