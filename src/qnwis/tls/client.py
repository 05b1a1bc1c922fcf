"""The client's half: each agent is reached with its own context, pinned to what the allowlist says of it."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from qnwis.continuity.allowlist import AllowedNode, Presented, SecuritySettings, entry_refusal, origin_of
from qnwis.continuity.refusal import Refusal

from .contexts import client_context
from .files import Stamp, TlsError, TlsFiles

_KEPT_S = 60.0
"""An order in the middle of a failover need not shake hands first; agents keep connections for longer."""


class NotTheListedNode(httpx.ConnectError):
    """Whoever answers there is not the node that the allowlist names, or nobody is named for the address."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


@dataclass
class _Pinned:
    """Connections to one agent, and what they were checked against."""

    entry: AllowedNode
    settings: SecuritySettings
    identity: Stamp
    transport: httpx.AsyncHTTPTransport
    refused: Refusal | None = None


class PinnedTransport(httpx.AsyncBaseTransport):
    """Speaks to nobody but listed agents. A connection is used for as long as what it was checked against
    stands: whoever is struck off the list, or is listed with another certificate, is cut off.
    """

    def __init__(self, files: TlsFiles, *, connections: int) -> None:
        """`connections`: at once to one agent. Whoever asks again and again before the first is made must not
        have both ends shake hands again and again."""
        self._files = files
        self._limits = httpx.Limits(max_connections=connections, keepalive_expiry=_KEPT_S)
        self._pinned: dict[str, _Pinned] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        origin = origin_of(str(request.url.copy_with(raw_path=b"/")))
        pinned = await self._of(origin, str(request.url.copy_with(raw_path=b"/")))
        pinned.refused = None
        try:
            return await pinned.transport.handle_async_request(request)
        except httpx.ConnectError as error:
            if pinned.refused is not None:
                raise NotTheListedNode(pinned.refused) from error
            raise

    async def _of(self, origin: str | None, url: str) -> _Pinned:
        allowlist = self._files.allowlist
        entry = None if origin is None else allowlist.node_at(origin)
        if entry is None or origin is None:
            await self._forget(origin)
            raise NotTheListedNode(_nobody_listed(url, self._files))
        settings = allowlist.security_settings
        try:
            identity = self._files.identity_stamp()
        except TlsError as error:
            raise httpx.ConnectError(str(error)) from error
        known = self._pinned.get(origin)
        if known is not None and (known.entry, known.settings, known.identity) == (entry, settings, identity):
            return known
        await self._forget(origin)
        made = self._pinned[origin] = self._pin(entry, settings, identity)
        return made

    def _pin(self, entry: AllowedNode, settings: SecuritySettings, identity: Stamp) -> _Pinned:
        def check(shown: Presented) -> Refusal | None:
            return entry_refusal(entry, settings, shown)

        def report(refusal: Refusal) -> None:
            pinned.refused = refusal

        try:
            context = client_context(self._files, check, report)
        except TlsError as error:
            raise httpx.ConnectError(str(error)) from error
        transport = httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=self._limits)
        pinned = _Pinned(entry, settings, identity, transport)
        return pinned

    async def _forget(self, origin: str | None) -> None:
        if origin is not None and (known := self._pinned.pop(origin, None)) is not None:
            await known.transport.aclose()

    async def aclose(self) -> None:
        for origin in list(self._pinned):
            await self._forget(origin)


def _nobody_listed(url: str, files: TlsFiles) -> Refusal:
    return Refusal(
        rule="endpoint_not_listed",
        message=f"{files.allowlist_file} lists no node at {url}",
        values={"url": url},
        remedy="List it with `qnwis-continuity pki node`, with the endpoint that the topology has"
        " (https://host:port).",
    )
