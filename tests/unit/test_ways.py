"""Every kind of action can be asked for, and what the stepper undoes can be undone."""

from __future__ import annotations

from typing import get_args

import pytest

from qnwis.continuity.executor import REVERSIBLE
from qnwis.continuity.http_actions import HttpFence
from qnwis.continuity.patroni_actions import PatroniFenceCluster
from qnwis.continuity.plan import Action, FencePrimary, ForceMembership, ReleasePrimary, VerifyService
from tests.unit.continuity.scenes import cluster, node
from workflows.ways import WAYS

KINDS = {kind.model_fields["kind"].default: kind for kind in get_args(get_args(Action)[0])}


def test_every_kind_of_action_but_the_verification_has_a_way() -> None:
    assert set(WAYS) == set(KINDS.values()) - {VerifyService}


def test_exactly_what_the_stepper_undoes_can_be_undone() -> None:
    undone = {name for name, kind in KINDS.items() if kind in WAYS and WAYS[kind].undo is not None}
    assert undone == REVERSIBLE


@pytest.mark.parametrize("kind", [FencePrimary, ForceMembership, HttpFence, PatroniFenceCluster])
def test_a_power_switch_has_all_the_time_that_its_configuration_allows(kind: type) -> None:
    hook = {"url": "http://switch/{node_id}/{state}", "timeout_s": 3600}
    way, slow = WAYS[kind], cluster(node("node-1", "primary"), node("node-2"), fencing=hook)
    done, undone = way.done_with(None, slow, "-"), way.undone_with(None, slow, "-")  # type: ignore[arg-type]
    for timeout in (
        done["start_to_close_timeout"],
        done["schedule_to_close_timeout"],
        undone["start_to_close_timeout"],
    ):
        assert timeout is not None and timeout.total_seconds() > 3600
    assert "schedule_to_close_timeout" not in undone


def test_a_drain_has_all_the_time_that_the_policy_allows() -> None:
    action = ReleasePrimary(
        action_id="1-release", node_id="node-1", target="node-2", drain_s=59.9, estimate_ms=1
    )
    there = cluster(node("node-1", "primary"), node("node-2"))
    done = WAYS[ReleasePrimary].done_with(action, there, "-")
    for timeout in (done["start_to_close_timeout"], done["schedule_to_close_timeout"]):
        assert timeout is not None and timeout.total_seconds() > 60
