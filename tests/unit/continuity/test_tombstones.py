"""Which deletions of an active/active cluster are forgotten, and why not."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.tombstones import Tombstone, behind_refusal, forgettable
from tests.unit.continuity.scenes import NOON

REGIONS = ("eu", "us", "ap")


def tombstone(key: int, region: str = "eu", after_s: int = 0) -> Tombstone:
    at = NOON + timedelta(seconds=after_s)
    return Tombstone(relation="public.item", key=f'{{"id": {key}}}', region=region, written_at=at)


TOMBSTONES = st.frozensets(
    st.builds(tombstone, st.integers(1, 3), st.sampled_from(REGIONS), st.integers(0, 1))
)


@given(st.dictionaries(st.sampled_from(REGIONS), TOMBSTONES))
def test_only_what_every_region_has_in_the_same_version_is_forgotten(
    found: dict[str, frozenset[Tombstone]],
) -> None:
    forgotten = forgettable(found)
    every = {one for tombstones in found.values() for one in tombstones}
    assert forgotten == {one for one in every if all(one in there for there in found.values())}


def test_a_deletion_that_one_region_has_not_seen_or_made_anew_stays() -> None:
    assert forgettable({"eu": [tombstone(1)], "us": []}) == frozenset()
    assert forgettable({"eu": [tombstone(1)], "us": [tombstone(1, "us", 1)]}) == frozenset()
    assert forgettable({"eu": [tombstone(1)], "us": [tombstone(1)]}) == {tombstone(1)}


@pytest.mark.parametrize("left", [None, 1, 512])
def test_nothing_is_forgotten_while_any_way_between_two_regions_is_behind_or_not_there(
    left: int | None,
) -> None:
    caught_up: dict[str, dict[str, int | None]] = {
        source: {target: 0 for target in REGIONS if target != source} for source in REGIONS
    }
    assert behind_refusal(caught_up) is None
    for source, targets in caught_up.items():
        for target in targets:
            refusal = behind_refusal({**caught_up, source: {**targets, target: left}})
            assert refusal is not None and f"{source} → {target}: " in refusal.message


def test_the_refusal_names_the_way_and_how_far_it_is_behind() -> None:
    refusal = behind_refusal({"us": {"ap": 512, "eu": 0}, "eu": {"us": None}})
    assert refusal is not None and refusal.rule == "subscription_behind"
    assert "eu → us: not subscribed, us → ap: 512 bytes" in refusal.message
