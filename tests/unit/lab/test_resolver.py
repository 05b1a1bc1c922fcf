"""The clients' resolver keeps an answer for its TTL and not a moment longer."""

from __future__ import annotations

from collections import Counter
from random import Random

import dns.asyncquery
import dns.exception
import dns.message
import dns.rrset
import pytest
from dns.message import Message
from dns.rcode import Rcode
from dns.rdatatype import RdataType

from qnwis.lab.resolver import NoAddressError, Resolver, Services


class Server:
    """Answers queries in place of the wire, and counts them."""

    def __init__(self) -> None:
        self.address: str | None = "127.77.1.10"
        self.services: tuple[str, ...] = ()
        self.queries = 0
        self.silent = False

    async def ask(self, query: Message, *_: object) -> tuple[Message, bool]:
        self.queries += 1
        if self.silent:
            raise dns.exception.Timeout
        response = dns.message.make_response(query)
        asked = query.question[0]
        if asked.rdtype is RdataType.SRV:
            response.answer.append(dns.rrset.from_text_list(asked.name, 5, "IN", "SRV", self.services))
        elif asked.name.to_text().startswith("region-2."):
            response.answer.append(dns.rrset.from_text(asked.name, 5, "IN", "A", "127.77.1.20"))
        elif self.address is None:
            response.set_rcode(Rcode.NXDOMAIN)
        else:
            response.answer.append(dns.rrset.from_text(query.question[0].name, 5, "IN", "A", self.address))
        return dns.message.from_wire(response.to_wire()), False


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(dns.asyncquery, "udp_with_fallback", server.ask)
    return server


async def test_an_answer_lives_as_long_as_its_ttl(server: Server) -> None:
    now = 100.0
    resolver = Resolver("127.77.1.53", 15353, now=lambda: now)
    assert await resolver.address("db.lab.test") == "127.77.1.10"
    server.address = "127.77.1.11"
    now = 104.999
    assert await resolver.address("db.lab.test") == "127.77.1.10"
    assert server.queries == 1
    now = 105.0
    assert await resolver.address("db.lab.test") == "127.77.1.11"
    assert server.queries == 2


async def test_a_name_without_an_address_and_a_silent_server_are_errors_and_not_kept(server: Server) -> None:
    resolver = Resolver("127.77.1.53", 15353, now=lambda: 1.0)
    server.address = None
    with pytest.raises(NoAddressError, match="NXDOMAIN"):
        await resolver.address("db.lab.test")
    server.silent = True
    with pytest.raises(NoAddressError, match="Timeout"):
        await resolver.address("db.lab.test")
    server.silent, server.address = False, "127.77.1.12"
    assert await resolver.address("db.lab.test") == "127.77.1.12"


async def test_clients_of_service_records_go_to_each_region_as_often_as_its_weight_says(
    server: Server,
) -> None:
    now = 1.0
    resolver = Resolver("127.77.1.53", 15353, now=lambda: now)
    services = Services(resolver, "_postgresql._tcp", Random(7))
    server.services = tuple(f"0 {w} 15432 region-{n}.db.lab.test." for n, w in ((1, 60), (2, 40)))
    went = Counter([await services.address("db.lab.test") for _ in range(1000)])
    assert went.keys() == {"127.77.1.10", "127.77.1.20"} and 550 < went["127.77.1.10"] < 650
    server.services, now = ("0 100 15432 region-2.db.lab.test.",), 7.0
    assert {await services.address("db.lab.test") for _ in range(50)} == {"127.77.1.20"}
