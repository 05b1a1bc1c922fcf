"""Plays one story in simulated time."""

from __future__ import annotations

from qnwis.lab.history import History, Kind, by_time
from tests.chaos.facts import Facts, Thaw
from tests.chaos.story import Story

from .world import Mistakes, World

BEFORE_S = 1.0
"""Simulated time for the cluster to come up before the story begins."""
SERVES_WITHIN_S = 1.5
"""At the end, a write through the name was acknowledged within this."""


def play(story: Story, seed: int, mistakes: Mistakes | None = None) -> tuple[History, Facts]:
    """What the clients saw, and what else is known. The same story and seed give the same."""
    world = World(story, seed, -BEFORE_S, mistakes or Mistakes())
    world.start()
    world.kernel.run(0.0)
    world.clients.start()
    for operation in story.operations:
        world.kernel.run(operation.at_s)
        world.do(operation)
    world.kernel.run(story.ends_at_s)
    return by_time(world.clients.events), _facts(world)


def _facts(world: World) -> Facts:
    databases = world.shared.databases
    writable = [node_id for node_id in world.shared.served if databases[node_id].writable]
    at_end = next(reversed(writable or world.shared.served), None)
    since_s = world.story.ends_at_s - SERVES_WITHIN_S
    served = any(
        e.at_s >= since_s and e.kind is Kind.ACKNOWLEDGED and not e.pinned
        for e in reversed(world.clients.events)
    )
    effects = [effect for node in world.nodes.values() for effect in node.disk.changes]
    return Facts(
        replication=world.story.cluster.replication,
        max_lag_bytes=world.policy.max_lag_bytes,
        first_primary="node-1",
        primary_at_end=at_end,
        writable_at_end=served and bool(writable),
        promotions=tuple(world.shared.promotions),
        rows=world.shared.rows.of(databases[at_end].position) if writable and at_end else None,
        effects=(*effects, *world.nameserver.changes),
        runs=tuple(world.guardian.ended),
        held_by=tuple(world.guardian.held_by),
        thawed=tuple(
            Thaw(node_id=node.node_id, at_s=at_s)
            for node in world.nodes.values()
            for at_s in node.thawed_whole_s
        ),
    )
