"""Readiness of an active/active cluster as a whole: the regions, and no target that it cannot have."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from qnwis.continuity.readiness import evaluate
from qnwis.continuity.readiness_facts import (
    CertificateSeen,
    Check,
    DnsTrial,
    Facts,
    Grade,
    Guarded,
    UpdateAnswer,
)
from qnwis.continuity.weights import StepCheck

from .scenes import NOON, UNKNOWN, changed, cluster, evidence, node, policy, primary, standby, witness

READY, WARNING, NOT_EVALUATED, NOT_READY = Grade.READY, Grade.WARNING, Grade.NOT_EVALUATED, Grade.NOT_READY
DNS = {"zone": "example.org", "name": "db", "servers": ("127.0.0.1:53",), "srv": "_postgresql._tcp"}
SHOP = cluster(
    *(
        made
        for region, weight in (("eu", 60), ("us", 40))
        for made in (
            node(f"{region}-1", "primary", region, weight=weight),
            node(f"{region}-2", region=region),
            node(f"{region}-3", "witness", region),
        )
    ),
    deployment="active_active",
    dns=DNS,
)
HOME = {"eu": 60, "us": 40}
SAID = [
    state
    for region in ("eu", "us")
    for state in (
        primary(f"{region}-1"),
        standby(f"{region}-2", upstream=f"{region}-1"),
        witness(f"{region}-3"),
    )
]
WELL = StepCheck(writable=True, unsent_bytes=10, unreceived_bytes=0, differing_rows=0)
GOOD = Facts(
    cluster=SHOP,
    policy=policy(max_lag_bytes=100),
    evidence=evidence(SHOP, *SAID),
    dns=DnsTrial(tried_at=NOON, answers=(UpdateAnswer(server="127.0.0.1:53", accepted=True),)),
    record=None,
    past=None,
    weights=HOME,
    regions={"eu": WELL, "us": WELL},
    certificates=(CertificateSeen(owner="eu-1", not_after=NOON + timedelta(days=365)),),
    guarded=Guarded(heard=SHOP.vantages),
    now=NOON,
)


def of(name: str, **changes: Any) -> Check:
    return next(c for c in evaluate(GOOD.model_copy(update=changes)).checks if c.name == name)


def without_eu(**statuses: Any) -> Any:
    return evidence(SHOP, *SAID[3:], statuses={f"eu-{n}": UNKNOWN for n in (1, 2, 3)} | statuses)


def test_two_regions_that_serve_and_replicate_are_ready() -> None:
    found = evaluate(GOOD)
    assert found.grade is READY, found
    assert {check.name for check in found.checks if check.counts} >= {
        "each region serves",
        "replication between regions",
        "loss of any region",
        "loss of any node",
        "DNS weights",
        "DNS credentials",
    }
    assert "target exists" not in str(found), "there is none, and need not be"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("each region serves", {"evidence": None}),
        ("each region serves", {"evidence": without_eu()}),
        ("loss of any region", {"weights": None}),
        ("DNS weights", {"weights": None}),
        ("replication between regions", {"regions": {}}),
        ("replication between regions", {"regions": {"eu": WELL, "us": StepCheck(writable=True)}}),
        ("DNS credentials", {"dns": None}),
    ],
)
def test_what_is_not_known_of_regions_is_never_ready(name: str, changes: dict[str, Any]) -> None:
    assert of(name, **changes).grade is NOT_EVALUATED
    assert evaluate(GOOD.model_copy(update=changes)).grade in (NOT_EVALUATED, NOT_READY)


def test_a_region_that_clients_are_sent_to_has_to_take_writes() -> None:
    read_only = SAID[0].model_copy(update={"writable": False})
    down = evidence(SHOP, read_only, *SAID[1:])
    found = of("each region serves", evidence=down)
    assert found.grade is NOT_READY and "eu has no one primary that takes writes" in found.reason
    left = of("each region serves", evidence=without_eu(), weights={"eu": 0, "us": 100})
    assert left.grade is WARNING and "it takes 0 percent" in left.reason


@pytest.mark.parametrize(
    "found", [{"unsent_bytes": 101}, {"unreceived_bytes": 101}, {"differing_rows": 1}, {"writable": False}]
)
def test_a_region_that_lags_or_differs_is_not_ready(found: dict[str, Any]) -> None:
    bad = WELL.model_copy(update=found)
    check = of("replication between regions", regions={"eu": WELL, "us": bad})
    assert check.grade is NOT_READY and bad.told() in check.reason


def test_the_loss_of_a_region_counts_the_room_of_those_that_serve() -> None:
    full = changed(SHOP, nodes=[{**n.model_dump(), "capacity": 90.0} for n in SHOP.nodes])
    assert "room for 50" in of("loss of any region", cluster=full).reason
    assert of("loss of any region", cluster=full).grade is WARNING
    gone = of("loss of any region", evidence=without_eu(), weights={"eu": 0, "us": 100})
    assert gone.grade is WARNING and "us:" in gone.reason, "nobody is left to take its share"


def test_a_node_whose_loss_takes_its_region_along_is_told() -> None:
    bare = cluster(
        *(node(f"{r}-1", "primary", r, weight=w) for r, w in HOME.items()),
        deployment="active_active",
        dns=DNS,
    )
    found = of("loss of any node", cluster=bare)
    assert found.grade is WARNING and "eu-1 takes its region along" in found.reason
    assert of("loss of any node").grade is READY


def test_weights_that_are_away_from_home_are_told() -> None:
    away = of("DNS weights", weights={"eu": 0, "us": 100})
    assert away.grade is WARNING and "eu takes 0, at home 60" in away.reason


def test_of_regions_with_a_record_each_one_refusal_counts() -> None:
    answers = tuple(UpdateAnswer(server="127.0.0.1:53", accepted=a, reason="-") for a in (False, True))
    trial = DnsTrial(tried_at=NOON, answers=answers)
    assert of("DNS credentials", dns=trial).grade is NOT_READY
