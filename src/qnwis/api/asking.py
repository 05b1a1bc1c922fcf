"""What an endpoint is given: who asks, that this may be asked, and, of what acts, that it is done once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from fastapi.responses import JSONResponse

from qnwis.continuity.identity import Identity, Permission, permission_refusal
from qnwis.continuity.requests import (
    KEY,
    NONCE,
    TIMESTAMP,
    another_body,
    fresh,
    key_refusal,
    replayed,
    still_answering,
)
from qnwis.providers.errors import Refused
from qnwis.providers.request_store import Begun, Kept
from qnwis.signing import Signer

from .parts import Parts
from .problems import problem


@dataclass(frozen=True)
class Asking:
    """A request whose sender may make it."""

    parts: Parts
    who: Identity
    request_id: str
    path: str
    key: str = ""
    """Idempotency-Key; empty for what does not act."""
    digest: str = ""

    @property
    def signer(self) -> Signer:
        """Proves to the workers who asks."""
        return self.parts.voucher.signer(self.who)

    def need(self, *permissions: Permission) -> None:
        """Raises Refused where the identity lacks one; for what only some requests of an endpoint need."""
        refusal = permission_refusal(self.who, permissions, self.parts.access.load_rbac())
        if refusal is not None:
            raise Refused(refusal)

    async def once(self, work: Callable[[Begun], Awaitable[Response]]) -> Response:
        """Carry the work out for this key, or give the answer that it gave before. It is told its `deed_id`:
        the same whenever this request is tried again, and another for every other one, also with the same key
        by somebody else or after a day. Raises Refused where the key came with another request, or where that
        has no answer yet."""
        store, name = self.parts.store, self.who.name
        begun = await store.begin(name, self.key, self.digest, self.parts.now())
        if begun.digest is not None and begun.digest != self.digest:
            raise Refused(another_body(self.key))
        if begun.digest is not None and begun.kept is None:
            raise Refused(still_answering(self.key))
        if begun.kept is not None:
            headers = {**json.loads(begun.kept.headers), "Idempotency-Replayed": "true"}
            return Response(begun.kept.body, status_code=begun.kept.status, headers=headers)
        try:
            answer = await work(begun)
        except Refused as refused:
            answer = problem(refused.refusal, request_id=self.request_id, path=self.path)
        except BaseException:
            await store.forget(name, self.key)
            raise
        if answer.status_code >= 500:
            await store.forget(name, self.key)
            return answer
        await self.keep(answer)
        return answer

    async def keep(self, answer: Response) -> None:
        """From now on this is what the key gives. What has started something keeps this before it waits:
        however the waiting ends, the same key starts nothing else."""
        headers = {k: v for k, v in answer.headers.items() if k not in ("content-length",)}
        kept = Kept(answer.status_code, json.dumps(headers), bytes(answer.body))
        await self.parts.store.keep(self.who.name, self.key, kept)


def parts_of(request: Request) -> Parts:
    parts = request.app.state.parts
    assert isinstance(parts, Parts)
    return parts


def _asking(request: Request, permissions: tuple[Permission, ...]) -> Asking:
    asking = Asking(
        parts=parts_of(request),
        who=request.state.identity,
        request_id=request.state.request_id,
        path=request.url.path,
    )
    asking.need(*permissions)
    return asking


def reads(*permissions: Permission) -> Any:
    """An endpoint that changes nothing. Without permissions: whoever is signed in may."""

    def admitted(request: Request) -> Asking:
        return _asking(request, permissions)

    return Depends(admitted)


def acts(*permissions: Permission) -> Any:
    """An endpoint that acts: the request has to be fresh, never seen, and have a key of its own."""

    async def admitted(
        request: Request,
        timestamp: Annotated[
            str | None, Header(alias=TIMESTAMP, description="When it is sent, RFC 3339.")
        ] = None,
        nonce: Annotated[
            str | None, Header(alias=NONCE, description="Never used before: 16 to 128 letters and digits.")
        ] = None,
        key: Annotated[
            str | None, Header(alias=KEY, description="The same when the same request is sent again.")
        ] = None,
    ) -> Asking:
        asking = _asking(request, permissions)
        parts, now = asking.parts, asking.parts.now()
        limits = parts.settings.limits
        if (refusal := fresh(timestamp, nonce, limits, now) or key_refusal(key)) is not None:
            raise Refused(refusal)
        assert nonce is not None and key is not None
        # A request may be ahead by the skew and old by the skew: so long its nonce has to be known.
        good_for_s = 2 * limits.clock_skew_s + 1
        if not await parts.store.first_use(asking.who.name, nonce, now=now, good_for_s=good_for_s):
            raise Refused(replayed(nonce))
        body = await request.body()
        about = f"{request.method} {request.url.path}?{request.url.query}\n".encode() + body
        return Asking(
            parts, asking.who, asking.request_id, asking.path, key, hashlib.sha256(about).hexdigest()
        )

    return Depends(admitted)


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> JSONResponse:
    """A model, or what is JSON already."""
    data = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    return JSONResponse(data, status_code=status, headers=headers)
