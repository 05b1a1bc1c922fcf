"""A Temporal server behind mutual TLS and an API key is reached by Temporal's own environment variables."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from qnwis.lab.temporal_server import TemporalServer
from qnwis.pki.authority import Authority
from qnwis.temporal import NoServer, connect
from qnwis.tls.files import AUTHORITY, OWN

from .region_address import copied

HOST = "127.0.0.1"


@contextlib.asynccontextmanager
async def behind_tls(server: TemporalServer, authority: Authority, folder: Path) -> AsyncIterator[str]:
    """An address in front of the server that lets nobody through without a certificate of the authority."""
    authority.issue(folder / "front", "temporal", [HOST])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "front" / OWN)
    context.load_verify_locations(folder / "front" / AUTHORITY)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])  # what gRPC is spoken over
    host, _, port = server.address.rpartition(":")
    copying: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        for one, other in ((reader, back), (there, writer)):
            task = asyncio.create_task(copied(one, other))
            copying.add(task)
            task.add_done_callback(copying.discard)

    front = await asyncio.start_server(serve, HOST, 0, ssl=context)
    try:
        yield f"{HOST}:{front.sockets[0].getsockname()[1]}"
    finally:
        front.close()
        for task in copying:
            task.cancel()


def names(folder: Path, identity: Path) -> dict[str, str]:
    """The variables by which Temporal's clients find an identity: its certificate and its key apart."""
    pem = (identity / OWN).read_bytes()
    key = load_pem_private_key(pem, password=None)
    (folder / "client.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "client.pem").write_bytes(pem)
    return {
        "TEMPORAL_TLS": "true",
        "TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(identity / AUTHORITY),
        "TEMPORAL_TLS_CLIENT_CERT_PATH": str(folder / "client.pem"),
        "TEMPORAL_TLS_CLIENT_KEY_PATH": str(folder / "client.key"),
        "TEMPORAL_API_KEY": "a-key",
    }


async def test_mutual_tls_and_an_api_key_come_from_temporals_own_environment(
    server: TemporalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority.make(tmp_path / "pki", organization="QNWIS", country=None)
    authority.issue(tmp_path / "worker", "worker", [])
    stranger = Authority.make(tmp_path / "other", organization="QNWIS", country=None)
    stranger.issue(tmp_path / "stranger", "worker", [])
    async with behind_tls(server, authority, tmp_path) as address:
        monkeypatch.setenv("TEMPORAL_ADDRESS", address)
        with pytest.raises(NoServer, match=address):
            await connect()
        for name, value in names(tmp_path, tmp_path / "stranger").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TEMPORAL_TLS_SERVER_CA_CERT_PATH", str(tmp_path / "worker" / AUTHORITY))
        with pytest.raises(NoServer, match=address):
            await connect()
        for name, value in names(tmp_path, tmp_path / "worker").items():
            monkeypatch.setenv(name, value)
        client = await connect()
        assert await client.service_client.check_health()
