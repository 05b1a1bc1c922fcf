"""What of a plan counts as failover time: from the end of the service on the old primary, and no more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.outage import Outage, acts_ahead, estimated_outage_ms, waited_for
from qnwis.continuity.plan import Plan
from qnwis.continuity.planner import Planning
from qnwis.continuity.run import Maintenance
from qnwis.continuity.simulate import rehearse
from qnwis.continuity.switchover import make_switchover
from qnwis.continuity.topology import DnsService
from tests.unit.continuity.application_scenes import by_http, says
from tests.unit.continuity.scenes import (
    NOON,
    SPEC_CLUSTER,
    evidence,
    policy,
    primary,
    spec_plan,
    standby,
    with_dns,
)
from tests.unit.continuity.test_verifier import report as verified

NAMED = with_dns(SPEC_CLUSTER, ttl_s=DnsService.model_fields["ttl_s"].default)
DEFAULTS = policy()
WELL = evidence(NAMED, primary("node-1"), standby("node-2"), standby("node-3"))
COUNTED = ("release_primary", "promote_target", "flip_dns", "repoint_standbys", "verify_service")


def made(limits: Any = DEFAULTS, topology: Any = NAMED) -> Planning:
    return make_switchover(topology, limits, WELL, Maintenance(), trigger_reason="new kernel")


def planned(limits: Any = DEFAULTS, topology: Any = NAMED) -> Plan:
    found = made(limits, topology)
    assert found.plan is not None, found.refusal
    return found.plan


def test_with_a_name_and_all_defaults_a_switchover_is_planned_and_its_rehearsal_agrees() -> None:
    plan = planned()
    assert plan.estimated_total_ms > DEFAULTS.max_failover_time_s * 1000 > estimated_outage_ms(plan)
    rehearsal = rehearse(plan, NAMED, DEFAULTS, WELL)
    assert rehearsal.refusal is None, rehearsal
    assert rehearsal.expected_ms == plan.estimated_total_ms


def test_only_what_the_service_waits_for_counts() -> None:
    plan = planned()
    assert tuple(action.kind for action in waited_for(plan)) == COUNTED and acts_ahead(plan)
    just = estimated_outage_ms(plan) / 1000
    assert made(policy(max_failover_time_s=just)).plan is not None
    refusal = made(policy(max_failover_time_s=just - 0.001)).refusal
    assert refusal is not None and refusal.rule == "too_slow"
    assert refusal.values["estimated_outage_ms"] == estimated_outage_ms(plan)
    assert str(estimated_outage_ms(plan)) in refusal.message
    estimates = refusal.values["estimates_ms"]
    assert isinstance(estimates, dict) and sum(estimates.values()) == estimated_outage_ms(plan)  # type: ignore[arg-type]


def test_on_paper_too_an_outage_that_is_too_long_fails_and_what_is_done_ahead_does_not() -> None:
    plan = planned()
    outage_s = (estimated_outage_ms(plan) - DEFAULTS.estimates_ms.verify_service) / 1000
    assert rehearse(plan, NAMED, policy(max_failover_time_s=outage_s), WELL).refusal is None
    refusal = rehearse(plan, NAMED, policy(max_failover_time_s=outage_s - 0.001), WELL).refusal
    assert refusal is not None and "the service waited" in refusal.message


def test_of_an_application_too() -> None:
    topology = with_dns(by_http(), ttl_s=30)
    seen = evidence(topology, says("t1", writable=True), says("t2", writable=False))
    found = make_switchover(topology, DEFAULTS, seen, Maintenance(), trigger_reason="r").plan
    assert found is not None
    assert found.actions[0].kind == "lower_ttl"
    assert [action.kind for action in waited_for(found)] == [
        "http_demote",
        "http_promote",
        "flip_dns",
        "verify_service",
    ]


@pytest.mark.parametrize("topology", [SPEC_CLUSTER, with_dns(SPEC_CLUSTER, ttl_s=30)])
def test_of_a_failover_all_counts(topology: Any) -> None:
    plan = spec_plan(topology)
    assert waited_for(plan) == plan.actions and not acts_ahead(plan)
    assert estimated_outage_ms(plan) == plan.estimated_total_ms


def test_the_verifier_says_what_it_measured() -> None:
    late = verified(elapsed_ms=61_000)
    assert [c.detail for c in late.failures] == ["the run took 61000 ms, allowed are 60000 ms"]


@given(st.lists(st.floats(0, 100), min_size=9, max_size=9))
def test_the_clock_runs_from_the_release_until_only_what_nobody_waits_for_is_left(took: list[float]) -> None:
    plan, outage, now = planned(), Outage(), NOON
    waited = timedelta(0)
    for action, seconds in zip(plan.actions, took, strict=True):
        outage.before(action, now)
        outage.before(action, now + timedelta(seconds=seconds / 2))  # asked again, its outcome being unknown
        now += timedelta(seconds=seconds)
        if action.kind in COUNTED and action.kind != "verify_service":
            waited += timedelta(seconds=seconds)
    assert outage.since is not None and outage.until is not None
    assert outage.until - outage.since == waited
