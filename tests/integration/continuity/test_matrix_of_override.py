"""The failure matrix of an emergency override that gives nodes up: what it does that no other run does.

Its other steps and actions are those of a failover, which `test_matrix` disturbs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from temporalio.client import Client

from qnwis.continuity.executor import FORCES
from qnwis.continuity.run import RunOutcome

from .matrix import GOING_ON, OVERRIDE, STOPPING, Disturbance, Point, Scene
from .test_matrix import Passed, expected, hit_all
from .test_matrix import passed as passed
from .test_matrix import refusing as refusing
from .test_matrix import rolled_back as rolled_back


@pytest.fixture(scope="module")
def scene() -> Scene:
    return OVERRIDE


def forcing(found: Passed) -> list[Point]:
    """The points at which nodes are given up, or taken back."""
    assert found[1].plan is not None
    (force,) = (action.action_id for action in found[1].plan.actions if action.kind == FORCES)
    return [point for point in found[0] if point.action_id == force]


@pytest.mark.parametrize("disturbance", [*STOPPING, *GOING_ON], ids=lambda d: d.__name__)
async def test_wherever_it_is_disturbed_it_ends_in_a_stated_place(
    client: Client, tmp_path: Path, passed: Passed, scene: Scene, disturbance: Disturbance
) -> None:
    found = forcing(passed)
    assert [point.when for point in found] == ["before", "after"]
    ends = await hit_all(client, tmp_path, found, disturbance, scene)
    assert {str(p): ends[p] for p in found if ends[p] != expected(passed[0], p, disturbance)} == {}


@pytest.mark.parametrize("disturbance", [*STOPPING, *GOING_ON], ids=lambda d: d.__name__)
async def test_taking_it_back_is_disturbed_and_all_are_members_again(
    client: Client, tmp_path: Path, rolled_back: Passed, refusing: Scene, disturbance: Disturbance
) -> None:
    assert rolled_back[1].outcome is RunOutcome.ROLLED_BACK
    undoing = [point for point in forcing(rolled_back) if point.undoing]
    assert undoing
    ends = await hit_all(client, tmp_path, undoing, disturbance, refusing)
    assert {str(p): ends[p] for p in undoing if ends[p] != "rolled back"} == {}
