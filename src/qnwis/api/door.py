"""The door: before anything else is looked at, who asks, and whether that is too often."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from time import monotonic

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qnwis.config.problem import ConfigError
from qnwis.continuity.identity import Identity
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.requests import Bucket, take, too_many
from qnwis.continuity.service_tokens import is_service_token
from qnwis.providers.errors import Unreachable
from qnwis.whereabouts import standing_at

from .parts import Parts
from .paths import named_in
from .problems import problem, unreachable

log = logging.getLogger(__name__)

LARGEST = 1_048_576
"""Bytes of a body."""
BODY_WITHIN_S = 60.0
"""A body that comes more slowly is refused: whoever waits for it holds one of few connections."""
WATCHED = 10_000
"""Identities and addresses whose requests are counted; the ones that asked longest ago are forgotten."""
OPEN = frozenset({"/health/live"})
"""Answers that tell nothing; so do the pages of the console."""
NOT_SHOWN = "Sign in again, or ask for a new service token."


class Counters:
    """How much each identity has asked of this process."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def refusal(self, parts: Parts, name: str) -> Refusal | None:
        bucket, wait_s = take(self._buckets.get(name), parts.settings.limits, monotonic())
        self._buckets[name] = bucket
        self._buckets.move_to_end(name)
        if len(self._buckets) > WATCHED:
            self._buckets.popitem(last=False)
        return too_many(name, parts.settings.limits, wait_s) if wait_s else None


class Door:
    """ASGI middleware. What passes has `identity` and `request_id` in its state."""

    def __init__(self, app: ASGIApp, parts: Parts, open_to_all: Iterable[str] = ()) -> None:
        self._app = app
        self._parts = parts
        self._open = OPEN.union(open_to_all)
        self._asked = Counters()
        self._failed = Counters()
        """By address: credentials that were not good."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req-{secrets.token_hex(8)}"
        with standing_at(request_id=request_id, **named_in(scope["path"])):
            await self._admit(scope, receive, send, request_id)

    async def _admit(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        sending = _Answering(send, request_id)
        if scope["path"] in self._open:
            await self._app(scope, receive, sending)
            return
        found = await self._identity(scope)
        refusal = found if isinstance(found, Refusal) else self._asked.refusal(self._parts, found.name)
        if refusal is None:
            state["identity"] = found
            await self._app(scope, _Bounded(receive), sending)
            return
        self._parts.alarms.saw(refusal.rule, _address(scope))
        await problem(refusal, request_id=request_id, path=scope["path"])(scope, receive, sending)

    async def _identity(self, scope: Scope) -> Identity | Refusal:
        address = _address(scope)
        kind, _, presented = Headers(scope=scope).get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not presented:
            return self._failed.refusal(self._parts, address) or Refusal(
                rule="credentials_missing",
                message="Every request names who sends it: Authorization: Bearer, a JWT or a service token",
                values={},
                remedy="Sign in, or ask for a service token (qnwis-continuity tokens issue).",
            )
        try:
            if is_service_token(presented):
                found = self._parts.tokens.identity(presented, self._parts.now())
            else:
                found = await self._parts.bearer.identity(presented)
        except Unreachable as error:
            return unreachable(str(error))
        except ConfigError as error:
            log.error("%s", error)
            return unreachable("The file of service tokens cannot be used; the API's log says why")
        if isinstance(found, Identity):
            return found
        log.warning("credentials from %s refused: %s", address, found)
        return self._failed.refusal(self._parts, address) or Refusal(
            rule="credentials_refused", message=f"Not let in: {found}", values={}, remedy=NOT_SHOWN
        )


def _address(scope: Scope) -> str:
    return f"address {(scope.get('client') or ('unknown', 0))[0]}"


class _Bounded:
    """Gives a body on until it is too large, or too slow."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._got = 0
        self._until_s: float | None = asyncio.get_running_loop().time() + BODY_WITHIN_S
        """None once it is whole: what is waited for then is that whoever asked goes away."""

    async def __call__(self) -> Message:
        # What is raised is answered as every refusal is (`app.py`).
        try:
            async with asyncio.timeout_at(self._until_s):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408) from None
        self._got += len(message.get("body", b""))
        if self._got > LARGEST:
            raise HTTPException(413)
        if not message.get("more_body", False):
            self._until_s = None
        return message


class _Answering:
    """Adds to every answer which request it is to, and that nobody keeps or sniffs it."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._more = [
            (b"x-request-id", request_id.encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *self._more]}
        await self._send(message)


def too_slow() -> Refusal:
    return Refusal(
        rule="body_too_slow",
        message=f"The body did not come within {BODY_WITHIN_S:g} s",
        values={"within_s": BODY_WITHIN_S},
        remedy="Send it at once with its head.",
    )


def too_large() -> Refusal:
    return Refusal(
        rule="body_too_large",
        message=f"The body is larger than {LARGEST} bytes",
        values={"largest": LARGEST},
        remedy="Send less at a time.",
    )
