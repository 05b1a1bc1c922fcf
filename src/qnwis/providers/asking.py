"""The HTTP client of the node agents: questions, very many of them, orders, and streams of events.

On connections that are kept, one session for all agents. Each watch asks several questions every interval, so
they go by way of aiohttp, which needs less CPU time for one than httpx.
"""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import aiohttp

from qnwis.continuity.allowlist import origin_of
from qnwis.tls.client import KEPT_ALIVE, KEPT_S, NotTheListedNode
from qnwis.tls.files import TlsError
from qnwis.tls.pins import NotListed, Pin, Pins
from qnwis.transport import Transport

CONNECTIONS = 32
"""At once to one agent; each vantage of this process holds one of them for its stream of events."""
FAILED = (aiohttp.ClientError, TimeoutError, NotTheListedNode, TlsError, OSError)
"""What the methods of `Asker` raise: there is no answer."""
JSON = {"content-type": "application/json"}
TO_THE_MS = float("inf")
"""aiohttp rounds timeouts beyond its threshold up to whole seconds; an order's is meant as it says."""


class Answered(NamedTuple):
    status: int
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


class Asker:
    """Belongs to one event loop."""

    def __init__(self, transport: Transport) -> None:
        self._connect_timeout_s = transport.connect_timeout_s
        self._pins = None if transport.tls is None else Pins(transport.tls)
        self._session: aiohttp.ClientSession | None = None
        self._streams: defaultdict[str, dict[aiohttp.ClientResponse, Pin | None]] = defaultdict(dict)
        """By origin, with what each was opened with."""

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(
        self, method: str, origin: str, path: str, *, timeout_s: float, content: bytes | None = None
    ) -> Answered:
        """The answer, whatever its status. Raises one of FAILED; a TimeoutError after `timeout_s` in all."""
        pin = self._pin(origin)
        timeout = aiohttp.ClientTimeout(
            total=timeout_s,
            sock_connect=min(self._connect_timeout_s, timeout_s),
            ceil_threshold=TO_THE_MS,
        )
        try:
            async with self._request(method, origin + path, pin, timeout, content) as response:
                return Answered(response.status, await response.read())
        except aiohttp.ClientConnectorError as error:
            _raise_if_refused(pin, error)
            raise

    @asynccontextmanager
    async def stream(self, origin: str, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that goes on. It may be silent for as long as it likes: whoever is dead ends it, and so
        does the kernel where nobody is at its other end any more (see KEPT_ALIVE). Raises one of FAILED."""
        pin = self._pin(origin)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s)
        try:
            async with self._request("GET", origin + path, pin, timeout) as response:
                self._streams[origin][response] = pin
                try:
                    yield response
                finally:
                    del self._streams[origin][response]
        except aiohttp.ClientConnectorError as error:
            _raise_if_refused(pin, error)
            raise

    def _request(
        self,
        method: str,
        url: str,
        pin: Pin | None,
        timeout: aiohttp.ClientTimeout,
        content: bytes | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._open().request(
            method,
            url,
            data=content,
            headers=None if content is None else JSON,
            ssl=True if pin is None else pin.context,
            timeout=timeout,
            allow_redirects=False,
        )

    def _pin(self, origin: str) -> Pin | None:
        """What the agent is pinned to now; streams that were opened with anything else are ended."""
        if self._pins is None:
            return None
        try:
            pin = self._pins.of(origin_of(origin), origin)
        except NotListed as error:
            self._end_streams(origin, None)
            raise NotTheListedNode(error.refusal) from error
        self._end_streams(origin, pin)
        pin.refused = None
        return pin

    def _end_streams(self, origin: str, pin: Pin | None) -> None:
        for response, opened_with in [*self._streams[origin].items()]:
            if opened_with is not pin:
                response.close()

    def _open(self) -> aiohttp.ClientSession:
        """Made at the first question, in the loop that it belongs to."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,
                    limit_per_host=CONNECTIONS,
                    keepalive_timeout=KEPT_S,
                    use_dns_cache=False,
                    socket_factory=_socket,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,  # as in `Transport.client`
            )
        return self._session


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    for option in KEPT_ALIVE:
        made.setsockopt(*option)
    return made


def _raise_if_refused(pin: Pin | None, error: Exception) -> None:
    """Whoever answered there may not be the listed node; the handshake says so, and the connection only that
    it came to nothing."""
    if pin is not None and pin.refused is not None:
        raise NotTheListedNode(pin.refused) from error
