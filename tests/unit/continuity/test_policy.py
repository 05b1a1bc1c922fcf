"""The limits that people write, and those that a limit itself must keep to."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from qnwis.continuity.policy import Policy, StepEstimates, Strategy
from tests.unit.continuity.scenes import SPEC_POLICY, policy


def test_the_specifications_policy_needs_no_further_field() -> None:
    assert (SPEC_POLICY.strategy, SPEC_POLICY.require_quorum) == (Strategy.AUTOMATIC, True)


def test_an_untold_policy_is_the_cautious_one() -> None:
    untold = policy()
    assert untold.require_quorum
    assert untold.min_healthy_nodes >= 1
    assert untold.cooldown_s > 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("strategy", "yolo"),
        ("max_failover_time_s", 0),
        ("min_healthy_nodes", -1),
        ("max_lag_bytes", -1),
        ("cooldown_s", -1),
        ("max_failovers_per_hour", 0),
        ("policy_id", "has a space"),
        ("requires_quorum", True),
    ],
)
def test_a_bad_value_or_name_is_refused_by_its_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        policy(**{field: value})


def test_an_estimate_is_not_negative() -> None:
    with pytest.raises(ValidationError, match="flip_dns"):
        StepEstimates(flip_dns=-1)


def test_a_policy_survives_its_own_json() -> None:
    assert Policy.model_validate_json(SPEC_POLICY.model_dump_json()) == SPEC_POLICY


@pytest.mark.parametrize("steps", [(), (10, 50), (50, 10, 100), (50, 50, 100), (0, 100)])
def test_the_steps_of_a_return_grow_to_the_whole(steps: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="return_steps_percent"):
        policy(return_steps_percent=steps)
