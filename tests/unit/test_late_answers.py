"""What becomes of a request to an agent whose answer comes too late."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from qnwis.agent import speaking
from qnwis.agent.speaking import Speaker
from qnwis.continuity.membership import Peer
from qnwis.continuity.model import Model
from qnwis.continuity.topology import Node, NodeRole, NodeStatus
from qnwis.providers.errors import Unreachable
from qnwis.providers.nodes import HttpNodes
from qnwis.providers.other_clients import OtherClients
from qnwis.transport import Transport

LIVE = "/health/live"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Empty(Model):
    pass


class Agent:
    """Answers each question with 200 after `answers_after_s`, and counts who connects."""

    answers_after_s = 0.0
    answers_once = False
    """Then it ends the connection."""
    connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(self.answers_after_s)
                writer.write(ANSWER)
                await writer.drain()
                if self.answers_once:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def agent() -> AsyncIterator[tuple[Agent, Node]]:
    here = Agent()
    server = await asyncio.start_server(here.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    node = Node(
        node_id="n1",
        hostname="127.0.0.1",
        role=NodeRole.PRIMARY,
        region="r",
        site="s",
        status=NodeStatus.HEALTHY,
        endpoint=f"http://127.0.0.1:{port}",
    )
    try:
        yield here, node
    finally:
        server.close()


async def probe(nodes: HttpNodes, node: Node, timeout_s: float) -> bool:
    return (await nodes.probe(node, LIVE, timeout_s=timeout_s)).ok


async def read(nodes: HttpNodes, node: Node, timeout_s: float) -> bool:
    """Whether it answered; what it says is no membership."""
    try:
        await nodes.membership(node, timeout_s=timeout_s)
    except Unreachable as error:
        return "something else" in str(error)
    return False


Ask = Callable[[HttpNodes, Node, float], Awaitable[bool]]


@pytest.mark.parametrize("ask", [probe, read])
async def test_questions_whose_answers_are_late_keep_no_place_among_the_connections(ask: Ask) -> None:
    """Of so many that are given up at so many moments some would be cut off at a wrong one."""
    async with agent() as (here, node), HttpNodes(Transport()) as nodes:
        here.answers_once = True
        for step in range(400):
            await ask(nodes, node, step * 1e-5)
        await until_none_in_use(nodes)
        assert await ask(nodes, node, 5)


async def test_of_others_than_agents_too() -> None:
    async with agent() as (here, node):
        here.answers_once = True
        others = OtherClients(Transport())
        for step in range(400):
            with contextlib.suppress(httpx.HTTPError, TimeoutError):
                await others.ask("GET", f"{node.agent_url}/state", ca_file=None, timeout_s=step * 1e-5)
        pool: Any = others._clients[None]._transport
        await until_idle([pool])
        answer = await others.ask("GET", f"{node.agent_url}/state", ca_file=None, timeout_s=5)
        assert answer.status_code == httpx.codes.OK
        await others.aclose()


async def until_none_in_use(asking: HttpNodes | Speaker) -> None:
    """Return when the next question can have every place among the connections."""
    transport: Any = asking._client._transport
    await until_idle(transport._pools.values())


async def until_idle(pools: Collection[Any]) -> None:
    async with asyncio.timeout(5):
        while any(not connection.is_idle() for pool in pools for connection in pool._pool.connections):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("ask", "connections"), [(probe, 2), (read, 1)])
async def test_whoever_is_cancelled_leaves_the_connection_as_well(ask: Ask, connections: int) -> None:
    """Whether it is used again or made anew."""
    async with agent() as (here, node), HttpNodes(Transport()) as nodes:
        here.answers_after_s = 0.2
        waiting = asyncio.create_task(ask(nodes, node, 5))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until_none_in_use(nodes)
        assert await ask(nodes, node, 5)
        assert here.connections == connections


async def test_an_agent_that_gave_its_peers_up_can_reach_them_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has four connections to each, and its lease hangs on them."""
    async with agent() as (here, node):
        here.answers_once = True
        speaker, peer = Speaker(Transport()), Peer(node_id="n1", agent_url=node.agent_url)
        for step in range(400):
            monkeypatch.setattr(speaking, "ANSWER_WITHIN_S", step * 1e-5)
            await speaker.ask(peer, "empty", Empty)
        monkeypatch.setattr(speaking, "ANSWER_WITHIN_S", 5.0)
        await until_none_in_use(speaker)
        assert await speaker.tell(peer, "empty", Empty(), Empty) == Empty()
        await speaker.aclose()
