"""Nodes: the HTTP client of the node agents. Source of the API: `qnwis.agent.server`."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from pydantic import ValidationError

from qnwis.continuity.evidence import NodeEvent, NodeState
from qnwis.continuity.lease_messages import Promised, PromiseRequest, Withdrawal
from qnwis.continuity.membership import Adopted, AnyChange, MembershipView
from qnwis.continuity.model import Model
from qnwis.continuity.orders import AnyOrder, Receipt
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import Node
from qnwis.transport import Transport

from .asking import FAILED, Answered, Asker
from .errors import Refused, Unreachable
from .probe_errors import error_type, http_error

M = TypeVar("M", bound=Model)

OK, CONFLICT, UNPROCESSABLE = 200, 409, 422
"""Statuses: done; refused, as it cannot be now; refused, as it can never be."""


@dataclass(frozen=True)
class Probe:
    """One health question and how it ended."""

    ok: bool
    """The answer came in time and was 200."""
    latency_ms: float
    """Until the answer or the failure."""
    error: str | None = None
    """Why not ok, for a person."""
    error_type: str | None = None
    """Stable name: `http_<status>`, or one of `probe_errors.TYPES`."""


class Nodes(Protocol):
    """What runs need of nodes. `timeout_s` bounds each call as a whole, seconds."""

    async def state(self, node: Node, *, timeout_s: float) -> NodeState:
        """What the agent says of its database. Raises Unreachable."""
        ...

    async def order(self, node: Node, order: AnyOrder, *, timeout_s: float) -> Receipt:
        """Have an order carried out. Raises Refused (nothing changed) or Unreachable (it may have)."""
        ...

    async def promise(self, node: Node, request: PromiseRequest, *, timeout_s: float) -> Promised:
        """Have an epoch promised to a run. Raises Refused or Unreachable."""
        ...

    async def withdraw(self, node: Node, withdrawal: Withdrawal, *, timeout_s: float) -> None:
        """Tell that a run gave its epoch up. Raises Unreachable."""
        ...

    async def membership(self, node: Node, *, timeout_s: float) -> MembershipView:
        """What the agent knows of the membership. Raises Unreachable."""
        ...

    async def force_membership(self, node: Node, adopted: Adopted, *, timeout_s: float) -> MembershipView:
        """Have a membership followed that no majority agreed to. Raises Refused or Unreachable."""
        ...

    async def probe(self, node: Node, path: str, *, timeout_s: float) -> Probe:
        """Ask a health path. Never raises."""
        ...

    def events(self, node: Node) -> AsyncIterator[NodeEvent]:
        """The agent's events: one at once, one at each change. Raises Unreachable when the stream ends."""
        ...


class HttpNodes:
    """Nodes over the agents' HTTP API, on pooled keep-alive connections. Belongs to one event loop."""

    def __init__(self, transport: Transport) -> None:
        self._asker = Asker(transport)

    async def aclose(self) -> None:
        await self._asker.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def state(self, node: Node, *, timeout_s: float) -> NodeState:
        state = await self._get(node, "/state", NodeState, timeout_s=timeout_s)
        if state.node_id != node.node_id:
            raise Unreachable(
                f"{_party(node)} says that it is {state.node_id!r}; check the endpoint of {node.node_id}"
            )
        return state

    async def order(self, node: Node, order: AnyOrder, *, timeout_s: float) -> Receipt:
        return await self._post(node, "/orders", order, Receipt, timeout_s=timeout_s)

    async def promise(self, node: Node, request: PromiseRequest, *, timeout_s: float) -> Promised:
        return await self._post(node, "/lease/promise", request, Promised, timeout_s=timeout_s)

    async def withdraw(self, node: Node, withdrawal: Withdrawal, *, timeout_s: float) -> None:
        await self._post(node, "/lease/withdraw", withdrawal, Withdrawal, timeout_s=timeout_s)

    async def membership(self, node: Node, *, timeout_s: float) -> MembershipView:
        return await self._get(node, "/membership", MembershipView, timeout_s=timeout_s)

    async def force_membership(self, node: Node, adopted: Adopted, *, timeout_s: float) -> MembershipView:
        return await self._post(node, "/membership/force", adopted, MembershipView, timeout_s=timeout_s)

    async def change_membership(self, node: Node, wanted: AnyChange, *, timeout_s: float) -> MembershipView:
        """Have the holder of the lease carry a change through. Raises Refused or Unreachable."""
        return await self._post(node, "/membership/change", wanted, MembershipView, timeout_s=timeout_s)

    async def _get(self, node: Node, path: str, kind: type[M], *, timeout_s: float) -> M:
        what = f"GET {path}"
        response = await self._ask("GET", node, path, timeout_s=timeout_s)
        if response.status != OK:
            raise Unreachable(_unexpected(node, what, response))
        try:
            return kind.model_validate_json(response.body)
        except ValidationError as error:
            raise Unreachable(f"{_party(node)} answered {what} with something else: {error}") from error

    async def _post(self, node: Node, path: str, body: Model, kind: type[M], *, timeout_s: float) -> M:
        """The answer of that kind. Raises Refused with the agent's refusal, or Unreachable."""
        what = f"POST {path}"
        # An agent of an earlier version refuses fields it does not know, those that say nothing too.
        content = body.model_dump_json(exclude_none=True).encode()
        response = await self._ask("POST", node, path, timeout_s=timeout_s, content=content)
        try:
            if response.status == OK:
                return kind.model_validate_json(response.body)
            if response.status in (CONFLICT, UNPROCESSABLE):
                raise Refused(Refusal.model_validate_json(response.body))
        except ValidationError as error:
            raise Unreachable(f"{_party(node)} answered {what} with something else: {error}") from error
        raise Unreachable(_unexpected(node, what, response))

    async def probe(self, node: Node, path: str, *, timeout_s: float) -> Probe:
        began = time.perf_counter()

        def ended(error: str | None = None, kind: str | None = None) -> Probe:
            return Probe(error is None, (time.perf_counter() - began) * 1000, error, kind)

        try:
            answered = await self._asker.ask("GET", node.agent_url, path, timeout_s=timeout_s)
        except FAILED as error:
            return ended(_no_answer(node, "GET", path, timeout_s, error), error_type(error))
        if answered.status != OK:
            why = _unexpected(node, f"GET {path}", answered)
            return ended(why, http_error(answered.status))
        return ended()

    async def events(self, node: Node) -> AsyncGenerator[NodeEvent, None]:
        try:
            async with self._asker.stream(node.agent_url, "/events") as response:
                if response.status != OK:
                    answered = Answered(response.status, await response.read())
                    raise Unreachable(_unexpected(node, "GET /events", answered))
                async for line in response.content:
                    yield NodeEvent.model_validate_json(line)
        except (*FAILED, ValueError) as error:  # also of a line that is no event, or without end
            raise Unreachable(f"{_party(node)}: GET /events failed ({_why(error)})") from error
        raise Unreachable(f"{_party(node)} ended its events; it stopped or was killed")

    async def _ask(
        self, method: str, node: Node, path: str, *, timeout_s: float, content: bytes | None = None
    ) -> Answered:
        try:
            return await self._asker.ask(method, node.agent_url, path, timeout_s=timeout_s, content=content)
        except FAILED as error:
            raise Unreachable(_no_answer(node, method, path, timeout_s, error)) from error


def _party(node: Node) -> str:
    return f"agent of {node.node_id} at {node.agent_url}"


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _no_answer(node: Node, method: str, path: str, timeout_s: float, error: Exception) -> str:
    return (
        f"{_party(node)} did not answer {method} {path} within {timeout_s:g} s ({_why(error)});"
        " check that the agent runs and can be reached from here"
    )


def _unexpected(node: Node, what: str, answered: Answered) -> str:
    return f"{_party(node)} answered {what} with status {answered.status}: {answered.text[:500]}"
