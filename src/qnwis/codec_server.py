"""The codec server: decrypts payloads for the Temporal UI and CLI, and encrypts what is typed into the UI.

`POST /encode` and `POST /decode` with Temporal's JSON of payloads, for who has the token, from the one origin
where the UI is. The token comes as a bearer token, or as the password of HTTP basic authentication: a browser
that was at `/` once and was let in sends it with what the UI asks (set "include cross-origin credentials").
"""

from __future__ import annotations

import base64
import hmac
from hashlib import sha256

from aiohttp import web
from google.protobuf.json_format import MessageToJson, Parse, ParseError
from temporalio.api.common.v1 import Payloads
from temporalio.converter import PayloadCodec

from qnwis.payloads import PayloadError
from qnwis.providers.key_store import KeyStoreError

LARGEST = 16 << 20
"""Of a request, bytes."""
CODEC: web.AppKey[PayloadCodec] = web.AppKey("codec", PayloadCodec)


def codec_app(codec: PayloadCodec, *, token_hash: str, origin: str) -> web.Application:
    """`token_hash`: SHA-256 of the token, hexadecimal; `origin`: of the UI, such as http://localhost:8233."""

    @web.middleware
    async def guarded(request: web.Request, handler: object) -> web.StreamResponse:
        """CORS for the one origin; nothing but a preflight without the token."""
        if request.method == "OPTIONS":
            answer: web.StreamResponse = web.Response(status=204)
        elif not _has_token(request.headers.get("Authorization", ""), token_hash):
            # A browser that is asked for it sends the token from then on.
            answer = web.Response(
                status=401,
                text="no token, or not the one",
                headers={"WWW-Authenticate": 'Basic realm="codec"'},
            )
        else:
            try:
                answer = await handler(request)  # type: ignore[operator]
            except web.HTTPException as error:
                answer = error
        answer.headers["Vary"] = "Origin"
        if request.headers.get("Origin") == origin:
            answer.headers["Access-Control-Allow-Origin"] = origin
            answer.headers["Access-Control-Allow-Credentials"] = "true"
            answer.headers["Access-Control-Allow-Methods"] = "POST"
            answer.headers["Access-Control-Allow-Headers"] = "authorization, content-type, x-namespace"
        return answer

    app = web.Application(middlewares=[guarded], client_max_size=LARGEST)
    app[CODEC] = codec
    app.add_routes([web.get("/", _welcome), web.post("/encode", _encode), web.post("/decode", _decode)])
    app.router.add_route("OPTIONS", "/{path:.*}", _welcome)
    return app


async def _welcome(_: web.Request) -> web.Response:
    return web.Response(text="You are let in; the Temporal UI can show what is encrypted.")


async def _encode(request: web.Request) -> web.Response:
    asked = await _payloads(request)
    try:
        return _answer(await request.app[CODEC].encode(list(asked.payloads)))
    except KeyStoreError as error:
        raise web.HTTPServiceUnavailable(text=str(error)) from None


async def _decode(request: web.Request) -> web.Response:
    asked = await _payloads(request)
    try:
        return _answer(await request.app[CODEC].decode(list(asked.payloads)))
    except (KeyStoreError, PayloadError) as error:
        raise web.HTTPUnprocessableEntity(text=str(error)) from None


async def _payloads(request: web.Request) -> Payloads:
    try:
        return Parse(await request.read(), Payloads())
    except ParseError as error:
        raise web.HTTPBadRequest(text=f"expected Temporal's JSON of payloads: {error}") from None


def _answer(payloads: object) -> web.Response:
    text = MessageToJson(Payloads(payloads=payloads))  # type: ignore[arg-type]
    return web.Response(text=text, content_type="application/json")


def _has_token(authorization: str, token_hash: str) -> bool:
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except ValueError:
            return False
    elif scheme.lower() != "bearer":
        return False
    # A header holds any bytes; those that are no text come as half characters.
    return hmac.compare_digest(sha256(given.encode(errors="surrogateescape")).hexdigest(), token_hash)
