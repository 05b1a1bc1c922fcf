"""The DNS provider against the lab's real server: compare-and-swap, signatures, restarts, several servers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import dns.asyncquery
import dns.message
import dns.name
import dns.rrset
import dns.update
import pytest
from dns.flags import AA, QR, TC, Flag
from dns.opcode import Opcode
from dns.rcode import Rcode

from activities.dns import DnsRecords, RetimeRequest
from qnwis.continuity.executor import OutcomeStatus
from qnwis.continuity.plan import LowerTtl
from qnwis.lab.layout import DNS_PORT
from qnwis.providers.dns import UNUSED, KeyFileError, Rfc2136Dns, key_file_text, read_key_file
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.region_weights import DnsWeights
from tests.unit.continuity.scenes import cluster, node
from tests.unit.test_power import asked_so_long_ago

from .dns_lab import OLD, SECRET, DnsLab, dns_lab

NEW, THIRD = "127.77.1.11", "127.77.1.12"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[DnsLab]:
    async with dns_lab(tmp_path) as made:
        yield made


@pytest.fixture
def provider() -> Rfc2136Dns:
    return Rfc2136Dns(timeout_s=0.5, settle_s=0.3)


async def test_the_record_moves_once_and_a_repeated_swap_changes_nothing(
    lab: DnsLab, provider: Rfc2136Dns
) -> None:
    server = lab.service.servers[0]
    assert await provider.read(lab.service) == {server: (OLD,)}
    first = await provider.swap(lab.service, from_address=OLD, to_address=NEW)
    assert (first.changed, first.before, first.after, first.serial) == (True, (OLD,), (NEW,), 2)
    again = await provider.swap(lab.service, from_address=OLD, to_address=NEW)
    assert (again.changed, again.before, again.after, again.serial) == (False, (NEW,), (NEW,), 2)
    assert await provider.read(lab.service) == {server: (NEW,)}
    assert lab.changes() == [([OLD], [NEW])]


async def test_of_many_that_move_the_same_record_exactly_one_does(lab: DnsLab, provider: Rfc2136Dns) -> None:
    targets = [f"127.77.1.{100 + i}" for i in range(12)]
    results = await asyncio.gather(
        *(provider.swap(lab.service, from_address=OLD, to_address=target) for target in targets),
        return_exceptions=True,
    )
    (winner,) = [target for target, r in zip(targets, results, strict=True) if not isinstance(r, Exception)]
    assert all(isinstance(r, Refused) for r in results if isinstance(r, BaseException))
    assert lab.changes() == [([OLD], [winner])]


async def test_a_record_that_somebody_else_moved_is_left_alone(lab: DnsLab, provider: Rfc2136Dns) -> None:
    with pytest.raises(Refused) as caught:
        await provider.swap(lab.service, from_address=THIRD, to_address=NEW)
    refusal = caught.value.refusal
    assert refusal.rule == "dns_record_changed"
    assert refusal.values == {"expected": THIRD, "wanted": NEW, "found": [OLD]}
    with pytest.raises(Refused, match="holds no address"):
        await provider.swap(lab.service_on(0, name="other"), from_address=OLD, to_address=NEW)
    assert lab.changes() == []


async def test_an_update_needs_the_right_signature(lab: DnsLab, provider: Rfc2136Dns) -> None:
    (lab.home / "unknown.key").write_text(key_file_text("somebody.", SECRET))
    (lab.home / "wrong.key").write_text(key_file_text("lab.", SECRET.replace("c2Vj", "AAAA")))
    for key, rule, said in (
        (None, "dns_update_refused", "REFUSED"),
        ("unknown.key", "dns_signature_refused", "didn't know the key"),
        ("wrong.key", "dns_signature_refused", "didn't like the signature"),
    ):
        with pytest.raises(Refused, match=said) as caught:
            await provider.swap(lab.service_on(0, key=key), from_address=OLD, to_address=NEW)
        assert caught.value.refusal.rule == rule
    assert await provider.read(lab.service) == {lab.service.servers[0]: (OLD,)}
    assert lab.changes() == []


async def test_whether_a_server_takes_updates_is_tried_and_nothing_changes(
    lab: DnsLab, provider: Rfc2136Dns
) -> None:
    (lab.home / "wrong.key").write_text(key_file_text("lab.", SECRET.replace("c2Vj", "AAAA")))
    await lab.start(1)
    for name in ("db", "other"):  # with a record, and without
        (answer,) = await provider.try_update(lab.service_on(0, 1, name=name))
        assert answer.accepted and answer.server == lab.service.servers[0], answer
    for key, said in (
        (None, "REFUSED"),
        ("wrong.key", "didn't like the signature"),
        ("none.key", "cannot be read"),
    ):
        (answer,) = await provider.try_update(lab.service_on(0, 1, key=key))
        assert not answer.accepted and said in answer.reason, answer
    lab.processes.kill("dns-1")
    (answer,) = await provider.try_update(lab.service_on(1))
    assert not answer.accepted and "no answer" in answer.reason
    elsewhere = lab.service.model_copy(update={"zone": "other.test"})
    assert [answer.accepted for answer in await provider.try_update(elsewhere)] == [False]
    # Were it to change something, there would be a line for it, and the zone another serial.
    assert not lab.journal(0).exists() and not lab.journal(1).exists()
    assert (await provider.swap(lab.service, from_address=OLD, to_address=NEW)).serial == 2


async def test_each_server_is_asked_by_itself_what_clients_get_and_for_how_long(
    lab: DnsLab, provider: Rfc2136Dns
) -> None:
    await lab.start(1, address=NEW)
    first, second = await provider.record(lab.service_on(0, 1))
    assert (first.addresses, first.ttl_s) == ((OLD,), 1) and second.addresses == (NEW,)
    await provider.swap(lab.service, from_address=OLD, to_address=OLD, ttl_s=7)
    (retimed,) = await provider.record(lab.service)
    assert (retimed.addresses, retimed.ttl_s) == ((OLD,), 7)
    (none,) = await provider.record(lab.service_on(0, name="other"))
    assert (none.addresses, none.ttl_s) == ((), None)
    lab.processes.kill("dns-1")
    _, silent = await provider.record(lab.service_on(0, 1))
    assert silent.addresses is None and "no answer" in silent.reason


async def test_a_lowered_ttl_is_undone_though_a_server_that_gets_the_zone_is_silent(
    lab: DnsLab, provider: Rfc2136Dns
) -> None:
    await provider.swap(lab.service, from_address=OLD, to_address=OLD, ttl_s=0)
    topology = cluster(node("node-1", "primary"), node("node-2"), dns=lab.service_on(0, 1))
    action = LowerTtl(action_id="1-lower-ttl", record="db", from_ttl_s=1, to_ttl_s=0, estimate_ms=1)
    request = RetimeRequest(run_id="run", epoch=1, cluster=topology, action=action)
    undo = DnsRecords(provider).retime_back
    with pytest.raises(Unreachable, match=lab.hosts[1]):
        await asked_so_long_ago(1).run(undo, request)
    undone = await asked_so_long_ago(5).run(undo, request)
    assert undone.status is OutcomeStatus.UNDONE and undone.facts == {}
    (restored,) = await provider.record(lab.service)
    assert (restored.addresses, restored.ttl_s) == ((OLD,), 1)


async def test_an_unused_address_in_the_record_is_not_deleted_by_a_trial(
    lab: DnsLab, provider: Rfc2136Dns
) -> None:
    await provider.swap(lab.service, from_address=OLD, to_address=UNUSED[0])
    (answer,) = await provider.try_update(lab.service)
    assert answer.accepted
    assert await provider.read(lab.service) == {lab.service.servers[0]: (UNUSED[0],)}


async def test_a_zone_that_the_server_does_not_hold_is_refused(lab: DnsLab, provider: Rfc2136Dns) -> None:
    elsewhere = lab.service.model_copy(update={"zone": "other.test"})
    with pytest.raises(Refused, match="NOTAUTH"):
        await provider.swap(elsewhere, from_address=OLD, to_address=NEW)
    with pytest.raises(Refused, match="REFUSED") as caught:
        await provider.read(elsewhere)
    assert caught.value.refusal.rule == "dns_not_authoritative"


async def test_a_killed_server_comes_back_with_every_answered_change(
    lab: DnsLab, provider: Rfc2136Dns
) -> None:
    await provider.swap(lab.service, from_address=OLD, to_address=NEW)
    await provider.swap(lab.service, from_address=NEW, to_address=THIRD)
    lab.processes.kill("dns-0")
    with lab.journal().open("a") as journal:
        journal.write('{"at": "never answ')
    await lab.start(0)
    assert await provider.read(lab.service) == {lab.service.servers[0]: (THIRD,)}
    back = await provider.swap(lab.service, from_address=THIRD, to_address=OLD)
    assert (back.changed, back.serial) == (True, 4)


async def test_a_silent_server_is_unreachable_and_named(lab: DnsLab, provider: Rfc2136Dns) -> None:
    both = lab.service_on(0, 1)
    with pytest.raises(Unreachable, match=f"DNS server {both.servers[1]}: no answer"):
        await provider.read(both)
    lab.processes.kill("dns-0")
    with pytest.raises(Unreachable, match=f"DNS server {both.servers[0]}: no answer"):
        await provider.swap(lab.service, from_address=OLD, to_address=NEW)


async def test_done_means_that_every_server_answers_the_new_address(
    lab: DnsLab, provider: Rfc2136Dns
) -> None:
    await lab.start(1, address=OLD)
    both = lab.service_on(0, 1)
    with pytest.raises(Unreachable, match=f"moved to {NEW}, but .* {both.servers[1]} answers {OLD}"):
        await provider.swap(both, from_address=OLD, to_address=NEW)
    swap = asyncio.create_task(Rfc2136Dns(settle_s=20).swap(both, from_address=OLD, to_address=NEW))
    await provider.swap(lab.service_on(1), from_address=OLD, to_address=NEW)  # the zone transfer, as it were
    assert (await swap).after == (NEW,)
    assert set((await provider.read(both)).values()) == {(NEW,)}


async def test_a_ttl_is_lowered_when_no_server_hands_the_old_one_out(
    lab: DnsLab, provider: Rfc2136Dns
) -> None:
    await lab.start(1)
    both = lab.service_on(0, 1)
    with pytest.raises(Unreachable, match=f"has the TTL 0 s, but .* {both.servers[1]} answers {OLD} for 1 s"):
        await provider.swap(both, from_address=OLD, to_address=OLD, ttl_s=0)
    waiting = Rfc2136Dns(settle_s=20).swap(both, from_address=OLD, to_address=OLD, ttl_s=0)
    swap = asyncio.create_task(waiting)
    await provider.swap(lab.service_on(1), from_address=OLD, to_address=OLD, ttl_s=0)
    await swap
    assert [answer.ttl_s for answer in await provider.record(both)] == [0, 0]


class Told(asyncio.DatagramProtocol):
    """A nameserver that says so to the first requests, and then answers queries with the address."""

    def __init__(self, rcode: Rcode, times: int, address: str = NEW, *, authoritative: bool = True) -> None:
        self._rcode, self.left, self._address = rcode, times, address
        self._flags = AA if authoritative else Flag(0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        asked = dns.message.from_wire(data, keyring=False)
        answer = dns.message.make_response(asked) if asked.opcode() == Opcode.QUERY else _to_update(asked)
        if self.left > 0:
            self.left -= 1
            answer.set_rcode(self._rcode)
            answer.flags |= self._flags
        else:
            answer.flags |= AA
            answer.answer.append(dns.rrset.from_text("db.lab.test.", 1, "IN", "A", self._address))
        self._transport.sendto(answer.to_wire(), addr)


def _to_update(asked: dns.message.Message) -> dns.message.Message:
    answer = dns.update.UpdateMessage("lab.test", id=asked.id)
    answer.flags |= QR
    return answer


@contextlib.asynccontextmanager
async def answering(host: str, told: Told) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: told, local_addr=(host, DNS_PORT))
    with contextlib.closing(transport):
        yield


UNTOLD = pytest.mark.parametrize(
    ("rcode", "authoritative"),
    [(Rcode.REFUSED, True), (Rcode.SERVFAIL, True), (Rcode.NOERROR, False)],
    ids=["refused", "servfail", "not authoritative"],
)


@UNTOLD
async def test_a_server_that_does_not_tell_of_a_change_that_was_made_is_waited_for(
    lab: DnsLab, rcode: Rcode, authoritative: bool
) -> None:
    both, secondary = lab.service_on(0, 1), Told(rcode, 3, authoritative=authoritative)
    async with answering(lab.hosts[1], secondary):
        done = await Rfc2136Dns(timeout_s=0.5, settle_s=20).swap(both, from_address=OLD, to_address=NEW)
    assert (done.changed, done.after, secondary.left) == (True, (NEW,), 0)


@UNTOLD
async def test_a_change_that_was_made_is_never_said_to_be_refused(
    lab: DnsLab, provider: Rfc2136Dns, rcode: Rcode, authoritative: bool
) -> None:
    both = lab.service_on(0, 1)
    async with answering(lab.hosts[1], Told(rcode, 1 << 30, authoritative=authoritative)):
        for _ in range(2):  # found as it was moved, the second time
            with pytest.raises(Unreachable, match=f"moved to {NEW}, but after .*{both.servers[1]} answers"):
                await provider.swap(both, from_address=OLD, to_address=NEW)
    assert lab.changes() == [([OLD], [NEW])]


async def test_a_primary_that_takes_updates_and_answers_no_query_does_not_say_that_it_refused_one(
    lab: DnsLab, provider: Rfc2136Dns
) -> None:
    class Hidden(Told):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            update = dns.message.from_wire(data, keyring=False).opcode() == Opcode.UPDATE
            self._rcode = Rcode.NXRRSET if update else Rcode.REFUSED
            super().datagram_received(data, addr)

    async with answering(lab.hosts[1], Hidden(Rcode.REFUSED, 1 << 30)):
        with pytest.raises(Unreachable, match=r"whether .* was moved already cannot be seen"):
            await provider.swap(lab.service_on(1), from_address=OLD, to_address=NEW)


async def test_a_server_that_fails_just_now_is_asked_again_and_has_not_refused(
    lab: DnsLab, provider: Rfc2136Dns
) -> None:
    server = lab.service_on(1)
    async with answering(lab.hosts[1], Told(Rcode.SERVFAIL, 1 << 30)):
        with pytest.raises(Unreachable, match=f"{server.servers[0]} answers SERVFAIL"):
            await provider.swap(server, from_address=OLD, to_address=NEW)
        with pytest.raises(Unreachable, match="SERVFAIL"):
            await provider.read(server)
        (answer,) = await provider.try_update(server)
    assert not answer.accepted and "SERVFAIL" in answer.reason


@pytest.mark.parametrize(
    ("rcode", "raised", "said"),
    [
        (Rcode.NOERROR, Unreachable, "has no signature, so anybody may have sent it"),
        (Rcode.NOTAUTH, Refused, "answers NOTAUTH to a signed update"),
    ],
)
async def test_an_answer_without_a_signature_may_say_no_and_never_yes(
    lab: DnsLab, provider: Rfc2136Dns, rcode: Rcode, raised: type[Exception], said: str
) -> None:
    class Impostor(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.DatagramTransport, transport)

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            asked = dns.message.from_wire(data, keyring=False)
            answer = dns.update.UpdateMessage("lab.test", id=asked.id)
            answer.flags |= QR
            answer.set_rcode(rcode)
            self.transport.sendto(answer.to_wire(), addr)

    loop, address = asyncio.get_running_loop(), (lab.hosts[1], DNS_PORT)
    transport, _ = await loop.create_datagram_endpoint(Impostor, local_addr=address)
    with contextlib.closing(transport), pytest.raises(raised, match=said):
        await provider.swap(lab.service_on(1), from_address=OLD, to_address=NEW)


async def test_an_answer_too_large_for_a_datagram_comes_by_tcp(lab: DnsLab, provider: Rfc2136Dns) -> None:
    key = read_key_file(lab.home / "lab.key")
    update = dns.update.UpdateMessage("lab.test", keyring=key, keyname=key.name, keyalgorithm=key.algorithm)
    update.add("many", 1, "A", *(f"10.0.{i}.1" for i in range(200)))
    assert (await dns.asyncquery.tcp(update, lab.hosts[0], 5, DNS_PORT)).rcode() == Rcode.NOERROR
    query = dns.message.make_query("many.lab.test", "A")
    assert (await dns.asyncquery.udp(query, lab.hosts[0], 5, DNS_PORT)).flags & TC
    answers = await provider.read(lab.service_on(0, name="many"))
    assert len(answers[lab.service.servers[0]]) == 200


async def test_rubbish_is_answered_with_an_error_and_does_no_harm(lab: DnsLab, provider: Rfc2136Dns) -> None:
    loop = asyncio.get_running_loop()
    answered: asyncio.Queue[bytes] = asyncio.Queue()

    class Listener(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            answered.put_nowait(data)

    transport, _ = await loop.create_datagram_endpoint(Listener, remote_addr=(lab.hosts[0], DNS_PORT))
    query = dns.message.make_query("db.lab.test", "A").to_wire()
    transport.sendto(b"no")
    transport.sendto(query[:2] + b"\x80" + query[3:])  # an answer, that must not be answered
    transport.sendto(query[:-3])
    answer = await answered.get()
    assert (answer[:2], answer[3] & 0x0F) == (query[:2], Rcode.FORMERR)
    transport.close()
    assert answered.empty()
    assert await provider.read(lab.service) == {lab.service.servers[0]: (OLD,)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", 'expected key "NAME"'),
        ('key "k" { algorithm hmac-sha256; };', 'expected key "NAME"'),
        ('key "k" { algorithm hmac-rot13; secret "c2VjcmV0"; };', "algorithm 'hmac-rot13' is unknown"),
        ('key "k" { algorithm hmac-sha256; secret "a"; };', "key 'k': "),
    ],
)
def test_a_bad_key_file_is_named_with_what_was_expected(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "k").write_text(text)
    with pytest.raises(KeyFileError, match=f"{tmp_path}/k: .*{said}"):
        read_key_file(tmp_path / "k")
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_key_file(tmp_path / "none")


def test_a_key_file_is_read_as_bind_reads_it(tmp_path: Path) -> None:
    (tmp_path / "k").write_text(
        f"# mine\nkey lab. {{ secret {SECRET}; // secret\n algorithm HMAC-SHA256; }};\n"
    )
    key = read_key_file(tmp_path / "k")
    assert (key.name, key.algorithm) == (dns.name.from_text("lab."), dns.name.from_text("hmac-sha256."))
    (tmp_path / "written").write_text(key_file_text("lab.", SECRET))
    assert read_key_file(tmp_path / "written") == key


def test_a_secret_may_look_like_a_comment(tmp_path: Path) -> None:
    secret = SECRET.replace("c2Vj", "//8A")
    (tmp_path / "k").write_text(f"# from tsig-keygen\n{key_file_text('lab.', secret)}// the end\n")
    assert base64.b64encode(read_key_file(tmp_path / "k").secret).decode() == secret


async def test_without_weights_a_region_takes_traffic_by_its_address_being_there(
    lab: DnsLab, provider: Rfc2136Dns
) -> None:
    await lab.start(1)
    nodes = [
        node(f"{region}-1", "primary", region, hostname=address, weight=weight)
        for region, address, weight in (("ap", OLD, 20), ("eu", NEW, 40), ("us", THIRD, 40))
    ]
    topology = cluster(*nodes, deployment="active_active", dns=lab.service)
    weights = DnsWeights(servers=provider)
    home, out = {"ap": 20, "eu": 40, "us": 40}, {"ap": 33, "eu": 0, "us": 67}
    assert await weights.in_force(topology) == {"ap": 100, "eu": 0, "us": 0}, "only its address is there"
    await provider.swap_all(lab.service, (OLD,), (NEW, THIRD, OLD))
    assert await weights.in_force(topology) == home

    assert (await weights.shift(topology, before=home, after=out)).changed
    assert not (await weights.shift(topology, before=home, after=out)).changed
    assert set((await provider.read(lab.service)).values()) == {(OLD, THIRD)}
    assert await weights.in_force(topology) == out
    with pytest.raises(Refused, match="dns_record_changed"):
        await weights.shift(topology, before={**home, "ap": 0}, after={"ap": 0, "eu": 0, "us": 100})
    assert (await weights.shift(topology, before=out, after=home)).changed
    assert await weights.in_force(topology) == home

    behind = cluster(*nodes, deployment="active_active", dns=lab.service_on(0, 1))
    with pytest.raises(Refused, match="dns_servers_disagree"):
        await weights.in_force(behind)
    smaller = [nodes[0], nodes[1].model_copy(update={"weight": 80})]
    with pytest.raises(Refused, match=f"expected some of .*{NEW}"):
        await weights.in_force(cluster(*smaller, deployment="active_active", dns=lab.service))


async def test_service_records_have_the_weights_of_regions_and_change_together_or_not_at_all(
    lab: DnsLab, provider: Rfc2136Dns
) -> None:
    name = "_postgresql._tcp.db"
    await lab.start(
        1, OLD, *(f"--service={name}=0 {w} 5432 {r}.db.lab.test." for r, w in (("eu", 60), ("us", 40)))
    )
    service = lab.service_on(1).model_copy(update={"srv": "_postgresql._tcp"})
    nodes = [node(f"{region}-1", "primary", region, weight=w) for region, w in (("eu", 60), ("us", 40))]
    topology = cluster(*nodes, deployment="active_active", dns=service)
    weights, home, out = DnsWeights(servers=provider), {"eu": 60, "us": 40}, {"eu": 0, "us": 100}
    assert await weights.in_force(topology) == home
    assert (await weights.shift(topology, before=home, after=out)).changed
    assert not (await weights.shift(topology, before=home, after=out)).changed
    assert set((await provider.read(service)).values()) == {("0 100 5432 us.db.lab.test.",)}
    assert await weights.in_force(topology) == out
    with pytest.raises(Refused, match="dns_record_changed"):
        await weights.shift(topology, before=home, after={"eu": 6, "us": 94})
    assert [answer.accepted for answer in await provider.try_update(service)] == [True]
    assert await weights.in_force(topology) == out, "a trial changes nothing"

    other = cluster(nodes[0].model_copy(update={"weight": 100}), deployment="active_active", dns=service)
    with pytest.raises(Refused, match=r"expected one record at most to each of eu\.db\.lab\.test\."):
        await weights.in_force(other)
