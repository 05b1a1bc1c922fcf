"""Looking at nodes that were given up: whether they have given way."""

from __future__ import annotations

import asyncio

from temporalio import activity

from qnwis.config.registry import Registry
from qnwis.continuity.membership import MembershipView
from qnwis.continuity.model import Model
from qnwis.continuity.review import gave_way
from qnwis.continuity.topology import Node
from qnwis.providers.errors import Unreachable
from qnwis.providers.nodes import Nodes

ANSWER_WITHIN_S = 2.0


class LookRequest(Model):
    cluster_id: str
    lost: tuple[str, ...]


class Settled(Model):
    nodes: dict[str, str]
    """node_id, and how it is known that the node takes no part."""


class Reviews:
    def __init__(self, registry: Registry, nodes: Nodes) -> None:
        self._registry = registry
        self._nodes = nodes

    @activity.defn
    async def look(self, request: LookRequest) -> Settled:
        """Ask the lost nodes and the members. One that is silent, or not in the topology any more, settles
        nothing."""
        cluster = self._registry.load(request.cluster_id).cluster
        views = await asyncio.gather(*(self._view(node) for node in cluster.nodes))
        seen = [view for view in views if view is not None]
        members = [view for view in seen if view.node_id not in request.lost]
        newest = max(members, key=lambda view: view.membership.version, default=None)
        return Settled(nodes=gave_way((view for view in seen if view.node_id in request.lost), newest))

    async def _view(self, node: Node) -> MembershipView | None:
        try:
            return await self._nodes.membership(node, timeout_s=ANSWER_WITHIN_S)
        except Unreachable:
            return None
