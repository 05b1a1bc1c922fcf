"""What a refusal makes of an action that can be undone: where something may have been done before it, in this
attempt or an earlier one, it is undone."""

from __future__ import annotations

import dataclasses
from itertools import takewhile
from typing import Any, Literal, cast

import pytest
from temporalio.testing import ActivityEnvironment

from activities.dns import DnsRecords, RetimeRequest
from activities.effect import EffectRequest
from activities.fencing import FenceRequest, Fencing
from activities.http_application import ApplicationMoves, HttpFenceRequest
from activities.patroni_fencing import FenceClusterRequest, PatroniFencing
from activities.switchover import ReleaseRequest, Switchover
from qnwis.continuity.executor import Outcome, OutcomeStatus, Undo, advance
from qnwis.continuity.http_actions import HttpFence
from qnwis.continuity.lease_messages import PromiseRequest
from qnwis.continuity.patroni_actions import PatroniFenceCluster
from qnwis.continuity.plan import FencePrimary, LowerTtl, ReleasePrimary, VerifyService
from qnwis.continuity.policy import Policy
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import Maintenance
from qnwis.continuity.switchover import make_switchover
from qnwis.continuity.topology import FencingHook
from qnwis.providers.errors import Refused
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.fencing import HookAnswer
from tests.integration.continuity.world import World, three_nodes
from tests.unit.test_power import asked_so_long_ago
from workflows.execution import Execution

NO = Refused(Refusal(rule="no", message="no", remedy="-"))
RUN, EPOCH = "run", 1
NOBODY = cast(Any, None)


def attempt(number: int) -> ActivityEnvironment:
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, attempt=number)
    return environment


def asked(world: World) -> dict[str, Any]:
    return {"run_id": RUN, "epoch": EPOCH, "cluster": world.cluster}


@pytest.fixture
def world() -> World:
    return World.of(three_nodes("c"))


ATTEMPTS = pytest.mark.parametrize(
    ("number", "status"), [(1, OutcomeStatus.FAILED), (2, OutcomeStatus.UNKNOWN)]
)


@ATTEMPTS
async def test_a_power_switch_may_have_done_before_what_it_refuses_now(
    world: World, number: int, status: OutcomeStatus
) -> None:
    world.fail_next("power_off", NO)
    action = HttpFence(action_id="1-fence", node_id="node-1", estimate_ms=1)
    moves = ApplicationMoves(NOBODY, NOBODY, world)
    outcome = await attempt(number).run(moves.http_fence, HttpFenceRequest(action=action, **asked(world)))
    assert outcome.status is status and outcome.facts["rule"] == "no"


@ATTEMPTS
async def test_a_ttl_may_have_been_lowered_before_it_is_refused(
    world: World, number: int, status: OutcomeStatus
) -> None:
    world.fail_next("ttl", NO)
    action = LowerTtl(action_id="1-lower-ttl", record="db.lab.test", from_ttl_s=60, to_ttl_s=1, estimate_ms=1)
    request = RetimeRequest(action=action, **asked(world))
    assert (await attempt(number).run(DnsRecords(world).retime, request)).status is status


async def test_a_fence_that_brings_no_evidence_is_undone(world: World) -> None:
    """A majority has promised by then, and the power switch may have done something before it refused."""
    world.leases = False
    world.fail_next("power_off", NO)
    action = FencePrimary(action_id="1-fence", node_id="node-1", estimate_ms=1)
    fence, request = Fencing(world, world).fence, FenceRequest(action=action, target="node-2", **asked(world))
    outcome = await attempt(1).run(fence, request)
    assert outcome.status is OutcomeStatus.UNKNOWN and "the fencing hook refused: no" in outcome.detail
    assert all(machine.reserved for machine in world.machines.values())


async def test_after_a_reset_no_attempt_is_the_first(world: World) -> None:
    """Another execution of the run may have asked."""

    async def judged(again: bool) -> OutcomeStatus:
        return EffectRequest(again=again, **asked(world)).if_refused

    assert await attempt(1).run(judged, False) is OutcomeStatus.FAILED
    assert await attempt(1).run(judged, True) is OutcomeStatus.UNKNOWN
    request = await release(world)
    execution = Execution(request.plan, world.cluster, request.policy, EPOCH, RUN)
    for action in request.plan.actions:
        if not isinstance(action, VerifyService):
            told = [execution._request(action, again=again).again for again in (True, False)]
            assert told == [True, False], action.kind


class OneRefuses:
    """A power switch that switches every node off but one."""

    async def switch(
        self, hook: FencingHook, node_id: str, state: Literal["off", "on"], effect_id: str
    ) -> HookAnswer:
        if node_id == "node-2":
            raise NO
        return HookAnswer(changed=True, detail="is off")


async def test_members_that_were_switched_off_are_given_back_where_one_was_refused(world: World) -> None:
    action = PatroniFenceCluster(
        action_id="1-fence", node_id="node-1", node_ids=("node-1", "node-2"), attested_by=None, estimate_ms=1
    )
    request = FenceClusterRequest(action=action, **asked(world))
    outcome = await attempt(1).run(PatroniFencing(OneRefuses()).fence_cluster, request)
    assert outcome.status is OutcomeStatus.UNKNOWN


# A release


async def release(world: World) -> ReleaseRequest:
    policy, seen = Policy(policy_id="p", name="p"), await collect_evidence(world, world.cluster)
    plan = make_switchover(world.cluster, policy, seen, Maintenance(), trigger_reason="test").plan
    assert plan is not None
    (action,) = (action for action in plan.actions if isinstance(action, ReleasePrimary))
    return ReleaseRequest(action=action, plan=plan, policy=policy, **asked(world))


async def test_a_release_that_cannot_go_on_is_taken_back_with_what_an_earlier_attempt_did(
    world: World,
) -> None:
    """The service may be down by it, which is no `nothing was changed`. A primary that is silent by now is
    not waited for without end: a failover needs the lock."""
    request, switchover = await release(world), Switchover(world, Fencing(world, world))
    for node in world.cluster.nodes:
        promise = PromiseRequest(epoch=EPOCH, run_id=RUN, membership_version=1)
        await world.promise(node, promise, timeout_s=1)
    world.kill("node-1")
    outcome = await attempt(2).run(switchover.release, request)
    assert (outcome.status, outcome.changed) == (OutcomeStatus.UNKNOWN, None)
    before = takewhile(lambda action: action != request.action, request.plan.actions)
    done = [Outcome(action_id=one.action_id, status=OutcomeStatus.SUCCEEDED) for one in before]
    assert advance(request.plan, [*done, outcome]) == Undo(request.action)

    undone = await asked_so_long_ago(60).run(switchover.take_back, request)
    assert (undone.status, undone.changed) == (OutcomeStatus.UNDONE, True), undone
    assert not any(world.machines[node_id].reserved for node_id in ("node-2", "node-3"))


async def test_a_release_that_is_refused_at_first_has_changed_nothing(world: World) -> None:
    request, switchover = await release(world), Switchover(world, Fencing(world, world))
    world.kill("node-1")
    outcome = await attempt(1).run(switchover.release, request)
    assert (outcome.status, outcome.changed) == (OutcomeStatus.FAILED, False)
