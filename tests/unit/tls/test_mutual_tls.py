"""Mutual TLS over real connections: an agent's door, its clients, and everybody who must not get through."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest
from aiohttp import web

from qnwis.agent.callers import Callers
from qnwis.agent.config import AgentConfig
from qnwis.agent.lease import Leases, found_cluster
from qnwis.agent.members import Members
from qnwis.agent.peers import Peers
from qnwis.agent.server import make_app
from qnwis.agent.speaking import Speaker
from qnwis.continuity.allowlist import Allowlist
from qnwis.continuity.evidence import NodeEvent
from qnwis.continuity.lease_messages import Ask, Membership, PromiseRequest, Release
from qnwis.continuity.membership import Adopted, Adoption, Forced, Proposal, Proposed
from qnwis.continuity.model import Model
from qnwis.continuity.topology import Cluster, Node, NodeRole
from qnwis.pki.authority import Authority, issued
from qnwis.pki.identities import (
    begin,
    enroll_client,
    enroll_node,
    finish,
    install,
    of_client,
    of_node,
    strike_off,
)
from qnwis.pki.listing import changed
from qnwis.providers.agent_tls import OWN as OWN_NAME
from qnwis.providers.agent_tls import AskedAgents
from qnwis.providers.errors import Unreachable
from qnwis.providers.nodes import HttpNodes
from qnwis.tls import files as files_module
from qnwis.tls.client import NotTheListedNode
from qnwis.tls.files import OWN, TlsError, TlsFiles
from qnwis.transport import Transport, transport_beside, transport_of


@dataclass
class Place:
    """An authority, a node that is served here, and a worker."""

    folder: Path
    node: Node
    authority: Authority
    said: list[str] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)
    callers: Callers | None = None

    @property
    def allowlist(self) -> Path:
        return self.folder / "allowlist.yaml"

    @property
    def cluster(self) -> Cluster:
        return Cluster(cluster_id="c", name="c", regions=("here",), nodes=(self.node,))

    @property
    def agent(self) -> TlsFiles:
        return TlsFiles(of_node(self.authority, "c", "a"), self.allowlist)

    def client(self, name: str = "worker") -> TlsFiles:
        return TlsFiles(of_client(self.authority, name), self.allowlist)

    def nodes(self, name: str = "worker") -> HttpNodes:
        return self.nodes_of(self.client(name))

    def nodes_of(self, files: TlsFiles) -> HttpNodes:
        return HttpNodes(Transport(tls=files, connect_timeout_s=5))

    def refused(self, rule: str) -> int:
        assert self.callers is not None
        return self.callers.refused[rule]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


EVENT = NodeEvent(node_id="a", database_up=True, writable=True, epoch=1).model_dump_json().encode() + b"\n"
CONFIG = {"cluster_id": "c", "node_id": "a", "role": "witness", "listen_host": "127.0.0.1", "peers": []}


@contextlib.asynccontextmanager
async def listening(place: Place, files: TlsFiles) -> AsyncIterator[None]:
    """An agent's door behind that identity, on the node's endpoint; whatever gets through it is noted."""
    config = AgentConfig.model_validate({**CONFIG, "state_dir": str(place.folder)})
    callers = place.callers = Callers(files, Peers(config))
    async with serving(place, _app(callers, place), callers):
        yield


@contextlib.asynccontextmanager
async def serving(place: Place, app: web.Application, callers: Callers) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    port = int(place.node.agent_url.rpartition(":")[2])
    try:
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=callers.context()).start()
        yield
    finally:
        await runner.cleanup()


def _app(callers: Callers, place: Place) -> web.Application:
    async def answer(request: web.Request) -> web.StreamResponse:
        place.said.append(request.path)
        place.connections.add(request.transport)
        if request.path != "/events":
            return web.json_response({"node_id": "a", "version": 1, "members": ["a"]})
        stream = web.StreamResponse()
        await stream.prepare(request)
        await stream.write(EVENT)
        await asyncio.Event().wait()
        return stream

    app = web.Application(middlewares=[callers.middleware])
    app.router.add_route("*", "/{anything:.*}", answer)
    return app


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return made_at(tmp_path, "QNWIS")


def made_at(folder: Path, organization: str) -> Place:
    node = Node.model_validate(
        {
            "node_id": "a",
            "hostname": "127.0.0.1",
            "role": NodeRole.PRIMARY,
            "region": "here",
            "site": "s",
            "status": "healthy",
            "endpoint": f"https://127.0.0.1:{free_port()}",
        }
    )
    made = Place(folder, node, Authority.make(folder / "pki", organization=organization, country="US"))
    enroll_node(made.authority, made.cluster, node, made.allowlist)
    enroll_client(made.authority, "worker", made.allowlist)
    return made


@pytest.fixture
async def door(place: Place) -> AsyncIterator[Place]:
    async with listening(place, place.agent):
        yield place


async def live(nodes: HttpNodes, place: Place) -> str | None:
    """Why the node does not answer."""
    return (await nodes.probe(place.node, "/health/live", timeout_s=5)).error


async def test_listed_parties_speak_and_what_they_speak_is_tls_1_3_with_a_listed_suite(door: Place) -> None:
    async with door.nodes() as nodes:
        assert await live(nodes, door) is None
        assert await live(nodes, door) is None
    assert door.said == ["/health/live"] * 2
    assert issued(door.agent.identity).certificate_dn == "CN=a.c,O=QNWIS,C=US"


@pytest.mark.parametrize("organization", ["Example, Inc.", r"R+D \"a\"; <b> \\ c", "#1", " Müller "])
async def test_parties_of_an_organization_of_any_name_speak(tmp_path: Path, organization: str) -> None:
    place = made_at(tmp_path, organization)
    async with listening(place, place.agent), place.nodes() as nodes:
        assert await live(nodes, place) is None
    assert not place.refused("certificate_not_listed")


async def test_whoever_asks_many_times_at_once_shakes_hands_a_few_times(door: Place) -> None:
    async with Transport(tls=door.client(), connect_timeout_s=5).agents(timeout_s=5, connections=4) as client:
        await asyncio.gather(*(client.get(f"{door.node.agent_url}/health/live") for _ in range(40)))
    assert (len(door.said), len(door.connections)) == (40, 4)


@pytest.mark.parametrize("secured", [True, False], ids=["mutual_tls", "in_the_clear"])
async def test_a_connection_to_an_agent_that_is_silent_for_long_is_kept_alive_or_found_dead(
    door: Place, secured: bool
) -> None:
    """Its event stream may have nothing to tell for months."""
    async with contextlib.AsyncExitStack() as running:
        url, transport = door.node.agent_url, Transport(tls=door.client(), connect_timeout_s=5)
        if not secured:
            plain = await asyncio.start_server(_answers_once, "127.0.0.1", 0)
            await running.enter_async_context(plain)
            url, transport = f"http://127.0.0.1:{plain.sockets[0].getsockname()[1]}", Transport()
        client = await running.enter_async_context(transport.agents(timeout_s=5))
        answered = await running.enter_async_context(client.stream("GET", f"{url}/events"))
        connection = answered.extensions["network_stream"].get_extra_info("socket")
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        idle, every, count = (connection.getsockopt(socket.IPPROTO_TCP, option) for option in options)
        assert idle + every * count <= 30


async def _answers_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    await writer.drain()
    writer.close()


async def test_a_spoofed_node_is_found_out_before_it_is_asked_anything(place: Place) -> None:
    """Another certificate of the same authority, for the same address and of the same name."""
    second = place.folder / "second"
    place.authority.issue(second, "a.c", ["127.0.0.1"])
    async with listening(place, TlsFiles(second, place.allowlist)), place.nodes() as nodes:
        probe = await nodes.probe(place.node, "/health/live", timeout_s=5)
    assert probe.error_type == "tls" and "certificate_not_listed" in str(probe.error)
    assert place.said == []


async def test_a_man_in_the_middle_with_an_authority_of_his_own_gets_nothing(place: Place) -> None:
    his = Authority.make(place.folder / "his", organization="QNWIS", country="US")
    his.issue(place.folder / "stolen", "a.c", ["127.0.0.1"])
    # He lets the worker's certificate through, to hear what it says.
    (place.folder / "stolen" / "ca.pem").write_bytes((place.folder / "pki" / "ca.pem").read_bytes())
    async with listening(place, TlsFiles(place.folder / "stolen", place.allowlist)), place.nodes() as nodes:
        probe = await nodes.probe(place.node, "/health/live", timeout_s=5)
    assert probe.error_type == "tls" and "handshake_failed" in str(probe.error)
    assert place.said == []


async def test_a_caller_whom_the_list_does_not_name_is_refused_counted_and_recorded(
    door: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    door.authority.issue(of_client(door.authority, "stranger"), "worker", [])
    async with door.nodes("stranger") as nodes:
        for _ in range(3):
            with pytest.raises(Unreachable):  # by way of httpx, which connects once for each
                await nodes.state(door.node, timeout_s=5)
        assert door.refused("certificate_not_listed") == 3
        assert await live(nodes, door) is not None
    assert door.said == []
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if "caller_refused" in line]
    (line,) = (one for one in lines if one["rule"] == "certificate_not_listed")  # at most one a second
    assert line["values"]["fingerprint"] == issued(of_client(door.authority, "stranger")).fingerprint


@pytest.mark.parametrize("what", ["no certificate", "another authority", "plain HTTP", "TLS 1.2"])
async def test_nobody_gets_through_otherwise(door: Place, what: str) -> None:
    ca, own = door.client().authority, door.client().own
    context = ssl.create_default_context(cafile=str(ca))
    if what == "another authority":
        his = Authority.make(door.folder / "his", organization="QNWIS", country=None)
        his.issue(door.folder / "of his", "worker", [])
        own = door.folder / "of his" / OWN
    if what != "no certificate":
        context.load_cert_chain(own)
    if what == "TLS 1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    url = door.node.agent_url.replace("https:", "http:") if what == "plain HTTP" else door.node.agent_url
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        with pytest.raises(httpx.TransportError):
            await client.get(f"{url}/health/live")
    assert door.said == []
    async with asyncio.timeout(10):
        while not door.refused("handshake_failed"):
            await asyncio.sleep(0)


async def test_a_suite_that_is_not_listed_ends_the_connection(door: Place) -> None:
    changed(door.allowlist, lambda found: with_suites(found, "TLS_CHACHA20_POLY1305_SHA256"))
    context = ssl.create_default_context(cafile=str(door.client().authority))
    context.load_cert_chain(door.client().own)
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        with pytest.raises(httpx.TransportError):  # OpenSSL agrees on AES first
            await client.get(f"{door.node.agent_url}/health/live")
    assert (door.said, door.refused("connection_too_weak")) == ([], 1)


@pytest.mark.skipif(hasattr(ssl.SSLContext, "set_ciphersuites"), reason="this Python can choose the suites")
async def test_a_list_that_could_never_be_agreed_on_is_an_error_at_once(place: Place) -> None:
    changed(place.allowlist, lambda found: with_suites(found, "TLS_CHACHA20_POLY1305_SHA256"))
    with pytest.raises(TlsError, match="must be among them"):
        async with listening(place, place.agent):
            pass


def with_suites(found: Allowlist, *suites: str) -> Allowlist:
    settings = found.security_settings.model_copy(update={"cipher_suites": suites})
    return found.model_copy(update={"security_settings": settings})


async def test_an_identity_is_replaced_while_its_owner_is_asked_all_the_time(door: Place) -> None:
    worker, agent = of_client(door.authority, "worker"), of_node(door.authority, "c", "a")
    steps: list[Callable[[Path], object]] = [
        lambda identity: begin(door.authority, identity, door.allowlist),
        lambda identity: install(identity, door.allowlist),
        lambda identity: finish(identity, door.allowlist),
    ]
    before = {issued(worker).fingerprint, issued(agent).fingerprint}
    async with door.nodes() as nodes:
        for identity in (worker, agent):
            for step in steps:
                assert await live(nodes, door) is None
                step(identity)
                assert await live(nodes, door) is None
    assert not before & {issued(worker).fingerprint, issued(agent).fingerprint}
    assert not door.refused("certificate_not_listed")
    with pytest.raises(TlsError, match="exists"):
        enroll_client(door.authority, "worker", door.allowlist)


async def test_the_old_certificate_counts_until_the_last_step_and_no_longer(door: Place) -> None:
    worker = of_client(door.authority, "worker")
    old = worker.with_name("old")
    old.mkdir(mode=0o700)
    for file in worker.iterdir():
        (old / file.name).write_bytes(file.read_bytes())
        (old / file.name).chmod(0o600)
    begin(door.authority, worker, door.allowlist)
    install(worker, door.allowlist)
    async with door.nodes("old") as behind:
        assert await live(behind, door) is None
        finish(worker, door.allowlist)
        assert await live(behind, door) is not None  # on the connection that it has
    assert door.refused("certificate_not_listed") == 1
    with pytest.raises(TlsError, match="not installed yet"):
        begin(door.authority, worker, door.allowlist)
        finish(worker, door.allowlist)


@pytest.mark.parametrize("what", ["gone", "half of it", "of another key", "not to be read"])
async def test_an_own_certificate_that_cannot_be_used_changes_nothing_and_is_named(
    door: Place, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """As where it was brought by a user whose files the agent may not read: the lease must not end by it."""
    worker, agent = of_client(door.authority, "worker") / OWN, of_node(door.authority, "c", "a") / OWN
    good = worker.read_bytes()
    async with door.nodes() as nodes:
        assert await live(nodes, door) is None
        worker.unlink()
        match what:
            case "half of it":
                worker.write_bytes(good[: len(good) // 2])
            case "of another key":
                worker.write_bytes(good[: good.index(b"-----BEGIN PRIVATE")] + agent.read_bytes()[-241:])
            case "not to be read":
                worker.mkdir()
        for _ in range(3):
            assert await live(nodes, door) is None
        lines = [line for line in caplog.messages if "the certificate before it stays in use" in line]
        assert len(lines) == 1 and str(worker.parent) in lines[0]
        if what == "not to be read":
            worker.rmdir()
        worker.write_bytes(good)
        assert await live(nodes, door) is None
        strike_off(worker.parent, door.allowlist)
        assert await live(nodes, door) is not None, "who is struck off is so all the same"


async def test_whoever_is_struck_off_is_refused_on_the_connection_that_is_open(door: Place) -> None:
    async with door.nodes() as nodes:
        assert await live(nodes, door) is None
        strike_off(of_client(door.authority, "worker"), door.allowlist)
        assert await live(nodes, door) is not None
    assert door.said == ["/health/live"]
    assert door.refused("certificate_not_listed") >= 1


async def test_a_node_that_is_struck_off_is_asked_nothing_more(door: Place) -> None:
    async with door.nodes() as nodes:
        assert await live(nodes, door) is None
        strike_off(of_node(door.authority, "c", "a"), door.allowlist)
        probe = await nodes.probe(door.node, "/health/live", timeout_s=5)
    assert probe.error_type == "tls" and "endpoint_not_listed" in str(probe.error)
    assert door.said == ["/health/live"]


async def test_the_events_of_a_node_that_is_struck_off_are_heard_no_longer(door: Place) -> None:
    async with door.nodes() as nodes:
        events = nodes.events(door.node)
        assert (await anext(events)).database_up
        rest = asyncio.create_task(anext(events))
        strike_off(of_node(door.authority, "c", "a"), door.allowlist)
        with pytest.raises(Unreachable):
            await nodes.state(door.node, timeout_s=5)
        with pytest.raises(Unreachable):
            await rest


UNUSABLE = {
    "a field is missing": (b"allowed_nodes: [{node_id: a}]", "allowed_nodes.0.endpoint"),
    "another encoding": (b"allowed_nodes: [] # caf\xe9", "is no UTF-8 text (the byte 0xe9)"),
    "no date": (b"allowed_clients: [{name: 2025-13-41}]", "month must be in 1..12"),
    "a date as a field": (b"2025-01-01: []", "keys must be str"),
    "an alias inside itself": (b"allowed_nodes: &all [*all]", "Circular reference"),
    "too deep": (b"[" * 1000, "RecursionError"),
}


@pytest.mark.parametrize(("content", "told"), UNUSABLE.values(), ids=list(UNUSABLE))
async def test_an_allowlist_that_cannot_be_read_changes_nothing_and_is_named(
    door: Place, caplog: pytest.LogCaptureFixture, content: bytes, told: str
) -> None:
    files = door.client()
    async with door.nodes_of(files) as nodes:
        door.allowlist.write_bytes(content)
        assert await live(nodes, door) is None
        assert await live(nodes, door) is None
    async with door.nodes_of(files) as anew:
        assert await live(anew, door) is None, "a new handshake is judged by the list before it too"
    lines = [line for line in caplog.messages if "the allowlist before it stays in force" in line]
    assert len(lines) == 2, "once by the agent, once by the client"
    assert files.trouble is not None and told in files.trouble and str(door.allowlist) in files.trouble
    with pytest.raises(TlsError, match="allowlist"):
        door.client()


def test_an_allowlist_that_cannot_be_read_is_not_read_with_every_use(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, good = place.client(), place.allowlist.read_text()
    reads = Mock(side_effect=files_module.read_allowlist)
    monkeypatch.setattr(files_module, "read_allowlist", reads)
    monkeypatch.setattr(files_module, "AGAIN_S", 3600.0)
    before = files.allowlist
    place.allowlist.write_text("allowed_nodes: 2025-13-41")
    assert [files.allowlist for _ in range(50)] == [before] * 50
    assert reads.call_count == 1 and files.trouble is not None
    place.allowlist.write_text(good + "# as it was\n")
    assert files.allowlist == before and files.trouble is None
    place.allowlist.write_text("allowed_nodes: 2025-13-41")
    assert files.allowlist == before and reads.call_count == 3 and files.trouble is not None
    monkeypatch.setattr(files_module, "AGAIN_S", 0.0)
    assert files.allowlist == before and reads.call_count == 4, "after a while it is looked at again"


def test_what_yaml_takes_for_a_date_is_its_text_in_an_allowlist(place: Place) -> None:
    listed = place.allowlist.read_text()
    place.allowlist.write_text(listed.replace("name: worker", "name: 2025-01-01"))
    assert [one.name for one in place.client().allowlist.allowed_clients] == ["2025-01-01"]


async def test_neither_agents_nor_clients_ask_what_is_not_for_them(place: Place) -> None:
    b = enrolled(place, "c", "b")
    async with asked_by_peers(place), Speaking(place, place.client()) as worker, Speaking(place, b) as agent:
        ask = Ask(ask_id="x", holder="b", epoch=1, run_id="r", membership_version=1)
        assert await worker.post("/lease/ask", ask) == (403, "path_not_for_caller")
        assert await agent.post("/orders", ask) == (403, "path_not_for_caller")
        assert await agent.post("/lease/ask", ask) == (200, None)
        forged = ask.model_copy(update={"holder": "a"})
        assert await agent.post("/lease/ask", forged) == (403, "speaks_for_another")
        told = await AskedAgents(Transport(tls=place.client(), connect_timeout_s=5)).refused(place.cluster)
    assert told is not None and told["a"].counts == {"path_not_for_caller": 2, "speaks_for_another": 1}
    assert told["a"].last_at is not None


async def test_a_listed_agent_of_another_cluster_changes_nothing_here(place: Place) -> None:
    """One of a name that is nobody's here, and one of the name of a peer."""
    for theirs in (enrolled(place, "dev", "dev-9"), enrolled(place, "dev", "b", number=9)):
        node_id = theirs.identity.name
        to_one = Membership(version=1_000_000_000, members=("a",))
        agreed = Adoption(old=ABC, new=to_one, acceptors=ABC.members)
        forced = agreed.model_copy(
            update={"acceptors": (), "forced": Forced(run_id="r", lost=("b", "c"), reason="x")}
        )
        proposal = Proposal(holder=node_id, epoch=99, membership=to_one)
        asks = {"epoch": 99, "run_id": "r", "membership_version": 1}
        bodies: list[tuple[str, Model, str]] = [
            ("/lease/promise", PromiseRequest(**asks), "speaks_for_another"),
            ("/lease/promise", PromiseRequest(**asks, former_holder=node_id, served_epoch=10**6), NO_PEER),
            ("/lease/ask", Ask(ask_id="x", holder=node_id, **asks), NO_PEER),
            ("/lease/release", Release(holder=node_id, epoch=99), NO_PEER),
            ("/membership/accept", Proposed(proposal=proposal, peers=()), NO_PEER),
            ("/membership/adopt", Adopted(adoption=agreed, peers=()), NO_PEER),
            ("/membership/adopt", Adopted(adoption=forced, peers=()), "speaks_for_another"),
            ("/membership/force", Adopted(adoption=forced, peers=()), "path_not_for_caller"),
        ]
        async with asked_by_peers(place) as leases, Speaking(place, theirs) as stranger:
            before = leases.view
            for path, body, why in bodies:
                assert await stranger.post(path, body) == (403, why), path
            assert leases.view == before


async def test_a_peer_says_of_the_membership_what_it_may(place: Place) -> None:
    b, c = enrolled(place, "c", "b"), enrolled(place, "c", "c")
    without_c = Membership(version=2, members=("a", "b"))
    agreed = Adopted(adoption=Adoption(old=ABC, new=without_c, acceptors=("a", "b")), peers=())
    forced = Forced(run_id="r", lost=("a",), reason="x")
    async with (
        asked_by_peers(place) as leases,
        Speaking(place, b) as member,
        Speaking(place, c) as removed,
        Speaking(place, place.client()) as worker,
    ):
        proposed = Proposed(proposal=Proposal(holder="b", epoch=1, membership=without_c), peers=())
        assert await removed.post("/membership/accept", proposed) == (403, "speaks_for_another")
        assert await member.post("/membership/accept", proposed) == (409, "not_the_holder")
        assert await member.post("/membership/adopt", agreed) == (200, None)
        assert leases.membership == without_c
        to_c = Membership(version=3, members=("a", "b", "c"), disks=(("c", "x"),))
        back = Adoption(old=without_c, new=to_c, acceptors=("a", "b"))
        assert await removed.post("/membership/adopt", Adopted(adoption=back, peers=())) == (403, NO_PEER)
        to_b = Membership(version=1_000_000, members=("b",))
        given_up = Adopted(adoption=Adoption(old=without_c, new=to_b, acceptors=(), forced=forced), peers=())
        assert await member.post("/membership/adopt", given_up) == (403, "speaks_for_another")
        unforced = given_up.model_copy(update={"adoption": back})
        assert await worker.post("/membership/force", unforced) == (403, "speaks_for_another")
        assert leases.membership == without_c
        assert await worker.post("/membership/force", given_up) == (200, None)
        assert leases.membership == to_b


ABC = Membership(version=1, members=("a", "b", "c"))
NO_PEER = "caller_no_peer"


def enrolled(place: Place, cluster_id: str, node_id: str, number: int = 1) -> TlsFiles:
    """The identity of a further node, whose endpoint is its own."""
    node = place.node.model_copy(update={"node_id": node_id, "endpoint": endpoint_of(node_id, number)})
    cluster = Cluster(cluster_id=cluster_id, name=cluster_id, regions=("here",), nodes=(node,))
    enroll_node(place.authority, cluster, node, place.allowlist)
    return TlsFiles(of_node(place.authority, cluster_id, node_id), place.allowlist)


def endpoint_of(node_id: str, number: int = 1) -> str:
    return f"https://{node_id}-{number}.example:8443"


@contextlib.asynccontextmanager
async def asked_by_peers(place: Place) -> AsyncIterator[Leases]:
    """The agent of `a`, whose peers are `b` and `c`, behind its door."""
    peers = [{"node_id": name, "agent_url": endpoint_of(name)} for name in ("b", "c")]
    with tempfile.TemporaryDirectory(dir=place.folder) as state_dir:
        config = AgentConfig.model_validate({**CONFIG, "state_dir": state_dir, "peers": peers})
        found_cluster(config)
        known, speaker = Peers(config), Speaker(Transport())
        leases = Leases(config, known, speaker)
        members, callers = Members(config, leases, known, speaker), Callers(place.agent, known)
        app = make_app(config, Mock(), Mock(), Mock(), Mock(), leases, members, None, callers)
        async with serving(place, app, callers):
            yield leases
        leases.close()
        await speaker.aclose()


@dataclass
class Speaking:
    """A client of the agent with that identity."""

    place: Place
    files: TlsFiles

    async def __aenter__(self) -> Speaking:
        self.client = Transport(tls=self.files, connect_timeout_s=5).agents(timeout_s=5)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def post(self, path: str, body: Model) -> tuple[int, str | None]:
        """Status, and the rule of a refusal."""
        answer = await self.client.post(self.place.node.agent_url + path, content=body.model_dump_json())
        return answer.status_code, answer.json().get("rule")


async def test_the_environment_says_how_agents_are_spoken_to(place: Place) -> None:
    worker = str(of_client(place.authority, "worker"))
    assert transport_of({}).tls is None
    assert transport_of({}, place.folder / "elsewhere").tls is None
    with pytest.raises(TlsError, match="QNWIS_IDENTITY_DIR is not set"):
        transport_of({}, place.folder)
    for environment in (
        {"QNWIS_CONFIG_DIR": str(place.folder)},
        {"QNWIS_ALLOWLIST": str(place.allowlist)},
    ):
        assert transport_of({**environment, "QNWIS_IDENTITY_DIR": worker}).tls == place.client()
    (of_client(place.authority, "worker") / OWN).chmod(0o644)
    with pytest.raises(TlsError, match="others can read it"):
        place.client()


@pytest.mark.parametrize("file", ["cluster.yaml", "clusters/c/cluster.yaml"])
async def test_a_command_finds_the_allowlist_with_the_file_of_its_cluster(place: Place, file: str) -> None:
    with pytest.raises(TlsError, match="QNWIS_IDENTITY_DIR is not set"):
        transport_beside(place.folder / file, {})
    worker = {"QNWIS_IDENTITY_DIR": str(of_client(place.authority, "worker"))}
    assert transport_beside(place.folder / file, worker).tls == place.client()
    copied = place.folder / "elsewhere" / file
    assert transport_beside(copied, worker).tls is None
    assert transport_beside(copied, {**worker, "QNWIS_CONFIG_DIR": str(place.folder)}).tls == place.client()


async def test_a_node_in_the_clear_is_not_spoken_to_where_there_is_a_list(place: Place) -> None:
    plain = place.node.model_copy(update={"endpoint": place.node.agent_url.replace("https", "http")})
    async with place.nodes() as nodes:
        with pytest.raises(Unreachable, match="endpoint_not_listed") as caught:
            await nodes.state(plain, timeout_s=5)
    assert isinstance(caught.value.__cause__, NotTheListedNode)
    with pytest.raises(TlsError, match="expected https"):
        enroll_node(place.authority, place.cluster, plain, place.allowlist)


async def test_readiness_sees_until_when_each_certificate_counts(door: Place) -> None:
    seen = await AskedAgents(Transport(tls=door.client(), connect_timeout_s=5)).certificates(door.cluster)
    assert seen is not None
    own, agents = issued(door.client().identity), issued(door.agent.identity)
    expected = [(OWN_NAME, own.not_after), ("a", agents.not_after)]
    assert [(one.owner, one.not_after) for one in seen] == expected
    strike_off(of_node(door.authority, "c", "a"), door.allowlist)
    _, gone = await AskedAgents(Transport(tls=door.client())).certificates(door.cluster) or ()
    assert gone.not_after is None and "endpoint_not_listed" in gone.reason
    assert await AskedAgents(Transport()).certificates(door.cluster) is None
