"""Upkeep: what the agents say of archives, logical slots and backups."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import httpx
from pydantic import ValidationError

from qnwis.continuity.topology import Cluster, Node
from qnwis.continuity.upkeep import Upkeep
from qnwis.transport import Transport

ANSWER_WITHIN_S = 15.0
"""Whoever makes the backups may have to be asked far away."""


class Upkeeps(Protocol):
    async def of(self, cluster: Cluster) -> Mapping[str, Upkeep]:
        """By node_id; without nodes that do not say it."""
        ...


@dataclass(frozen=True)
class AskedUpkeeps:
    """Asks each agent beside a database."""

    transport: Transport

    async def of(self, cluster: Cluster) -> Mapping[str, Upkeep]:
        nodes = [node for node in cluster.nodes if node.has_agent and node.holds_data]
        async with self.transport.agents(timeout_s=ANSWER_WITHIN_S) as client:
            said = await asyncio.gather(*(_asked(client, node) for node in nodes))
        return {node.node_id: one for node, one in zip(nodes, said, strict=True) if one is not None}


async def _asked(client: httpx.AsyncClient, node: Node) -> Upkeep | None:
    try:
        answer = await client.get(f"{node.agent_url}/upkeep")
        return Upkeep.model_validate_json(answer.raise_for_status().content)
    except (httpx.HTTPError, ValidationError):
        return None
