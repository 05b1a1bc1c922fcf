"""Fencing by hook or by a person's word, over a hook that a test plays."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta
from typing import Any, Literal, cast

import pytest
from temporalio.testing import ActivityEnvironment

from activities.http_application import ApplicationMoves, HttpFenceRequest
from activities.patroni_fencing import FenceClusterRequest, PatroniFencing
from activities.power import POWER_BACK_WITHIN_S
from qnwis.continuity.executor import LEFT_TO_DO, OutcomeStatus
from qnwis.continuity.http_actions import HttpFence
from qnwis.continuity.orders import FencingEvidenceType
from qnwis.continuity.patroni_actions import PatroniFenceCluster
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import FencingHook
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.fencing import HookAnswer
from tests.unit.continuity.scenes import cluster, node

TWO = cluster(
    node("e1", "primary"),
    node("e2"),
    node("w1", region="region-2"),
    fencing={"url": "http://switch/{node_id}/{state}"},
)


class Switch:
    def __init__(self) -> None:
        self.is_off = {"e2"}
        self.asked: list[str] = []
        self.refuses = False

    async def switch(
        self, hook: FencingHook, node_id: str, state: Literal["off", "on"], effect_id: str
    ) -> HookAnswer:
        self.asked.append(effect_id)
        if self.refuses:
            raise Refused(Refusal(rule="no", message="-", remedy="-"))
        changed = (node_id in self.is_off) is (state == "on")
        return HookAnswer(changed=changed, detail=f"is {state}")


def request(attested_by: str | None = None) -> FenceClusterRequest:
    action = PatroniFenceCluster(
        action_id="1-fence",
        node_id="e1",
        node_ids=("e1", "e2"),
        attested_by=attested_by,
        estimate_ms=1,
    )
    return FenceClusterRequest(run_id="run", epoch=4, cluster=TWO, action=action)


async def test_every_member_of_the_region_is_switched_off_each_under_an_effect_id_of_its_own() -> None:
    switch = Switch()
    done = await ActivityEnvironment().run(PatroniFencing(switch).fence_cluster, request())
    assert sorted(switch.asked) == ["run/1-fence/e1", "run/1-fence/e2"]
    assert done.status is OutcomeStatus.SUCCEEDED and done.detail == "e1: is off; e2: is off"
    assert done.changed and done.fencing is not None and done.fencing.changed, "e1 was on"
    assert (done.fencing.type, done.fencing.holder, done.fencing.epoch, done.fencing.source) == (
        FencingEvidenceType.HOOK,
        "e1",
        4,
        "http://switch/e1/off",
    )


async def test_a_persons_word_is_recorded_as_theirs_and_switches_nothing() -> None:
    switch = Switch()
    done = await ActivityEnvironment().run(PatroniFencing(switch).fence_cluster, request("ann"))
    assert switch.asked == [] and done.fencing is not None and not done.changed
    assert (done.fencing.type, done.fencing.source) == (FencingEvidenceType.ATTESTED, "ann")
    assert done.detail == "ann states that e1, e2 are off"
    undone = await ActivityEnvironment().run(PatroniFencing(switch).unfence_cluster, request("ann"))
    assert switch.asked == [] and undone.status is OutcomeStatus.UNDONE


async def test_power_that_is_refused_to_come_back_is_asked_for_again() -> None:
    switch = Switch()
    switch.refuses = True
    with pytest.raises(Unreachable):
        await ActivityEnvironment().run(PatroniFencing(switch).unfence_cluster, request())
    switch.refuses, switch.asked = False, []
    undone = await ActivityEnvironment().run(PatroniFencing(switch).unfence_cluster, request())
    assert undone.status is OutcomeStatus.UNDONE and undone.changed, "e2 was off"
    assert sorted(switch.asked) == ["run/1-fence/e1/undo", "run/1-fence/e2/undo"]


async def test_all_members_are_switched_off_at_the_same_time() -> None:
    """A switch that takes its time takes it once."""
    together = asyncio.Barrier(2)

    class Slow(Switch):
        async def switch(
            self, hook: FencingHook, node_id: str, state: Literal["off", "on"], effect_id: str
        ) -> HookAnswer:
            await together.wait()
            return await super().switch(hook, node_id, state, effect_id)

    async with asyncio.timeout(20):
        await ActivityEnvironment().run(PatroniFencing(Slow()).fence_cluster, request())


def asked_so_long_ago(seconds: float) -> ActivityEnvironment:
    """An attempt of an activity that was asked for then, and taken up at once; at 0 s the first."""
    return attempted(2 if seconds else 1, scheduled_s=seconds, first_s=seconds)


def attempted(number: int, *, scheduled_s: float, first_s: float | None = None) -> ActivityEnvironment:
    """An attempt of an activity that was scheduled so long ago, and first taken up `first_s` ago."""
    environment = ActivityEnvironment()
    now = environment.info.started_time
    environment.info = dataclasses.replace(
        environment.info,
        attempt=number,
        scheduled_time=now - timedelta(seconds=scheduled_s),
        heartbeat_details=[] if first_s is None else [(now - timedelta(seconds=first_s)).isoformat()],
    )
    return environment


async def test_power_that_never_comes_back_is_left_to_people_in_the_end() -> None:
    """The run must let its lock go: whatever could help waits for that."""
    switch = Switch()
    switch.refuses = True
    undo = PatroniFencing(switch).unfence_cluster
    with pytest.raises(Unreachable):
        await asked_so_long_ago(POWER_BACK_WITHIN_S - 60).run(undo, request())
    given_up = await asked_so_long_ago(POWER_BACK_WITHIN_S).run(undo, request())
    assert given_up.status is OutcomeStatus.UNDONE
    assert "e1 may still be OFF" in given_up.detail and "http://switch/e2/on" in given_up.detail
    # Without a lease whoever comes up writes: who promotes another by hand sees to it first.
    assert "e1 may still be OFF, or have its power back any moment" in given_up.detail
    assert "Before another is promoted by hand, see that it stays off" in given_up.detail
    assert given_up.facts[LEFT_TO_DO] == given_up.detail


async def test_power_is_asked_for_as_long_though_no_worker_was_there_at_first() -> None:
    """What passed before the first ask is no time in which the switch was asked."""
    switch = Switch()
    switch.refuses = True
    undo = PatroniFencing(switch).unfence_cluster
    away_s = 2 * POWER_BACK_WITHIN_S
    with pytest.raises(Unreachable):
        await attempted(1, scheduled_s=away_s).run(undo, request())
    with pytest.raises(Unreachable):
        await attempted(2, scheduled_s=away_s, first_s=1).run(undo, request())
    given_up = await attempted(9, scheduled_s=away_s, first_s=POWER_BACK_WITHIN_S).run(undo, request())
    assert given_up.status is OutcomeStatus.UNDONE


async def test_an_applications_node_that_gets_no_power_is_left_to_people_too() -> None:
    switch = Switch()
    switch.refuses = True
    nobody = cast(Any, None)  # neither agents nor the application are asked
    moves = ApplicationMoves(nobody, nobody, switch)
    action = HttpFence(action_id="1-fence", node_id="e1", estimate_ms=1)
    fence = HttpFenceRequest(run_id="run", epoch=4, cluster=TWO, action=action)
    given_up = await asked_so_long_ago(POWER_BACK_WITHIN_S).run(moves.http_unfence, fence)
    assert given_up.status is OutcomeStatus.UNDONE and "e1 may still be OFF" in str(
        given_up.facts[LEFT_TO_DO]
    )
