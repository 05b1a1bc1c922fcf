"""An address of a region that leads to its leader, as a proxy in front of Patroni's members gives it: for
each new connection it asks their REST API who leads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import httpx


@contextlib.asynccontextmanager
async def region_address(address: str, port: int, members: Mapping[str, str]) -> AsyncIterator[None]:
    """Listens on `address` and `port`; the leader among `members` (host by the URL of its REST API) gets what
    comes, at the same port. Without a leader a connection is closed."""
    talking: set[asyncio.Task[None]] = set()

    async def leader() -> str | None:
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            for url, host in members.items():
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{url}/leader")).status_code == httpx.codes.OK:
                        return host
        return None

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = await leader()
        if host is not None:
            there, back = await asyncio.open_connection(host, port)
            for one, other in ((reader, back), (there, writer)):
                task = asyncio.create_task(copied(one, other))
                talking.add(task)
                task.add_done_callback(talking.discard)
        else:
            writer.close()

    server = await asyncio.start_server(serve, address, port)
    try:
        yield
    finally:
        server.close()
        for task in talking:
            task.cancel()


async def copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What comes on one connection goes out on another, until either ends."""
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()
