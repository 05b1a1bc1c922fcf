"""Connections as the API's server takes them: those that never ask are closed, and there are only so many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from qnwis.api import connections
from qnwis.api.connections import LEAST_TAKEN
from qnwis.api.serve import ApiSettings, served
from qnwis.api.streams import MOST_AT_ONCE, EventStream, Streams

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
REQUEST = b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"


def as_served(app: Callable[..., Awaitable[None]]) -> uvicorn.Config:
    nowhere = Path("unused")
    settings = ApiSettings(
        config_dir=nowhere, state_dir=nowhere, key_file=nowhere, issuer="api", host="127.0.0.1", port=0
    )
    config = served(app, settings)
    config.timeout_keep_alive = 60  # so that it is not uvicorn who closes a connection
    config.load()
    return config


@asynccontextmanager
async def serving(app: Callable[..., Awaitable[None]]) -> AsyncIterator[Callable[[], Awaitable[Connection]]]:
    """Opens connections to an application that is served as the API is."""
    config, state = as_served(app), ServerState()
    protocol: Any = config.http_protocol_class
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config=config, server_state=state, app_state={}), config.host, config.port
    )
    opened: list[asyncio.StreamWriter] = []

    async def connect() -> Connection:
        # It takes little that nobody reads, so that what a server sends soon waits there.
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=1024)
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


BLOCK = b"x" * 1_000_000
"""Several times what the two ends of a connection keep for each other."""


def unending(ended: asyncio.Event) -> Callable[..., Awaitable[None]]:
    """Answers for as long as somebody is there."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": 200})
            while (await receive())["type"] != "http.disconnect":
                for _ in range(20):
                    await send({"type": "http.response.body", "body": BLOCK, "more_body": True})
        finally:
            ended.set()

    return answer


def at_once(ended: asyncio.Event) -> Callable[..., Awaitable[None]]:
    """Has answered before anything was taken."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": 20 * BLOCK})
        ended.set()

    return answer


def stream(ended: asyncio.Event) -> Callable[..., Awaitable[None]]:
    """A run's events."""

    async def events() -> AsyncIterator[str]:
        while True:
            yield BLOCK.decode()
            await asyncio.sleep(0)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        streams = Streams()
        await EventStream(events(), streams, "eve")(scope, receive, send)
        with ExitStack() as others:
            for _ in range(MOST_AT_ONCE):
                others.enter_context(streams.one_more("eve"))  # none is held by the one that was cut off
        ended.set()

    return answer


@pytest.mark.parametrize("app", [unending, at_once, stream])
@pytest.mark.parametrize(
    ("more", "then"), [(b"", b""), (b"Connection: close\r\n", b""), (b"", b"GET / HTTP/1.1\r\n")]
)
async def test_a_connection_whose_answer_nobody_takes_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, app: Callable[[asyncio.Event], Any], more: bytes, then: bytes
) -> None:
    monkeypatch.setattr(connections, "TAKEN_WITHIN_S", 0.5)
    monkeypatch.setattr(connections, "REQUEST_WITHIN_S", 0.5)
    stuck, lost, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Told(connections.Http):
        def pause_writing(self) -> None:
            super().pause_writing()
            stuck.set()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    monkeypatch.setattr(connections, "Http", Told)
    async with serving(app(ended)) as connect, asyncio.timeout(30):
        _, writer = await connect()
        writer.write(REQUEST[:-2] + more + b"\r\n")
        await stuck.wait()
        writer.write(then)
        await lost.wait()
        await ended.wait()


class Slow:
    """A transport whose peer takes of an answer what it is told to."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.end: str | None = None

    def get_write_buffer_size(self) -> int:
        return self.left

    def abort(self) -> None:
        self.end = "cut off"

    def close(self) -> None:
        self.end = "closed"


@pytest.mark.parametrize(
    ("taken", "end"),
    [
        ((LEAST_TAKEN, LEAST_TAKEN, LEAST_TAKEN), "closed"),
        ((LEAST_TAKEN, LEAST_TAKEN - 1), "cut off"),
        ((2 * LEAST_TAKEN,), None),
    ],
)
async def test_who_takes_an_answer_slowly_is_waited_for(taken: tuple[int, ...], end: str | None) -> None:
    peer = Slow(3 * LEAST_TAKEN)
    connection = connections.Http(as_served(answers), ServerState(), app_state={})
    connection.transport, connection.flow = cast(Any, peer), FlowControl(cast(Any, peer))
    connection.pause_writing()
    for one in taken:
        peer.left -= one
        connection._look()
    connection._look_away()
    assert peer.end == end


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
