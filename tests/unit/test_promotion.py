"""The last gate before the point of no return: the target is compared again after the fence."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.testing import ActivityEnvironment

from activities.promotion import PromoteRequest, Promotion
from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.lease_messages import PromiseRequest
from qnwis.continuity.orders import AnyOrder, DemotionToken, FollowOrder, Receipt
from qnwis.continuity.plan import PromoteTarget, RejoinOldPrimary, RepointStandbys
from qnwis.continuity.planner import make_plan
from qnwis.continuity.policy import Policy
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import Node
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.evidence import collect_evidence
from tests.integration.continuity.world import World, three_nodes
from tests.looking import WITHIN_S
from workflows.execution import Execution

EPOCH, RUN = 1, "run"
POLICY = Policy(policy_id="p", name="p")


async def fenced() -> tuple[World, PromoteRequest]:
    """node-1 is dead, node-2 is the plan's target, and both standbys promised the run its epoch."""
    world = World.of(three_nodes("c"))
    world.kill("node-1")
    evidence = await collect_evidence(world, world.cluster)
    plan = make_plan(world.cluster, POLICY, evidence, trigger_reason="test").plan
    assert plan is not None and plan.failover_target_id == "node-2"
    for node_id in ("node-2", "node-3"):
        asked = PromiseRequest(epoch=EPOCH, run_id=RUN, membership_version=1)
        await world.promise(world.cluster.node(node_id), asked, timeout_s=1)
    (action,) = (action for action in plan.actions if isinstance(action, PromoteTarget))
    request = PromoteRequest(
        run_id=RUN, epoch=EPOCH, cluster=world.cluster, action=action, plan=plan, policy=POLICY
    )
    return world, request


async def promoted(world: World, request: PromoteRequest) -> Outcome:
    outcome: Outcome = await ActivityEnvironment().run(Promotion(world).promote, request)
    return outcome


async def test_the_most_advanced_standby_is_promoted() -> None:
    world, request = await fenced()
    assert (await promoted(world, request)).status is OutcomeStatus.SUCCEEDED
    assert world.writable() == ["node-2"]


def get_ahead(world: World, *, gives_log: bool = False) -> None:
    """The other standby has log that the target lacks."""
    other = world.machines["node-3"]
    other.lsn, other.gives_log = other.lsn + 200, gives_log


async def test_a_target_that_fell_behind_first_takes_the_rest_of_the_log() -> None:
    world, request = await fenced()
    get_ahead(world, gives_log=True)
    assert (await promoted(world, request)).status is OutcomeStatus.SUCCEEDED
    assert world.machines["node-2"].lsn == world.machines["node-3"].lsn
    assert [effect for effect, _ in world.journal][:2] == ["catch_up", "promote"]


async def test_a_target_that_could_not_say_that_it_has_the_log_is_judged_by_where_it_stands_then() -> None:
    world, request = await fenced()
    get_ahead(world)

    def all_came(effect: str) -> None:
        if effect == "catch_up":
            world.machines["node-2"].lsn = world.machines["node-3"].lsn

    world.before_effect = all_came
    late = Refusal(rule="not_caught_up", message="not in time", remedy="another target")
    world.fail_next("catch_up", Refused(late))
    assert (await promoted(world, request)).status is OutcomeStatus.SUCCEEDED


async def test_a_target_that_fell_behind_while_the_lease_ran_out_is_not_promoted() -> None:
    """That it promised the run's epoch, and reports it, does not say that it was promoted already."""
    world, request = await fenced()
    get_ahead(world)
    outcome = await promoted(world, request)
    assert (outcome.status, outcome.facts["rule"]) == (OutcomeStatus.FAILED, "target_no_longer_suitable")
    assert world.writable() == []


async def test_one_that_was_promoted_by_an_earlier_attempt_is_compared_with_nobody() -> None:
    world, request = await fenced()
    await promoted(world, request)
    get_ahead(world)
    again = request.model_copy(update={"again": True})
    assert (await promoted(world, again)).status is OutcomeStatus.SUCCEEDED
    assert world.changes("promote") == ["run/2-promote-node-2"]


AHEAD = FollowOrder(
    effect_id="run/3-repoint-standbys/node-3/ahead", run_id=RUN, epoch=EPOCH, upstream="node-2"
)
TOKEN = DemotionToken(timeline=1, lsn=1000)


@pytest.mark.parametrize(
    ("at", "later", "orders"),
    [
        (TOKEN, 0, {"before": AHEAD.model_copy(update={"at": TOKEN})}),
        (None, 0, {"after": AHEAD}),
        (None, 1, {"after": AHEAD.model_copy(update={"epoch": EPOCH + 1})}),
    ],
)
async def test_the_others_are_told_to_follow_with_the_promotion_since_its_first_writes_wait_for_them(
    monkeypatch: pytest.MonkeyPatch, at: DemotionToken | None, later: int, orders: dict[str, FollowOrder]
) -> None:
    """After a failover only once it is done: until then the run may have to go back."""
    world, request = await fenced()
    ordered, told = world.order, dict[str, AnyOrder]()
    follows, promotes = asyncio.Event(), asyncio.Event()

    async def order(node: Node, order: AnyOrder, *, timeout_s: float) -> Receipt:
        if isinstance(order, FollowOrder):
            told["after" if promotes.is_set() else "before"] = order
            follows.set()
        elif at is not None:
            await follows.wait()
        receipt = await ordered(node, order, timeout_s=timeout_s)
        promotes.set()
        return receipt.model_copy(update={"epoch": EPOCH + later})

    monkeypatch.setattr(world, "order", order)
    async with asyncio.timeout(WITHIN_S):
        await promoted(world, request.model_copy(update={"at": at}))
        await follows.wait()
    assert told == orders


async def test_where_an_order_may_be_on_its_way_a_refusal_is_waited_out() -> None:
    world, request = await fenced()
    get_ahead(world)
    with pytest.raises(Unreachable, match="may be on its way"):
        await promoted(world, request.model_copy(update={"again": True}))


async def test_orders_to_follow_a_primary_that_took_its_lease_up_again_are_of_its_later_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other nodes promised it that epoch, and obey none of the run's any more."""
    world, request = await fenced()
    ordered = world.order

    async def later(node: Node, order: AnyOrder, *, timeout_s: float) -> Receipt:
        receipt = await ordered(node, order, timeout_s=timeout_s)
        return receipt.model_copy(update={"epoch": EPOCH + 1})

    in_time = await promoted(world, request)
    monkeypatch.setattr(world, "order", later)
    since = await promoted(world, request)

    assert epochs_of_followers(request, in_time) == [EPOCH, EPOCH]
    assert epochs_of_followers(request, since) == [EPOCH + 1, EPOCH + 1]


def epochs_of_followers(request: PromoteRequest, promotion: Outcome) -> list[int]:
    """Under which epochs the run orders that the new primary be followed."""
    execution = Execution(request.plan, request.cluster, POLICY, EPOCH, RUN, log=[promotion])
    names = {"upstream": "node-2", "estimate_ms": 1}
    return [
        execution._request(RepointStandbys(action_id="repoint", node_ids=("node-3",), **names)).epoch,
        execution._request(RejoinOldPrimary(action_id="rejoin", node_id="node-1", **names)).epoch,
    ]
