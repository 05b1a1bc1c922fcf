"""The weights of one active/active cluster that a region leaves, or comes back to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.direction import Direction
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.shifting import (
    Steering,
    WeightMove,
    shift_back,
    shift_out,
    shift_refusal,
    spread,
    steering_of,
    unshifted,
)
from qnwis.continuity.topology import Cluster
from tests.unit.continuity.scenes import cluster, node

WEIGHTED = {"zone": "example.org", "name": "db", "route53": {"hosted_zone_id": "Z1"}}
SERVERS = {"zone": "example.org", "name": "db", "servers": ("127.0.0.1:53",)}


def active(dns: dict[str, object] = WEIGHTED, *, geo: bool = False, capacity: float = 100.0) -> Cluster:
    regions = {"ap": ("continent:AS", 20), "eu": ("continent:EU", 40), "us": ("country:*", 40)}
    nodes = [
        node(
            f"{region}-1",
            "primary",
            region,
            weight=weight,
            capacity=capacity,
            record={"set_identifier": region, "geo": rule if geo else None} if dns is WEIGHTED else None,
        )
        for region, (rule, weight) in regions.items()
    ]
    return cluster(*nodes, deployment="active_active", dns=dns)


HOME = {"ap": 20, "eu": 40, "us": 40}
OUT = {"ap": 33, "eu": 0, "us": 67}


def test_a_region_is_left_and_come_back_to_in_steps() -> None:
    out = shift_out(active(), HOME, "eu")
    assert isinstance(out, WeightMove) and (out.before, out.steps) == (HOME, (OUT,))
    assert out.told() == "ap 20 → 33, eu 40 → 0, us 40 → 67"
    back = shift_back(active(), OUT, "eu")
    assert isinstance(back, WeightMove)
    assert [step["eu"] for step in back.steps] == [4, 20, 40] and back.after == HOME


def test_what_stopped_half_way_goes_on_from_there() -> None:
    begun = shift_back(active(), OUT, "eu")
    assert isinstance(begun, WeightMove)
    rest = shift_back(active(), begun.steps[0], "eu")
    assert isinstance(rest, WeightMove) and rest.steps == begun.steps[1:]


@pytest.mark.parametrize(
    ("topology", "steering"),
    [
        (active(), Steering.WEIGHTED),
        (active(geo=True), Steering.GEOLOCATION),
        (active(SERVERS), Steering.PRESENCE),
    ],
)
def test_only_weighted_records_can_take_a_part_of_a_share(topology: Cluster, steering: Steering) -> None:
    assert steering_of(topology) is steering
    back = shift_back(topology, OUT, "eu")
    assert isinstance(back, WeightMove)
    assert len(back.steps) == (3 if steering is Steering.WEIGHTED else 1) and back.after == HOME


def test_another_region_that_is_away_stays_away() -> None:
    two_away = spread(active().shares, {"eu", "ap"})
    assert two_away == {"ap": 0, "eu": 0, "us": 100}
    back = shift_back(active(), two_away, "eu")
    assert isinstance(back, WeightMove)
    assert back.after == {"ap": 0, "eu": 50, "us": 50}
    last = shift_back(active(), back.after, "ap")
    assert isinstance(last, WeightMove) and last.after == HOME


def test_where_there_is_nothing_to_do_nothing_is_done() -> None:
    assert shift_out(active(), OUT, "eu") is None and shift_out(active(), HOME, "moon") is None
    assert shift_back(active(), HOME, "eu") is None and shift_back(active(), HOME, "moon") is None


def test_it_refuses_without_room_and_on_weights_it_does_not_know() -> None:
    full = shift_out(active(capacity=45.0), HOME, "eu")
    assert isinstance(full, Refusal) and full.rule == "not_enough_capacity"
    for strange in ({"eu": 50, "us": 50}, {"ap": 1, "eu": 1, "us": 1}):
        for found in (shift_out(active(), strange, "eu"), shift_back(active(), strange, "eu")):
            assert isinstance(found, Refusal) and found.rule == "weights_in_force_unfit"


@given(st.permutations(["ap", "eu", "us"]), st.permutations(["ap", "eu"]))
def test_whichever_leaves_first_and_comes_back_first_at_the_end_all_is_as_it_was(
    leaving: list[str], coming: list[str]
) -> None:
    now = HOME
    for region in leaving[:2]:
        moved = shift_out(active(), now, region)
        assert isinstance(moved, WeightMove) and sum(moved.after.values()) == 100
        now = dict(moved.after)
    away = [region for region in leaving[:2] if not now[region]]
    for region in sorted(away, key=lambda each: coming.index(each) if each in coming else 9):
        moved = shift_back(active(), now, region)
        assert isinstance(moved, WeightMove) and all(sum(step.values()) == 100 for step in moved.steps)
        now = dict(moved.after)
    assert now == HOME


def test_whether_the_weights_became_what_they_were_to_is_read_again() -> None:
    half = {"ap": 30, "eu": 10, "us": 60}
    assert unshifted(active(), OUT, "eu", Direction.OUT) is None
    assert unshifted(active(), half, "eu", Direction.OUT) == "eu has 10 percent of the traffic still"
    assert unshifted(active(), HOME, "eu", Direction.BACK) is None
    assert "eu 10 → 20 → 40" in (unshifted(active(), half, "eu", Direction.BACK) or "")


def test_a_topology_that_was_edited_meanwhile_takes_no_weights_that_no_longer_fit_it() -> None:
    assert shift_refusal(active(), OUT) is None
    for topology, after in ((active(capacity=45.0), OUT), (active(), {"eu": 0, "us": 100})):
        found = shift_refusal(topology, after)
        assert found is not None and found.rule == "weights_no_longer_fit"


def test_service_records_have_weights_and_come_back_in_steps() -> None:
    services = active({**SERVERS, "srv": "_postgresql._tcp"})
    assert steering_of(services) is Steering.WEIGHTED and steering_of(active(SERVERS)) is Steering.PRESENCE
    back = shift_back(services, OUT, "eu")
    assert isinstance(back, WeightMove) and [step["eu"] for step in back.steps] == [4, 20, 40]
