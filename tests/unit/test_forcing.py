"""An emergency override's membership: every survivor has it in the end, or none, whichever answer is lost."""

from __future__ import annotations

import pytest
from temporalio.testing import ActivityEnvironment

from activities.fencing import Fencing
from activities.forcing import BACK_WITHIN_S, ForceRequest, Forcing
from qnwis.continuity.executor import LEFT_TO_DO, Outcome, OutcomeStatus
from qnwis.continuity.plan import ForceMembership
from qnwis.continuity.refusal import Refusal
from qnwis.providers.errors import Refused, Unreachable
from tests.integration.continuity.world import World, three_nodes
from tests.unit.test_power import asked_so_long_ago

SURVIVORS = ("node-2", "node-3")
NO = Refused(Refusal(rule="member_serves", message="-", remedy="-"))


@pytest.fixture
def world() -> World:
    """Of whose nodes node-1 is lost."""
    world = World.of(three_nodes("c"))
    world.kill("node-1")
    return world


def request(world: World) -> ForceRequest:
    action = ForceMembership(
        action_id="1-force",
        node_id="node-1",
        lost=("node-1",),
        members=SURVIVORS,
        attested_by=None,
        estimate_ms=1,
    )
    return ForceRequest(
        run_id="run", epoch=1, cluster=world.cluster, action=action, target="node-2", reason="test"
    )


async def forced(world: World) -> Outcome:
    forcing = Forcing(world, Fencing(world, world))
    outcome: Outcome = await ActivityEnvironment().run(forcing.force, request(world))
    return outcome


async def taken_back(world: World, *, after_s: float = 0.0) -> Outcome:
    forcing = Forcing(world, Fencing(world, world))
    outcome: Outcome = await asked_so_long_ago(after_s).run(forcing.unforce, request(world))
    return outcome


async def members(world: World) -> list[int]:
    """How many each survivor knows of, the fewest first."""
    views = [await world.membership(world.cluster.node(node), timeout_s=1) for node in SURVIVORS]
    return sorted(len(view.membership.members) for view in views)


async def test_a_membership_that_one_survivor_refuses_is_taken_back_from_the_other(world: World) -> None:
    asked: list[str] = []

    def second_refuses(effect: str) -> None:
        asked.append(effect)
        if effect == "force" and asked.count("force") == 2:
            world.fail_next("force", NO)

    world.before_effect = second_refuses
    outcome = await forced(world)
    assert (outcome.status, outcome.facts["rule"]) == (OutcomeStatus.UNKNOWN, "member_serves")
    assert await members(world) == [2, 3]
    assert (await taken_back(world)).status is OutcomeStatus.UNDONE
    assert await members(world) == [3, 3]


async def test_a_membership_that_only_one_survivor_took_back_is_taken_back_by_the_other(world: World) -> None:
    await forced(world)
    assert await members(world) == [2, 2]
    world.fail_next("force", Unreachable("lost"))
    with pytest.raises(Unreachable):
        await taken_back(world)
    assert await members(world) == [2, 3]

    assert (await taken_back(world)).status is OutcomeStatus.UNDONE
    assert await members(world) == [3, 3]
    assert len({world.views[node].membership for node in SURVIVORS}) == 1


async def test_a_survivor_that_is_lost_holds_the_emergency_path_no_longer_than_a_minute(world: World) -> None:
    """Those that answer have the old members again, and people read who follows which membership."""
    await forced(world)
    world.kill("node-3")
    with pytest.raises(Unreachable):
        await taken_back(world, after_s=BACK_WITHIN_S - 30)
    given_up = await taken_back(world, after_s=BACK_WITHIN_S)

    assert given_up.status is OutcomeStatus.UNDONE and given_up.facts[LEFT_TO_DO] == given_up.detail
    back = world.views["node-2"].membership
    assert len(back.members) == 3
    assert f"node-2 follows membership {back.version} (node-1, node-2, node-3)" in given_up.detail
    assert "node-3 does not say which it follows" in given_up.detail, given_up
    assert not world.machines["node-2"].reserved


async def test_a_survivor_that_is_silent_may_be_the_one_that_heard_of_it(world: World) -> None:
    world.kill("node-3")
    with pytest.raises(Unreachable, match="node-3 does not say which it follows"):
        await taken_back(world)
