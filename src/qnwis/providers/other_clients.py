"""Asking parties that are no agents (Patroni, applications) over HTTP, on pooled connections."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from qnwis.requests_at_large import RequestsAtLarge
from qnwis.transport import Transport


class OtherClients:
    """A client for each file of trusted certificates. Belongs to one event loop."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._clients: dict[str | None, httpx.AsyncClient] = {}
        self._questions = RequestsAtLarge()

    async def aclose(self) -> None:
        self._questions.cancel()
        for client in self._clients.values():
            await client.aclose()

    async def ask(
        self, method: str, url: str, *, ca_file: str | None, timeout_s: float, **more: Any
    ) -> httpx.Response:
        """The answer, whatever its status. Raises httpx.HTTPError and TimeoutError, and OSError for a file of
        certificates that cannot be read. `more`: of httpx's request."""
        # httpx bounds each phase; this bounds the whole.
        timeout = httpx.Timeout(timeout_s, connect=min(self._transport.connect_timeout_s, timeout_s))
        asked = self._client(ca_file, timeout_s).request(method, url, timeout=timeout, **more)
        if method == "GET":
            return await self._questions.within(timeout_s, asked)
        async with asyncio.timeout(timeout_s):
            return await asked  # an order must not set out when nobody waits for it any more

    def _client(self, ca_file: str | None, timeout_s: float) -> httpx.AsyncClient:
        if ca_file not in self._clients:
            self._clients[ca_file] = self._transport.client(timeout_s=timeout_s, ca_file=ca_file)
        return self._clients[ca_file]
