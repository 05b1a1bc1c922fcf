"""Connections as the API's server takes them: those that never ask are closed, and there are only so many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from uvicorn.server import ServerState

from qnwis.api import connections
from qnwis.api.serve import ApiSettings, served

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
REQUEST = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"


@asynccontextmanager
async def serving(app: Callable[..., Awaitable[None]]) -> AsyncIterator[Callable[[], Awaitable[Connection]]]:
    """Opens connections to an application that is served as the API is."""
    nowhere = Path("unused")
    settings = ApiSettings(
        config_dir=nowhere, state_dir=nowhere, key_file=nowhere, issuer="api", host="127.0.0.1", port=0
    )
    config, state = served(app, settings), ServerState()
    config.timeout_keep_alive = 60  # so that it is not uvicorn who closes a connection
    config.load()
    protocol: Any = config.http_protocol_class
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config=config, server_state=state, app_state={}), settings.host, settings.port
    )
    opened: list[asyncio.StreamWriter] = []

    async def connect() -> Connection:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        opened.append(writer)
        return reader, writer

    try:
        yield connect
    finally:
        for writer in opened:
            writer.close()
        server.close()


async def answers(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", b""),
        (b"", b"GET / HTTP/1.1\r\nHost: ap"),
        (REQUEST, REQUEST[:9]),
        (b"POST / HTTP/1.1\r\nHost: api\r\nContent-Length: 9\r\n\r\n", b"half"),
    ],
)
async def test_a_connection_without_a_whole_request_is_closed(
    monkeypatch: pytest.MonkeyPatch, first: bytes, then: bytes
) -> None:
    monkeypatch.setattr(connections, "REQUEST_WITHIN_S", 0.5)
    async with serving(answers) as connect:
        reader, writer = await connect()
        if first:
            writer.write(first)
            await reader.readuntil(b"ok")
        writer.write(then)
        async with asyncio.timeout(30):
            assert await reader.read() == b""


async def test_a_request_that_is_worked_on_is_not_cut_off_and_the_connection_serves_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "REQUEST_WITHIN_S", 1.0)
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def slowly(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await goes_on.wait()
        await answers(scope, receive, send)

    async with serving(slowly) as connect:
        reader, writer = await connect()
        writer.write(REQUEST)
        await begun.wait()
        silent, _ = await connect()
        assert await silent.read() == b"", "it came later, and is closed already"
        monkeypatch.setattr(connections, "REQUEST_WITHIN_S", 60.0)
        goes_on.set()
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.write(REQUEST)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")


async def test_more_connections_than_there_may_be_are_answered_with_503(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 3)
    async with serving(answers) as connect:
        for status in (b"200", b"200", b"503"):  # whoever was answered stays connected
            reader, writer = await connect()
            writer.write(REQUEST)
            assert (await reader.readline()).startswith(b"HTTP/1.1 " + status)
