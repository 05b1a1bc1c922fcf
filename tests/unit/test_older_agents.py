"""What is sent to an agent of an earlier version, which refuses a body with a field that it does not know."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

from qnwis.agent.lease import Leases, found_cluster
from qnwis.agent.peers import Peers
from qnwis.agent.speaking import Speaker
from qnwis.continuity.break_glass_shell import filled_in, tell
from qnwis.continuity.lease_messages import Ask, Promised, PromiseRequest, Release, Withdrawal
from qnwis.continuity.membership import Adopted, AnyChange, Peer, Proposed
from qnwis.continuity.model import Model
from qnwis.continuity.orders import AnyOrder
from qnwis.continuity.topology import Node, NodeRole, NodeStatus
from qnwis.providers.errors import Unreachable
from qnwis.providers.nodes import HttpNodes
from qnwis.transport import Transport
from tests.unit.agent.own import own_config

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
RUN = PromiseRequest(epoch=2, run_id="run", membership_version=1)
FORMER = PromiseRequest(epoch=2, run_id="n1 again", membership_version=1, former_holder="n1")
BEFORE_SERVED_EPOCH = {"epoch", "run_id", "membership_version", "former_holder"}
"""What a request for a promise may have for agents from before `served_epoch`."""


@asynccontextmanager
async def told() -> AsyncIterator[tuple[Node, list[bytes]]]:
    """Where an agent listens, and the bodies that it is sent."""
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next(line for line in head.splitlines() if line.startswith("content-length:"))
            bodies.append(await reader.readexactly(int(length.partition(":")[2])))
            writer.write(ANSWER)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield node_at(server.sockets[0].getsockname()[1]), bodies
    finally:
        server.close()


def node_at(port: int) -> Node:
    return Node(
        node_id="n2",
        hostname="127.0.0.1",
        role=NodeRole.WITNESS,
        region="r",
        site="s",
        status=NodeStatus.HEALTHY,
        endpoint=f"http://127.0.0.1:{port}",
    )


async def test_a_run_asks_older_agents_to_promise_with_nothing_that_they_do_not_know() -> None:
    async with told() as (node, bodies), HttpNodes(Transport()) as nodes:
        with contextlib.suppress(Unreachable):  # the answer is no promise
            await nodes.promise(node, RUN, timeout_s=5)
    (body,) = bodies
    assert set(json.loads(body)) <= BEFORE_SERVED_EPOCH
    assert PromiseRequest.model_validate_json(body) == RUN


async def test_a_former_holder_asks_older_agents_to_promise_with_nothing_that_they_do_not_know() -> None:
    async with told() as (node, bodies):
        speaker = Speaker(Transport())
        peer = Peer(node_id=node.node_id, agent_url=node.agent_url)
        await speaker.tell(peer, "lease/promise", FORMER, Promised)
        await speaker.aclose()
    (body,) = bodies
    assert set(json.loads(body)) <= BEFORE_SERVED_EPOCH
    assert PromiseRequest.model_validate_json(body) == FORMER


async def test_older_agents_hear_of_a_release_of_which_more_is_said_than_they_know(tmp_path: Path) -> None:
    """Else they would wait for the end of the lease, and their grant be the last word besides."""
    async with told() as (node, bodies):
        peer = Peer(node_id=node.node_id, agent_url=node.agent_url)
        config = own_config(tmp_path, peers=(peer,))
        found_cluster(config)
        speaker = Speaker(Transport())
        leases = Leases(config, Peers(config), speaker)
        assert leases.give_up(processes_left=0)
        leases.never_primary(epoch=0)
        await leases.told()
        leases.close()
        await speaker.aclose()
    said, known = [json.loads(body) for body in bodies], {"holder": "own", "epoch": 0}
    assert known in said and {**known, "never_primary": True} in said


def test_a_person_asks_older_agents_to_promise_with_nothing_that_they_do_not_know() -> None:
    node = node_at(1)
    assert "served_epoch" not in tell("n2", node, "/lease/promise", RUN)
    assert "served_epoch" not in filled_in(RUN, ".", "state.json")


def test_what_is_left_out_of_a_body_is_what_it_says_by_default() -> None:
    sent = {found for kind in SENT for found in models_in(kind)}
    assert {Peer, PromiseRequest} <= sent
    for model in sent:
        for name, field in model.model_fields.items():
            if type(None) in get_args(field.annotation):
                assert not field.is_required() and field.default is None, f"{model.__name__}.{name}"


SENT = (Ask, PromiseRequest, Release, Withdrawal, Proposed, Adopted, AnyChange, AnyOrder)


def models_in(kind: Any) -> Iterator[type[Model]]:
    """The models that a value of this type may consist of."""
    if isinstance(kind, type) and issubclass(kind, Model):
        yield kind
        for field in kind.model_fields.values():
            yield from models_in(field.annotation)
    for part in get_args(kind):
        yield from models_in(part)
