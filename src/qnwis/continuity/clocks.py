"""Vector clocks: of two writes to a row, whether one was made on top of the other, or neither knew of it.

A clock counts, for each region, the writes of that region that this version of the row has seen. A region
without an entry has written nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from .model import Identifier

Clock = Mapping[Identifier, Annotated[int, Field(ge=1)]]
"""By region: how many of its writes to this row were seen."""


class Order(StrEnum):
    """How the first of two clocks stands to the second."""

    EQUAL = "equal"
    BEFORE = "before"  # the second has seen all of the first, and more
    AFTER = "after"
    CONCURRENT = "concurrent"  # each has seen a write that the other has not


def compare(one: Clock, other: Clock) -> Order:
    behind = any(count > one.get(region, 0) for region, count in other.items())
    ahead = any(count > other.get(region, 0) for region, count in one.items())
    if behind and ahead:
        return Order.CONCURRENT
    if behind:
        return Order.BEFORE
    return Order.AFTER if ahead else Order.EQUAL


def merge(one: Clock, other: Clock) -> dict[str, int]:
    """The clock that has seen what either has."""
    return {region: max(one.get(region, 0), other.get(region, 0)) for region in sorted({*one, *other})}


def tick(clock: Clock, region: str) -> dict[str, int]:
    """The clock of a further write of this region."""
    return {**clock, region: clock.get(region, 0) + 1}
