"""The agents of every node, played by one process as cheaply as it can be done in Python.

    python -m tests.bench.scale.agents --clusters 1000

It listens at every address of the loopback interface; the address that is asked tells the node. Health
questions are answered from bytes that were made once, everything else by `played`. What it is told, and what
it counts: `control`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable

from pydantic import BaseModel, TypeAdapter

from activities.beats import DEEP, LIVE, READY
from qnwis.agent.checks import Health
from qnwis.continuity.lease_messages import PromiseRequest, Withdrawal
from qnwis.continuity.orders import AnyOrder
from qnwis.continuity.refusal import Refusal

from .control import CONTROL, COUNTS, FAIL, HEAL, MARK, Done, How, Which
from .counting import Heartbeats, deadline_s
from .dropping import silence
from .played import PlayedCluster
from .world import AGENT_PORT, HEARTBEAT, NODES, address, every_node, node_id

STATUSES = {200: "OK", 404: "Not Found", 409: "Conflict"}
HEARTBEAT_PATH = LIVE.encode()
END_OF_HEAD = b"\r\n\r\n"
BACKLOG = 4096
_ORDER: TypeAdapter[AnyOrder] = TypeAdapter(AnyOrder)


def answer(body: BaseModel | str, status: int = 200) -> bytes:
    text = (body if isinstance(body, str) else body.model_dump_json()).encode()
    head = (
        f"HTTP/1.1 {status} {STATUSES[status]}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(text)}\r\n\r\n"
    )
    return head.encode() + text


HEALTH = [
    {
        path.encode(): answer(Health(node_id=node_id(index), status=status))
        for path, status in ((LIVE, "alive"), (READY, "ready"), (DEEP, "healthy"))
    }
    for index in range(NODES)
]
"""By node's index: what a node that is well answers."""


class Agent:
    """One node's agent."""

    def __init__(self, cluster: PlayedCluster, index: int, number: int) -> None:
        self.cluster = cluster
        self.index = index
        self.number = number
        """Among all nodes."""
        self.health = HEALTH[index]
        self.failed: How | None = None
        self.connections: set[Connection] = set()
        self.watchers: set[Connection] = set()


class Agents:
    """All of them, and what is counted."""

    def __init__(self, clusters: int) -> None:
        played = [PlayedCluster(number, time.monotonic) for number in range(clusters)]
        self.at = {
            address(number, index): Agent(played[number], index, NODES * number + index)
            for number, index in every_node(clusters)
        }
        self.heartbeats = Heartbeats(len(self.at), deadline_s(HEARTBEAT))
        self.asked: Counter[bytes] = Counter()
        self.others = 0
        self.listener: socket.socket | None = None

    async def listen(self, port: int = AGENT_PORT) -> asyncio.Server:
        """Begin to answer, on the loopback interface alone."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        listener.bind(("0.0.0.0", port))  # one port per node would be thousands of listeners
        self.listener = listener
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: Connection(self), sock=listener, backlog=BACKLOG)

    # What the bench says

    def control(self, path: str, body: bytes) -> bytes:
        if path == COUNTS:
            return answer(self._counts())
        which = Which.model_validate_json(body)
        agents = [self.at[address(number, index)] for number, index in which.nodes]
        match path:
            case path if path == FAIL:
                self._fail(agents, which.how)
            case path if path == HEAL:
                self._heal(agents)
            case path if path == MARK:
                self.heartbeats.mark()
                self.asked.clear()
                self.others = 0
            case _:
                return answer("{}", 404)
        return answer(Done(at=time.time()))

    def _counts(self) -> BaseModel:
        return self.heartbeats.counts(time.monotonic()).model_copy(
            update={
                "asked": {path.decode(): count for path, count in self.asked.items()},
                "others": self.others,
                "streams": sum(len(agent.watchers) for agent in self.at.values()),
            }
        )

    def _fail(self, agents: list[Agent], how: How) -> None:
        for agent in agents:
            agent.failed = how
            agent.cluster.fail(agent.index)
            for connection in [*agent.connections] if how is How.KILLED else []:
                connection.reset()
        self._silence()

    def _heal(self, agents: list[Agent]) -> None:
        for agent in agents:
            # Whoever still waits on a connection from before has to make another one.
            for connection in [*agent.connections]:
                connection.reset()
            agent.failed = None
            agent.cluster.heal(agent.index)
        self._silence()

    def _silence(self) -> None:
        assert self.listener is not None, "it listens"
        silence(self.listener, (at for at, agent in self.at.items() if agent.failed is How.SILENT))

    # What is asked of an agent

    def act(self, agent: Agent, path: str, body: bytes) -> bytes:
        self.others += 1
        cluster, index = agent.cluster, agent.index
        said: BaseModel
        match path:
            case "/state":
                said = cluster.state(index)
            case "/membership":
                said = cluster.membership(index)
            case "/lease/promise":
                said = cluster.promise(index, PromiseRequest.model_validate_json(body))
            case "/lease/withdraw":
                said = cluster.withdraw(Withdrawal.model_validate_json(body))
            case "/orders":
                said = cluster.obey(index, _ORDER.validate_json(body))
                self._tell(agent)
            case _:
                return answer(json.dumps({"error": f"{path} is not played here"}), 404)
        return answer(said, 409 if isinstance(said, Refusal) else 200)

    def _tell(self, agent: Agent) -> None:
        line = _chunk(agent)
        for connection in agent.watchers:
            connection.send(line)


def _chunk(agent: Agent) -> bytes:
    line = agent.cluster.event(agent.index).model_dump_json().encode() + b"\n"
    return b"%x\r\n%s\r\n" % (len(line), line)


class Connection(asyncio.Protocol):
    """HTTP/1.1, kept alive; as much of it as the product's client speaks."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents
        self._agent: Agent | None = None
        self._transport: asyncio.Transport | None = None
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        at = transport.get_extra_info("sockname")[0]
        self._agent = self._agents.at.get(at)
        if self._agent is None:
            if at != CONTROL:
                self.reset()
            return
        self._agent.connections.add(self)
        if self._agent.failed is How.KILLED:
            self.reset()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._agent is not None:
            self._agent.connections.discard(self)
            self._agent.watchers.discard(self)

    def reset(self) -> None:
        """End it at once, as the kernel does for a process that is gone."""
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        while (end := data.find(END_OF_HEAD)) >= 0:
            method, path, _ = data.split(b" ", 2)
            end += len(END_OF_HEAD)
            whole = end if method == b"GET" else end + _length(data[:end])
            if len(data) < whole:
                break
            self._asked(path, data[end:whole])
            data = data[whole:]
        self._rest = data

    def _asked(self, path: bytes, body: bytes) -> None:
        agent, agents = self._agent, self._agents
        if agent is None:
            self.send(agents.control(path.decode(), body))
            return
        if agent.failed is not None:
            return
        known = agent.health.get(path)
        if known is None:
            self._asked_for_more(agent, path.decode(), body)
            return
        agents.asked[path] += 1
        if path == HEARTBEAT_PATH:
            agents.heartbeats.asked(agent.number, time.monotonic())
        self.send(known)

    def _asked_for_more(self, agent: Agent, path: str, body: bytes) -> None:
        if path != "/events":
            self.send(self._agents.act(agent, path, body))
            return
        agent.watchers.add(self)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
        self.send(head + _chunk(agent))


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def serve(clusters: int, port: int, ready: Callable[[], None]) -> None:
    """Answer until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await Agents(clusters).listen(port)
    ready()
    await stop.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.scale.agents")
    parser.add_argument("--clusters", type=int, required=True)
    parser.add_argument("--port", type=int, default=AGENT_PORT)
    options = parser.parse_args()
    asyncio.run(serve(options.clusters, options.port, lambda: print("ready", flush=True)))


if __name__ == "__main__":
    main()
