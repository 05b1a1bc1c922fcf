"""Nodes of every kind: with an agent, under Patroni, or of an application. The topology says which."""

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
from .http_application import HttpApplications
from .nodes import HttpNodes, Probe
from .patroni import HttpPatroni
from .probe_errors import ANSWER, error_type, http_error

PATRONI_PATHS = {"/health/live": "/liveness", "/health/ready": "/health", "/health/deep": "/health"}
"""What Patroni has in place of an agent's health questions: its loop runs; its PostgreSQL runs."""


class AllNodes:
    """See `nodes.Nodes`. A node under Patroni or of an application has a state and its health; nobody there
    takes an agent's order."""

    def __init__(
        self,
        transport: Transport,
        patroni: HttpPatroni | None = None,
        applications: HttpApplications | None = None,
    ) -> None:
        self._agents = HttpNodes(transport)
        self._applications = applications or HttpApplications(transport)
        self._patroni = patroni or HttpPatroni(transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._agents.aclose()
        await self._patroni.aclose()
        await self._applications.aclose()

    async def state(self, node: Node, *, timeout_s: float) -> NodeState:
        if node.http is not None:
            return await self._applications.state(node, timeout_s=timeout_s)
        if node.patroni is None:
            return await self._agents.state(node, timeout_s=timeout_s)
        return await self._patroni.state(node, timeout_s=timeout_s)

    async def probe(self, node: Node, path: str, *, timeout_s: float) -> Probe:
        if node.http is not None:
            return await self._probe_application(node, timeout_s=timeout_s)
        if node.patroni is None:
            return await self._agents.probe(node, path, timeout_s=timeout_s)
        asked, began = PATRONI_PATHS[path], perf_counter()
        try:
            status = (await self._patroni.answers(node, asked, timeout_s=timeout_s)).status_code
        except Unreachable as error:
            return Probe(False, (perf_counter() - began) * 1000, str(error), error_type(error))
        took_ms = (perf_counter() - began) * 1000
        if status == 200:
            return Probe(True, took_ms)
        return Probe(False, took_ms, f"Patroni answered GET {asked} with {status}", http_error(status))

    async def _probe_application(self, node: Node, *, timeout_s: float) -> Probe:
        """Its state is its health: it answers as the topology says that it does."""
        began = perf_counter()
        try:
            await self._applications.state(node, timeout_s=timeout_s)
        except Unreachable as error:
            # Without a cause it did answer, and not as the topology says.
            kind = ANSWER if error.__cause__ is None else error_type(error)
            return Probe(False, (perf_counter() - began) * 1000, str(error), kind)
        return Probe(True, (perf_counter() - began) * 1000)

    async def events(self, node: Node) -> AsyncGenerator[NodeEvent, None]:
        if not node.has_agent:
            raise Unreachable(f"no agent of {node.node_id} tells of events; it is asked at each beat")
        async for event in self._agents.events(node):
            yield event

    async def order(self, node: Node, order: AnyOrder, *, timeout_s: float) -> Receipt:
        _refuse_without_agent(node, order.kind)
        return await self._agents.order(node, order, timeout_s=timeout_s)

    async def promise(self, node: Node, request: PromiseRequest, *, timeout_s: float) -> Promised:
        _refuse_without_agent(node, "promise an epoch")
        return await self._agents.promise(node, request, timeout_s=timeout_s)

    async def withdraw(self, node: Node, withdrawal: Withdrawal, *, timeout_s: float) -> None:
        _refuse_without_agent(node, "let go of an epoch")
        await self._agents.withdraw(node, withdrawal, timeout_s=timeout_s)

    async def membership(self, node: Node, *, timeout_s: float) -> MembershipView:
        if not node.has_agent:
            raise Unreachable(f"{node.node_id} has no agent, and is in no membership")
        return await self._agents.membership(node, timeout_s=timeout_s)

    async def force_membership(self, node: Node, adopted: Adopted, *, timeout_s: float) -> MembershipView:
        _refuse_without_agent(node, "follow a membership")
        return await self._agents.force_membership(node, adopted, timeout_s=timeout_s)


def _refuse_without_agent(node: Node, what: str) -> None:
    """Raises Refused where no agent is: a node under Patroni is never promoted, demoted or re-pointed behind
    it, and an application is asked by its own means."""
    if node.http is not None:
        raise Refused(
            Refusal(
                rule="managed_by_http",
                message=f"{node.node_id} runs an application with manager: http; no agent is there to {what}",
                values={"node_id": node.node_id},
                remedy="Ask the application's own demote and promote.",
            )
        )
    if node.patroni is not None:
        raise Refused(
            Refusal(
                rule="managed_by_patroni",
                message=f"{node.node_id} is under Patroni; no agent is there to {what}",
                values={"node_id": node.node_id},
                remedy="Have Patroni do it.",
            )
        )
