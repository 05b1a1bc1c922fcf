"""Collecting evidence: who is silent, and when that is this process's own doing."""

from __future__ import annotations

import time
from typing import Any

from qnwis.continuity.topology import Node
from qnwis.providers.errors import Unreachable
from qnwis.providers.evidence import collect_evidence
from tests.integration.continuity.world import World, three_nodes


class Asked:
    """A world whose questions are counted; `stands_still_s` once, before the first answer."""

    def __init__(self, world: World, stands_still_s: float) -> None:
        self._world, self._stands_still_s = world, stands_still_s
        self.times = 0

    async def state(self, node: Node, *, timeout_s: float) -> Any:
        self.times += 1
        if self.times <= len(self._world.machines) and self._stands_still_s:
            time.sleep(self._stands_still_s)  # noqa: ASYNC251 (the loop stands still: that is what is tested)
            raise Unreachable("too late")
        return await self._world.state(node, timeout_s=timeout_s)


async def collected(*dead: str, stands_still_s: float = 0.0) -> tuple[Asked, list[str]]:
    """What was asked, and who was silent."""
    world = World.of(three_nodes("c"))
    for node_id in dead:
        world.kill(node_id)
    nodes: Any = Asked(world, stands_still_s)
    evidence = await collect_evidence(nodes, world.cluster)
    return nodes, [one.node_id for one in evidence.nodes if one.state is None]


async def test_a_standby_that_streams_from_nobody_is_seen_as_degraded_while_the_primary_writes() -> None:
    world = World.of(three_nodes("c"))
    world.machines["node-2"].upstream = None
    nodes: Any = Asked(world, stands_still_s=0.0)
    found = {one.node_id: one.status.value for one in (await collect_evidence(nodes, world.cluster)).nodes}
    assert found == {"node-1": "healthy", "node-2": "degraded", "node-3": "healthy"}
    world.kill("node-1")
    found = {one.node_id: one.status.value for one in (await collect_evidence(nodes, world.cluster)).nodes}
    assert found == {"node-1": "unknown", "node-2": "healthy", "node-3": "healthy"}


async def test_a_dead_node_is_asked_once() -> None:
    nodes, silent = await collected("node-1")
    assert (nodes.times, silent) == (3, ["node-1"])


async def test_who_was_not_heard_while_this_process_stood_still_is_asked_again() -> None:
    nodes, silent = await collected("node-1", stands_still_s=0.3)
    assert (nodes.times, silent) == (6, ["node-1"])
