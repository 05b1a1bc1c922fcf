"""Questions to agents over real sockets: what an answer is, what is none, and which connections are used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from qnwis.continuity.topology import Node
from qnwis.providers.asking import Answered, Asker
from qnwis.providers.nodes import HttpNodes
from qnwis.transport import Transport

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nup"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy"
MOVED = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"


class Agent:
    """Answers every request with `answer`; None for none."""

    def __init__(self) -> None:
        self.answer: bytes | None = OK
        self.connections = 0
        self.close_after = False
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.asked.append(head.split(b" ")[1].decode())
                if self.answer is None:
                    await asyncio.Event().wait()
                    return
                writer.write(self.answer)
                if self.close_after:
                    return
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(agent: Agent) -> AsyncIterator[str]:
    server = await asyncio.start_server(agent.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.close()


@pytest.fixture
async def asker() -> AsyncIterator[Asker]:
    one = Asker(Transport())
    yield one
    await one.aclose()


async def test_many_questions_use_one_connection(asker: Asker) -> None:
    agent = Agent()
    async with listening(agent) as origin:
        for _ in range(5):
            assert await asker.get(origin, "/health/live", timeout_s=5) == Answered(200, "")
    assert (agent.connections, agent.asked) == (1, ["/health/live"] * 5)


async def test_a_connection_that_the_agent_closed_is_made_anew(asker: Asker) -> None:
    """An agent that was restarted has closed what was kept: that is no miss."""
    agent = Agent()
    agent.close_after = True
    async with listening(agent) as origin:
        for _ in range(3):
            assert (await asker.get(origin, "/health/live", timeout_s=5)).status == 200


async def test_another_status_comes_with_what_was_said_and_nothing_is_followed(asker: Asker) -> None:
    agent = Agent()
    async with listening(agent) as origin:
        for answer, expected in ((BUSY, Answered(503, "busy")), (MOVED, Answered(302, ""))):
            agent.answer = answer
            assert await asker.get(origin, "/health/ready", timeout_s=5) == expected


async def test_silence_is_a_timeout_in_all(asker: Asker) -> None:
    agent = Agent()
    agent.answer = None
    async with listening(agent) as origin:
        with pytest.raises(TimeoutError):
            await asker.get(origin, "/health/live", timeout_s=0.05)


def nowhere(_: Agent) -> None:
    pass


def silent(agent: Agent) -> None:
    agent.answer = None


def nobodys_name(_: Agent) -> None:
    pass


NOBODYS = {nowhere: "http://127.0.0.1:1", nobodys_name: "http://db3..example:1"}


def busy(agent: Agent) -> None:
    agent.answer = BUSY


@pytest.mark.parametrize(
    ("how", "error_type", "says"),
    [
        (silent, "timeout", "did not answer GET /health/live within 0.1 s"),
        (busy, "http_503", "answered GET /health/live with status 503: busy"),
        (nowhere, "connection_refused", "check that the agent runs and can be reached"),
        (nobodys_name, "dns", "db3..example"),
    ],
)
async def test_a_probe_names_how_it_ended(how: Callable[[Agent], None], error_type: str, says: str) -> None:
    agent = Agent()
    how(agent)
    async with listening(agent) as origin, HttpNodes(Transport()) as nodes:
        endpoint = NOBODYS.get(how, origin)
        node = Node.model_validate(
            {
                "node_id": "a",
                "hostname": "a",
                "role": "primary",
                "region": "r",
                "site": "s",
                "endpoint": endpoint,
            }
        )
        probe = await nodes.probe(node, "/health/live", timeout_s=0.1)
    assert (probe.ok, probe.error_type) == (False, error_type)
    assert probe.error is not None and says in probe.error


async def test_orders_to_each_agent_have_connections_of_their_own() -> None:
    """However many others there are: a stream of events is open to each."""
    silent, answering = Agent(), Agent()
    silent.answer = None
    async with (
        listening(silent) as one,
        listening(answering) as other,
        Transport().agents(timeout_s=5, connections=2) as client,
    ):
        held = [asyncio.create_task(client.get(f"{one}/events")) for _ in range(4)]
        try:
            async with asyncio.timeout(5):
                while silent.connections < 2:
                    await asyncio.sleep(0.001)
                for _ in range(3):
                    assert (await client.get(f"{other}/state")).status_code == 200
        finally:
            for stream in held:
                stream.cancel()
            await asyncio.gather(*held, return_exceptions=True)
    assert (silent.connections, answering.connections) == (2, 1)
