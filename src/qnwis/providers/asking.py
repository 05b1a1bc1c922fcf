"""Small questions, very many of them: GET requests to agents, on connections that are kept.

Each watch asks several of them every interval, so they go by way of aiohttp, which needs less CPU time for
one than httpx; orders and states are few, and go by way of that.
"""

from __future__ import annotations

import ssl
from socket import EAI_NONAME, gaierror
from typing import NamedTuple

import aiohttp

from qnwis.continuity.allowlist import origin_of
from qnwis.tls.client import KEPT_S, NotTheListedNode
from qnwis.tls.files import TlsError
from qnwis.tls.pins import NotListed, Pin, Pins
from qnwis.transport import Transport

CONNECTIONS = 16
"""At once to one agent."""
FAILED = (aiohttp.ClientError, TimeoutError, NotTheListedNode, TlsError, OSError)
"""What `Asker.get` raises: there is no answer."""


class Answered(NamedTuple):
    status: int
    text: str
    """Of an answer that is not 200."""


class Asker:
    """Belongs to one event loop."""

    def __init__(self, transport: Transport) -> None:
        self._connect_timeout_s = transport.connect_timeout_s
        self._pins = None if transport.tls is None else Pins(transport.tls)
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, origin: str, path: str, *, timeout_s: float) -> Answered:
        """Raises one of FAILED; a TimeoutError after `timeout_s` seconds in all."""
        pin = self._pin(origin)
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(self._connect_timeout_s, timeout_s))
        secured: ssl.SSLContext | bool = True if pin is None else pin.context
        try:
            async with self._open().get(
                origin + path, ssl=secured, timeout=timeout, allow_redirects=False
            ) as response:
                body = await response.read()
        except aiohttp.ClientConnectorError as error:
            if pin is not None and pin.refused is not None:
                raise NotTheListedNode(pin.refused) from error
            raise
        except UnicodeError as error:  # of a name that no host can have
            raise gaierror(EAI_NONAME, str(error)) from error
        text = "" if response.status == 200 else body.decode(errors="replace")
        return Answered(response.status, text)

    def _pin(self, origin: str) -> Pin | None:
        if self._pins is None:
            return None
        try:
            pin = self._pins.of(origin_of(origin), origin)
        except NotListed as error:
            raise NotTheListedNode(error.refusal) from error
        pin.refused = None
        return pin

    def _open(self) -> aiohttp.ClientSession:
        """Made at the first question, in the loop that it belongs to."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, limit_per_host=CONNECTIONS, keepalive_timeout=KEPT_S, use_dns_cache=False
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,  # as in `Transport.client`
            )
        return self._session
