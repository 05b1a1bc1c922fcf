"""Bringing a node back is done when its state says that it streams, whatever its agent's receipt says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.rejoining import BringBack, Rejoining
from qnwis.continuity.evidence import NodeState
from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.orders import AnyOrder, Receipt
from qnwis.continuity.topology import Node
from qnwis.providers.errors import Unreachable
from tests.integration.continuity.world import World, three_nodes


class Slow(World):
    """node-2 replays its log for as long as it is told to."""

    replaying = True

    async def state(self, node: Node, *, timeout_s: float) -> NodeState:
        state = await super().state(node, timeout_s=timeout_s)
        replays = self.replaying and node.node_id == "node-2"
        return state.model_copy(update={"streaming": False}) if replays else state


class Forgetful(Slow):
    """Its agents answer an order that they know with the receipt of it, and node-2 follows by itself again
    whom it followed before."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.receipts: dict[str, Receipt] = {}

    async def order(self, node: Node, order: AnyOrder, *, timeout_s: float) -> Receipt:
        if order.effect_id not in self.receipts:
            self.receipts[order.effect_id] = await super().order(node, order, timeout_s=timeout_s)
        return self.receipts[order.effect_id]


async def brought_back(world: World, node_id: str = "node-2") -> Outcome:
    registry: Any = SimpleNamespace(load=lambda cluster_id: SimpleNamespace(cluster=world.cluster))
    hook: Any = None
    outcome: Outcome = await ActivityEnvironment().run(
        Rejoining(registry, world, hook).bring_back, BringBack(cluster_id="c", node_id=node_id, by="test")
    )
    return outcome


async def test_a_node_is_back_only_once_it_streams() -> None:
    world = Slow.of(three_nodes("c"))
    assert isinstance(world, Slow)
    world.machines["node-1"].epoch = 1
    with pytest.raises(Unreachable, match="node-2 does not stream from node-1: rejoin node-2"):
        await brought_back(world)
    world.replaying = False
    assert (await brought_back(world)).status is OutcomeStatus.SUCCEEDED


async def test_a_node_is_back_only_once_it_follows_who_is_the_primary_now() -> None:
    """The receipt of an order to follow the primary before is none for this one."""
    world = Forgetful.of(three_nodes("c"))
    assert isinstance(world, Forgetful)
    one, two, three = (world.machines[f"node-{number}"] for number in (1, 2, 3))
    one.epoch = 1
    with pytest.raises(Unreachable):
        await brought_back(world)

    one.primary, one.leased, one.on = False, False, False
    three.primary, three.upstream, three.leased, three.epoch = True, None, True, 2
    world.replaying = False
    assert (await brought_back(world)).status is OutcomeStatus.SUCCEEDED
    assert two.upstream == "node-3"

    two.upstream = "node-1"
    with pytest.raises(Unreachable, match="node-2 does not stream from node-3"):
        await brought_back(world)


async def test_a_node_that_was_taken_out_of_the_topology_is_refused() -> None:
    world = Slow.of(three_nodes("c"))
    world.machines["node-1"].epoch = 1
    outcome = await brought_back(world, "node-9")
    assert outcome.status is OutcomeStatus.FAILED
    assert outcome.facts["rule"] == "node_to_rejoin_unknown"
