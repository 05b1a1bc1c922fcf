"""The DNS server that takes no updates still answers, and takes them again."""

from __future__ import annotations

from pathlib import Path

import dns.message
import dns.name
import dns.tsig
import dns.update
from dns.rcode import Rcode
from dns.rdatatype import RdataType

from qnwis.lab.nameserver import Journal, Nameserver
from qnwis.lab.zone import new_zone

ORIGIN, KEY = dns.name.from_text("lab.test."), dns.tsig.Key("lab.", b"secret", "hmac-sha256")


def test_updates_are_refused_while_the_file_is_there_and_queries_are_not(tmp_path: Path) -> None:
    zone = new_zone(
        ORIGIN, nameserver="10.0.0.53", addresses={dns.name.from_text("db", None): "10.0.0.1"}, ttl_s=1
    )
    refusing = tmp_path / "refusing"
    server = Nameserver(zone, Journal(tmp_path / "dns.jsonl"), KEY, refusing=refusing)

    def update(address: str) -> Rcode:
        message = dns.update.UpdateMessage(ORIGIN, keyring=KEY)
        message.replace("db", 1, "A", address)
        wire = server.respond(message.to_wire(), "test", stream=True)
        assert wire is not None
        return dns.message.from_wire(wire, keyring=KEY, request_mac=message.mac).rcode()

    def asked() -> str:
        query = dns.message.make_query("db.lab.test.", RdataType.A)
        wire = server.respond(query.to_wire(), "test", stream=True)
        assert wire is not None
        return str(dns.message.from_wire(wire).answer[0][0])

    refusing.touch()
    assert (update("10.0.0.2"), asked()) == (Rcode.REFUSED, "10.0.0.1")
    refusing.unlink()
    assert (update("10.0.0.3"), asked()) == (Rcode.NOERROR, "10.0.0.3")
