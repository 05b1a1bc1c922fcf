"""The failure matrix of planned maintenance, with its approvals: the same tests, as a file of their own.

What a run only reads, decides or writes down it does as a failover does, which `test_matrix` disturbs;
`make matrix` disturbs it here, too.
"""

from __future__ import annotations

import pytest
from temporalio.client import Client

from qnwis.continuity.run import RunKind

from .matrix import FAILOVER, MAINTENANCE, Point, Scene, points
from .test_matrix import Passed
from .test_matrix import passed as passed
from .test_matrix import refusing as refusing
from .test_matrix import rolled_back as rolled_back
from .test_matrix import (
    test_a_killed_server_interrupts_runs_at_every_point_and_ends_none as test_a_killed_server,
)
from .test_matrix import (
    test_a_rollback_is_disturbed_and_still_gives_the_primary_back as test_a_rollback_is_disturbed,
)
from .test_matrix import (
    test_the_points_are_all_steps_of_the_text_and_all_actions_of_the_plan as test_the_points,
)
from .test_matrix import (
    test_wherever_a_run_is_disturbed_it_ends_in_a_stated_place as test_wherever_a_run_is_disturbed,
)

__all__ = [
    "test_a_killed_server",
    "test_a_rollback_is_disturbed",
    "test_the_points",
    "test_wherever_a_run_is_disturbed",
]


@pytest.fixture(scope="module")
def kind() -> RunKind:
    return RunKind.PLANNED_MAINTENANCE


@pytest.fixture(scope="module")
def scene() -> Scene:
    """With people who vote, and a TTL to lower."""
    return MAINTENANCE


@pytest.fixture(scope="module", params=["its own", pytest.param("all", marks=pytest.mark.matrix)])
async def disturbed(
    request: pytest.FixtureRequest,
    client: Client,
    tmp_path_factory: pytest.TempPathFactory,
    passed: Passed,
) -> list[Point]:
    """Every effect, and what else a failover does not do."""
    if request.param == "all":
        return passed[0]
    of_failover, _ = await points(client, tmp_path_factory.mktemp("failover"), FAILOVER)
    shared = {point for point in passed[0] if any(point.is_at(other) for other in of_failover)}
    return [point for point in passed[0] if point.action_id or point not in shared]
