"""Bringing a node back is done when its state says that it streams, whatever its agent's receipt says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.rejoining import BringBack, Rejoining
from qnwis.continuity.evidence import NodeState
from qnwis.continuity.executor import Outcome, OutcomeStatus
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


async def brought_back(world: World) -> Outcome:
    registry: Any = SimpleNamespace(load=lambda cluster_id: SimpleNamespace(cluster=world.cluster))
    hook: Any = None
    outcome: Outcome = await ActivityEnvironment().run(
        Rejoining(registry, world, hook).bring_back, BringBack(cluster_id="c", node_id="node-2", by="test")
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
