"""An application that brings its own promote and demote: the HTTP client that asks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import httpx
from pydantic import JsonValue

from qnwis.continuity.evidence import NodeState
from qnwis.continuity.http_application import SECRET_FILE, HttpApplication, HttpEndpoint, HttpState
from qnwis.continuity.http_headers import IDEMPOTENCY_HEADER
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import Node, NodeRole
from qnwis.transport import Transport

from .errors import Refused, Unreachable
from .other_clients import OtherClients

KEPT = 300
"""Characters of an answer that a message repeats."""
HIDDEN = "***"

Change = Literal["demote", "promote"]


class Applications(Protocol):
    """What runs need of applications. Raises Unreachable where it is not known whether something was done."""

    async def state(self, node: Node, *, timeout_s: float) -> NodeState: ...

    async def change(self, node: Node, what: Change, *, effect_id: str) -> str:
        """Have the node's application demote or promote itself; what it answered, in words. Raises Refused
        where it answers that the request is wrong (400 to 499)."""
        ...


class Answer(NamedTuple):
    status: int
    body: bytes
    said: str
    """The beginning of the body, for people, without a secret."""


class HttpApplications:
    """Applications as their topologies describe them, on pooled connections. Belongs to one event loop."""

    def __init__(self, transport: Transport) -> None:
        self._clients = OtherClients(transport)

    async def aclose(self) -> None:
        await self._clients.aclose()

    async def state(self, node: Node, *, timeout_s: float) -> NodeState:
        """What the application says. Raises Unreachable, for an answer too that says not all it should."""
        asked = _application(node).state
        got = await self._ask(node, "GET", asked, {}, timeout_s)
        party = f"GET {_url(node, asked)}"
        if got.status != asked.expect_status:
            raise Unreachable(f"{party}: status {got.status}, not {asked.expect_status}: {got.said}")
        try:
            answer = json.loads(got.body)
        except ValueError as error:
            raise Unreachable(f"{party}: the answer is no JSON: {got.said}") from error
        return state_of(node, asked, answer, party)

    async def change(self, node: Node, what: Change, *, effect_id: str) -> str:
        application = _application(node)
        order = application.demote if what == "demote" else application.promote
        headers = {IDEMPOTENCY_HEADER: effect_id}
        got = await self._ask(node, order.method, order, headers, application.answer_s)
        told = f"{order.method} {_url(node, order)} answered {got.status}: {got.said}"
        if got.status == order.expect_status:
            return told
        if 400 <= got.status <= 499:
            raise Refused(
                Refusal(
                    rule="application_refused",
                    message=f"The application of {node.node_id} refuses: {told}",
                    values={"node_id": node.node_id, "status": got.status},
                    remedy=f"Remove what it names; check http.{what} of {node.node_id} in cluster.yaml.",
                )
            )
        raise Unreachable(f"{told}, expected {order.expect_status}")

    async def _ask(
        self, node: Node, method: str, asked: HttpEndpoint, more: Mapping[str, str], timeout_s: float
    ) -> Answer:
        headers, url = await asyncio.to_thread(_headers, node, asked), _url(node, asked)
        secrets = [headers[name] for name, value in asked.headers.items() if SECRET_FILE.fullmatch(value)]
        ca_file = _application(node).ca_file
        try:
            response = await self._clients.ask(
                method, url, ca_file=ca_file, timeout_s=timeout_s, headers={**headers, **more}
            )
            return Answer(response.status_code, response.content, _said(response.text, secrets))
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, ValueError) as error:
            # A header that cannot be sent would be repeated with its value.
            why = (
                type(error).__name__ if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            )
            raise Unreachable(f"{method} {url}: no answer within {timeout_s:g} s ({why})") from error


def state_of(node: Node, asked: HttpState, answer: JsonValue, party: str) -> NodeState:
    """Raises Unreachable where the answer does not say what it should; missing data means no."""
    writable = at_pointer(answer, asked.writable)
    if not isinstance(writable, bool):
        raise Unreachable(f"{party}: {asked.writable} is {_shown(writable)}, expected true or false")
    position = None if asked.position is None else at_pointer(answer, asked.position)
    if asked.position is not None and (not isinstance(position, int) or isinstance(position, bool)):
        raise Unreachable(f"{party}: {asked.position} is {_shown(position)}, expected a whole number")
    return NodeState(
        node_id=node.node_id,
        role=NodeRole.PRIMARY if writable else NodeRole.SECONDARY,
        database_up=True,
        writable=writable,
        position=position if isinstance(position, int) else None,
    )


def at_pointer(answer: JsonValue, pointer: str) -> JsonValue:
    """What a JSON pointer (RFC 6901) leads to; None where it leads nowhere."""
    found = answer
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found


def _application(node: Node) -> HttpApplication:
    assert node.http is not None, "the topology demands it"
    return node.http


def _url(node: Node, asked: HttpEndpoint) -> str:
    return asked.url_of(node.node_id, node.hostname)


def _headers(node: Node, asked: HttpEndpoint) -> dict[str, str]:
    """Raises Unreachable for a file that this worker cannot read; another worker may."""
    return {name: _value(node, name, value) for name, value in asked.headers.items()}


def _value(node: Node, name: str, value: str) -> str:
    named = SECRET_FILE.fullmatch(value)
    if named is None:
        return value
    try:
        held = Path(named[1]).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(node, name, named[1], f"{type(error).__name__}") from error
    if not held or not held.isascii() or not held.isprintable():
        raise _unusable(node, name, named[1], "it does not hold one line of ASCII text")
    return held


def _unusable(node: Node, name: str, file: str, why: str) -> Unreachable:
    return Unreachable(f"header {name} for the application of {node.node_id}: {file} on this worker: {why}")


def _said(text: str, secrets: list[str]) -> str:
    """An application may repeat what it was sent; `Bearer x` without its first word, too."""
    for secret in sorted({part for each in secrets for part in (each, *each.split()[1:])}, key=len)[::-1]:
        text = text.replace(secret, HIDDEN)
    return " ".join(text.split())[:KEPT] or "(empty body)"


def _shown(value: JsonValue) -> str:
    return "missing" if value is None else repr(value)[:60]
