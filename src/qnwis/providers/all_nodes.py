"""Nodes of either kind: with an agent, or under Patroni. The topology says of each which it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from time import perf_counter
from typing import Self

from qnwis.continuity.evidence import NodeEvent, NodeState
from qnwis.continuity.lease_messages import Promised, PromiseRequest, Withdrawal
from qnwis.continuity.membership import Adopted, MembershipView
from qnwis.continuity.orders import AnyOrder, Receipt
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import Node
from qnwis.transport import Transport

from .errors import Refused, Unreachable
from .nodes import HttpNodes, Probe
from .patroni import HttpPatroni

PATRONI_PATHS = {"/health/live": "/liveness", "/health/ready": "/health", "/health/deep": "/health"}
"""What Patroni has in place of an agent's health questions: its loop runs; its PostgreSQL runs."""


class AllNodes:
    """See `nodes.Nodes`. A node under Patroni has a state and its health; nobody there takes an agent's
    order."""

    def __init__(self, transport: Transport, patroni: HttpPatroni | None = None) -> None:
        self._agents = HttpNodes(transport)
        self._patroni = patroni or HttpPatroni(transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._agents.aclose()
        await self._patroni.aclose()

    async def state(self, node: Node, *, timeout_s: float) -> NodeState:
        if node.patroni is None:
            return await self._agents.state(node, timeout_s=timeout_s)
        return await self._patroni.state(node, timeout_s=timeout_s)

    async def probe(self, node: Node, path: str, *, timeout_s: float) -> Probe:
        if node.patroni is None:
            return await self._agents.probe(node, path, timeout_s=timeout_s)
        asked, began = PATRONI_PATHS[path], perf_counter()
        try:
            status = (await self._patroni.answers(node, asked, timeout_s=timeout_s)).status_code
        except Unreachable as error:
            return Probe(False, (perf_counter() - began) * 1000, str(error), type(error.__cause__).__name__)
        took_ms = (perf_counter() - began) * 1000
        if status == 200:
            return Probe(True, took_ms)
        return Probe(False, took_ms, f"Patroni answered GET {asked} with {status}", f"http_{status}")

    async def events(self, node: Node) -> AsyncGenerator[NodeEvent, None]:
        if node.patroni is not None:
            raise Unreachable(f"Patroni of {node.node_id} tells of no events; it is asked at each beat")
        async for event in self._agents.events(node):
            yield event

    async def order(self, node: Node, order: AnyOrder, *, timeout_s: float) -> Receipt:
        _refuse_patroni(node, order.kind)
        return await self._agents.order(node, order, timeout_s=timeout_s)

    async def promise(self, node: Node, request: PromiseRequest, *, timeout_s: float) -> Promised:
        _refuse_patroni(node, "promise an epoch")
        return await self._agents.promise(node, request, timeout_s=timeout_s)

    async def withdraw(self, node: Node, withdrawal: Withdrawal, *, timeout_s: float) -> None:
        _refuse_patroni(node, "let go of an epoch")
        await self._agents.withdraw(node, withdrawal, timeout_s=timeout_s)

    async def membership(self, node: Node, *, timeout_s: float) -> MembershipView:
        if node.patroni is not None:
            raise Unreachable(f"{node.node_id} is under Patroni, and in no membership")
        return await self._agents.membership(node, timeout_s=timeout_s)

    async def force_membership(self, node: Node, adopted: Adopted, *, timeout_s: float) -> MembershipView:
        _refuse_patroni(node, "follow a membership")
        return await self._agents.force_membership(node, adopted, timeout_s=timeout_s)


def _refuse_patroni(node: Node, what: str) -> None:
    """Raises Refused: a node under Patroni is never promoted, demoted or re-pointed behind it."""
    if node.patroni is not None:
        raise Refused(
            Refusal(
                rule="managed_by_patroni",
                message=f"{node.node_id} is under Patroni; no agent is there to {what}",
                values={"node_id": node.node_id},
                remedy="Have Patroni do it.",
            )
        )
