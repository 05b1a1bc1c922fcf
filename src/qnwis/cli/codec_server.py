"""`codec-server`: shows the Temporal UI what is encrypted, to who has the token."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Annotated

import typer
from aiohttp import web

from qnwis.codec_server import codec_app
from qnwis.payloads import EncryptingCodec
from qnwis.providers.key_store import EXPECTED, STORE_VARIABLE, KeyStoreError, key_store_of

from .listening import BehindTls, TlsCert, TlsKey, see_that_nobody_listens
from .output import Exit, fail

PREFIX = "sha256:"


def codec_server(
    token_hash: Annotated[
        str,
        typer.Option(envvar="QNWIS_CODEC_TOKEN_HASH", help="sha256:<hex> of the token that lets in."),
    ],
    origin: Annotated[str, typer.Option(help="Where the Temporal UI is.")] = "http://localhost:8233",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8089,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    behind_tls: BehindTls = False,
) -> None:
    """Serve /encode and /decode for the Temporal UI and CLI, with the keys of QNWIS_KEY_STORE."""
    see_that_nobody_listens(host, tls_cert, tls_key, behind_tls=behind_tls)
    digest = token_hash.removeprefix(PREFIX)
    if not token_hash.startswith(PREFIX) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        fail(Exit.USAGE, "--token-hash: expected sha256: and 64 hexadecimal digits in lower case")
    try:
        keys = key_store_of(os.environ)
    except KeyStoreError as error:
        fail(Exit.USAGE, str(error))
    if keys is None:
        fail(Exit.USAGE, f"{STORE_VARIABLE} is not set: {EXPECTED}")
    app = codec_app(EncryptingCodec(keys), token_hash=digest, origin=origin)
    web.run_app(app, host=host, port=port, ssl_context=_tls(tls_cert, tls_key))


def _tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        fail(Exit.USAGE, f"--tls-cert {cert}, --tls-key {key}: cannot be used ({error})")
    return context
