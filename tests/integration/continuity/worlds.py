"""Several clusters in memory, behind the same protocols: what a region's evacuation sees."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qnwis.continuity.evidence import NodeEvent
from qnwis.continuity.topology import Cluster, DnsService, FencingHook, Node
from qnwis.providers.fencing import HookAnswer

from .world import World, write_registry


@dataclass(frozen=True)
class Worlds:
    """A world for each cluster; a node, a zone and a power switch belong to exactly one."""

    by_cluster: dict[str, World]

    def of_node(self, node_id: str) -> World:
        return next(world for world in self.by_cluster.values() if node_id in world.machines)

    def __getattr__(self, name: str) -> Any:
        """A question about a node goes to the world that has it, one about a record to the zone's."""

        async def asked(what: Any, *arguments: Any, **more: Any) -> Any:
            world = self.of_zone(what) if isinstance(what, DnsService) else self.of_node(what.node_id)
            return await getattr(world, name)(what, *arguments, **more)

        return asked

    def of_zone(self, service: DnsService) -> World:
        return next(world for world in self.by_cluster.values() if world.cluster.dns == service)

    async def events(self, node: Node) -> AsyncIterator[NodeEvent]:
        async for event in self.of_node(node.node_id).events(node):
            yield event

    async def switch(
        self, hook: FencingHook, node_id: str, state: Literal["off", "on"], effect_id: str
    ) -> HookAnswer:
        return await self.of_node(node_id).switch(hook, node_id, state, effect_id)


def cluster_of(
    name: str, *, home: str = "region-1", away: str = "region-2", vantages: tuple[str, ...] = ()
) -> Cluster:
    """Primary and a standby at home, two standbys away, a witness in a third region."""
    node = {"role": "secondary", "region": home, "site": "a", "status": "healthy"}
    return Cluster.model_validate(
        {
            "cluster_id": name,
            "name": name,
            "regions": [home, away, "region-3"],
            "nodes": [
                {**node, "node_id": f"{name}-1", "hostname": "10.0.1.1", "role": "primary"},
                {**node, "node_id": f"{name}-2", "hostname": "10.0.1.2", "priority": 90},
                {**node, "node_id": f"{name}-3", "hostname": "10.0.1.3", "region": away},
                {**node, "node_id": f"{name}-4", "hostname": "10.0.1.4", "region": away},
                {
                    **node,
                    "node_id": f"{name}-5",
                    "hostname": "10.0.1.5",
                    "region": "region-3",
                    "role": "witness",
                },
            ],
            **({"vantages": vantages} if vantages else {}),
            "vantage_regions": dict.fromkeys(vantages, "region-3"),
            "heartbeat": {"interval_sec": 0.2, "timeout_sec": 0.2, "failure_threshold": 3},
            "dns": {"zone": f"{name}.test", "name": "db", "ttl_s": 0, "servers": ["127.0.0.1:53"]},
        }
    )


def registered(directory: Path, clusters: list[Cluster], **policy: object) -> Worlds:
    """Write their files, and make their worlds."""
    for cluster in clusters:
        write_registry(directory, cluster, min_healthy_nodes=1, **policy)
    worlds = Worlds({cluster.cluster_id: World.of(cluster) for cluster in clusters})
    for world in worlds.by_cluster.values():
        for machine in world.machines.values():
            machine.epoch = machine.held = 1  # as in a cluster that serves
    return worlds
