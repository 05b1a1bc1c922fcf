"""Nodes: the HTTP client of the node agents. Source of the API: `qnwis.agent.server`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import httpx
from pydantic import ValidationError

from qnwis.continuity.evidence import NodeEvent, NodeState
from qnwis.continuity.lease_messages import Promised, PromiseRequest, Withdrawal
from qnwis.continuity.membership import Adopted, AnyChange, MembershipView
from qnwis.continuity.model import Model
from qnwis.continuity.orders import AnyOrder, Receipt
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import Node
from qnwis.requests_at_large import RequestsAtLarge
from qnwis.transport import Transport

from .asking import FAILED, Asker
from .errors import Refused, Unreachable
from .probe_errors import error_type, http_error

M = TypeVar("M", bound=Model)


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
        self._connect_timeout_s = transport.connect_timeout_s
        self._client = transport.agents(timeout_s=transport.connect_timeout_s)
        self._asker = Asker(transport)
        self._questions = RequestsAtLarge()

    async def aclose(self) -> None:
        self._questions.cancel()
        await self._client.aclose()
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
        if response.status_code != httpx.codes.OK:
            raise Unreachable(_unexpected(node, what, response.status_code, response.text))
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise Unreachable(f"{_party(node)} answered {what} with something else: {error}") from error

    async def _post(self, node: Node, path: str, body: Model, kind: type[M], *, timeout_s: float) -> M:
        """The answer of that kind. Raises Refused with the agent's refusal, or Unreachable."""
        what = f"POST {path}"
        # An agent of an earlier version refuses fields it does not know, those that say nothing too.
        content = body.model_dump_json(exclude_none=True).encode()
        response = await self._ask("POST", node, path, timeout_s=timeout_s, content=content)
        try:
            if response.status_code == httpx.codes.OK:
                return kind.model_validate_json(response.content)
            if response.status_code in (httpx.codes.CONFLICT, httpx.codes.UNPROCESSABLE_ENTITY):
                raise Refused(Refusal.model_validate_json(response.content))
        except ValidationError as error:
            raise Unreachable(f"{_party(node)} answered {what} with something else: {error}") from error
        raise Unreachable(_unexpected(node, what, response.status_code, response.text))

    async def probe(self, node: Node, path: str, *, timeout_s: float) -> Probe:
        began = time.perf_counter()

        def ended(error: str | None = None, kind: str | None = None) -> Probe:
            return Probe(error is None, (time.perf_counter() - began) * 1000, error, kind)

        try:
            answered = await self._asker.get(node.agent_url, path, timeout_s=timeout_s)
        except FAILED as error:
            return ended(_no_answer(node, "GET", path, timeout_s, error), error_type(error))
        if answered.status != httpx.codes.OK:
            why = _unexpected(node, f"GET {path}", answered.status, answered.text)
            return ended(why, http_error(answered.status))
        return ended()

    async def events(self, node: Node) -> AsyncGenerator[NodeEvent, None]:
        # No read timeout: silence is normal here. A dead agent ends the stream, and so does the kernel where
        # nobody is at its other end any more (see KEPT_ALIVE).
        timeout = httpx.Timeout(None, connect=self._connect_timeout_s)
        try:
            async with self._client.stream("GET", node.agent_url + "/events", timeout=timeout) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    raise Unreachable(_unexpected(node, "GET /events", response.status_code, response.text))
                async for line in response.aiter_lines():
                    yield NodeEvent.model_validate_json(line)
        except (httpx.HTTPError, ValidationError) as error:
            raise Unreachable(f"{_party(node)}: GET /events failed ({_why(error)})") from error
        raise Unreachable(f"{_party(node)} ended its events; it stopped or was killed")

    async def _ask(
        self, method: str, node: Node, path: str, *, timeout_s: float, content: bytes | None = None
    ) -> httpx.Response:
        timeout = httpx.Timeout(timeout_s, connect=min(self._connect_timeout_s, timeout_s))
        headers = {"content-type": "application/json"} if content is not None else None
        asked = self._client.request(
            method, node.agent_url + path, content=content, headers=headers, timeout=timeout
        )
        try:
            # httpx bounds each phase; this bounds the whole.
            if method == "GET":
                return await self._questions.within(timeout_s, asked)
            async with asyncio.timeout(timeout_s):
                return await asked  # an order must not set out when nobody waits for it any more
        except (httpx.HTTPError, TimeoutError) as error:
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


def _unexpected(node: Node, what: str, status: int, text: str) -> str:
    return f"{_party(node)} answered {what} with status {status}: {text[:500]}"
