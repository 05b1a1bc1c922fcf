"""The half of a client that speaks httpx: each agent is reached with the context that it is pinned to."""

from __future__ import annotations

import socket

import httpx

from qnwis.continuity.allowlist import origin_of
from qnwis.continuity.refusal import Refusal

from .files import TlsError, TlsFiles
from .pins import NotListed, Pin, Pins

KEPT_S = 60.0
"""An order in the middle of a failover need not shake hands first; agents keep connections for longer."""
KEPT_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, option), value)
        for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
        if hasattr(socket, option)
    ),
)
"""Of a connection to an agent: one that is silent for 15 s is asked by the kernel whether it still leads to
anybody, and has ended 15 s later where it does not. An agent's event stream may be silent for months; what
stands between must not drop it as idle, nor leave both ends with half a connection."""


class NotTheListedNode(httpx.ConnectError):
    """Whoever answers there is not the node that the allowlist names, or nobody is named for the address."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class PinnedTransport(httpx.AsyncBaseTransport):
    """Speaks to nobody but listed agents. A connection is used for as long as the pin that it was made with
    stands."""

    def __init__(self, files: TlsFiles, limits: httpx.Limits) -> None:
        """`limits`: of each agent. Whoever asks again and again before the first connection is made must not
        have both ends shake hands again and again."""
        self._pins = Pins(files)
        self._limits = limits
        self._made: dict[str | None, tuple[Pin, httpx.AsyncHTTPTransport]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        pin, transport = await self._of(str(request.url.copy_with(raw_path=b"/")))
        pin.refused = None
        try:
            return await transport.handle_async_request(request)
        except httpx.ConnectError as error:
            if pin.refused is not None:
                raise NotTheListedNode(pin.refused) from error
            raise

    async def _of(self, url: str) -> tuple[Pin, httpx.AsyncHTTPTransport]:
        origin = origin_of(url)
        try:
            pin = self._pins.of(origin, url)
        except NotListed as error:
            await self._forget(origin)
            raise NotTheListedNode(error.refusal) from error
        except TlsError as error:
            raise httpx.ConnectError(str(error)) from error
        made = self._made.get(origin)
        if made is None or made[0] is not pin:
            await self._forget(origin)
            transport = httpx.AsyncHTTPTransport(
                verify=pin.context, trust_env=False, limits=self._limits, socket_options=KEPT_ALIVE
            )
            made = self._made[origin] = pin, transport
        return made

    async def _forget(self, origin: str | None) -> None:
        if (made := self._made.pop(origin, None)) is not None:
            await made[1].aclose()

    async def aclose(self) -> None:
        for origin in list(self._made):
            await self._forget(origin)
