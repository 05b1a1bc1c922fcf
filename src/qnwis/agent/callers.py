"""Who asks this agent: a request is answered to the owner of a listed certificate alone, and only for what it
may ask. What is refused is logged and counted."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime
from time import monotonic

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from qnwis.continuity.allowlist import (
    AllowedClient,
    AllowedNode,
    Presented,
    RefusedCallers,
    body_refusal,
    caller_of,
    path_refusal,
)
from qnwis.continuity.model import Model
from qnwis.continuity.refusal import Refusal
from qnwis.logs import log
from qnwis.tls.contexts import server_context, shown_by
from qnwis.tls.files import TlsFiles

from .peers import Peers

LOG_EVERY_S = 1.0
"""Of each rule one line within so long: whoever knocks fast must not fill a disk. All are counted."""

Caller = AllowedNode | AllowedClient
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", AllowedNode | AllowedClient)  # type: ignore[arg-type]


class Callers:
    """The door of an agent that speaks mutual TLS."""

    def __init__(self, files: TlsFiles, peers: Peers) -> None:
        self._files = files
        self._peers = peers
        self._logged_at_s: dict[str, float] = {}
        self.refused: Counter[str] = Counter()
        self._last_at: datetime | None = None

    def context(self) -> ssl.SSLContext:
        """What the agent listens with. Raises TlsError."""
        return server_context(self._files, self._connection_refusal, self.refuse)

    def _connection_refusal(self, shown: Presented) -> Refusal | None:
        caller = caller_of(self._files.allowlist, shown)
        return caller if isinstance(caller, Refusal) else None

    @property
    def middleware(self) -> Middleware:
        @web.middleware
        async def known_callers(request: web.Request, handler: Handler) -> web.StreamResponse:
            caller = self._caller(request)
            if caller is None:
                return web.Response(status=400)  # nobody hears it
            refusal = caller if isinstance(caller, Refusal) else path_refusal(caller, request.path)
            if refusal is not None:
                self.refuse(refusal, remote=request.remote)
                answer = web.Response(
                    text=refusal.model_dump_json(), content_type="application/json", status=403
                )
                answer.force_close()
                return answer
            assert not isinstance(caller, Refusal)
            request[CALLER] = caller
            return await handler(request)

        return known_callers

    def _caller(self, request: web.Request) -> Caller | Refusal | None:
        """Anew for each request: whoever was struck off the list since the connection was made is nobody.
        None for one that has hung up."""
        if request.transport is None:
            return None
        shown = shown_by(request.transport.get_extra_info("ssl_object"))
        return None if shown is None else caller_of(self._files.allowlist, shown)

    def body_refusal(self, request: web.Request, body: Model, members: Collection[str]) -> Refusal | None:
        """Why whoever asks may not say this: in another's name, say. `members`: as this agent knows them."""
        caller = request[CALLER]
        known = self._peers.of(caller.node_id) if isinstance(caller, AllowedNode) else None
        refusal = body_refusal(caller, body, None if known is None else known.agent_url, members)
        if refusal is not None:
            self.refuse(refusal, remote=request.remote)
        return refusal

    @property
    def told(self) -> RefusedCallers:
        return RefusedCallers(counts=dict(self.refused), last_at=self._last_at)

    def refuse(self, refusal: Refusal, *, remote: str | None = None) -> None:
        """Count a refusal, and log it. `remote`: the address that asks, where that is known."""
        self.refused[refusal.rule] += 1
        self._last_at = datetime.now(UTC)
        last_s, now_s = self._logged_at_s.get(refusal.rule), monotonic()
        if last_s is None or now_s - last_s >= LOG_EVERY_S:
            self._logged_at_s[refusal.rule] = now_s
            log(
                "caller_refused",
                rule=refusal.rule,
                message=refusal.message,
                values=refusal.values,
                remote=remote,
                times=self.refused[refusal.rule],
            )
