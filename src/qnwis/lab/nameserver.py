"""The lab's authoritative DNS server: one zone, UDP and TCP, updates by RFC 2136 signed by TSIG.

Its journal has a line for each change, on disk before the change is answered: the zone is rebuilt from it,
so that a killed server loses nothing, and a test can count the changes.

    python -m qnwis.lab.nameserver --zone lab.test --record db=127.77.1.10 --ttl 1 \
        --listen 127.77.1.53 --port 15353 --key-file tsig.key --journal dns.jsonl
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import dns.exception
import dns.message
import dns.name
import dns.opcode
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.rrset
import dns.tsig
import dns.update
from dns.flags import QR
from dns.opcode import Opcode
from dns.rcode import Rcode
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.TSIG import TSIG

from qnwis.providers.dns import read_key_file

from .errors import LabError
from .zone import Key, Zone, answer, new_zone, updated

log = logging.getLogger(__name__)


def changes(before: Zone, after: Zone) -> list[dict[str, object]]:
    """The RRsets that differ, each with its records before and after ([] where there is none)."""

    def records(zone: Zone, key: Key) -> list[str]:
        return sorted(rdata.to_text() for rdata in zone.rrsets.get(key, ()))

    differing = [
        key
        for key in sorted(before.rrsets.keys() | after.rrsets.keys())
        if records(before, key) != records(after, key) or _ttl(before, key) != _ttl(after, key)
    ]
    return [
        {
            "name": name.to_text(),
            "type": rdtype.name,
            "ttl": _ttl(after, (name, rdtype)),
            "before": records(before, (name, rdtype)),
            "after": records(after, (name, rdtype)),
        }
        for name, rdtype in differing
    ]


def _ttl(zone: Zone, key: Key) -> int:
    found = zone.rrsets.get(key)
    return 0 if found is None else found.ttl


@dataclass(frozen=True)
class Journal:
    """JSON lines, one a change; only ever appended to."""

    path: Path

    def replayed(self, zone: Zone) -> Zone:
        """The zone after every change. Raises LabError for a line that cannot be read.

        A last line without its end was never answered: it is cut off.
        """
        if not self.path.exists():
            return zone
        text = self.path.read_bytes()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            os.truncate(self.path, whole)
        rrsets = dict(zone.rrsets)
        for number, line in enumerate(text[:whole].splitlines(), start=1):
            try:
                for change in json.loads(line)["changes"]:
                    key = (dns.name.from_text(change["name"]), RdataType[change["type"]])
                    ttl, records = change["ttl"], change["after"]
                    if records:
                        rrsets[key] = dns.rdataset.from_text_list("IN", key[1], ttl, records)
                    else:
                        rrsets.pop(key, None)
            except (ValueError, KeyError, TypeError, dns.exception.DNSException) as error:
                raise LabError(f"{self.path}:{number}: not a change of the zone: {error!r}") from error
        return Zone(zone.origin, rrsets)

    def append(self, before: Zone, after: Zone, *, client: str) -> None:
        line = {
            "at": datetime.now(UTC).isoformat(),
            "client": client,
            "serial": after.serial,
            "changes": changes(before, after),
        }
        with self.path.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


class Nameserver:
    """Answers one message at a time, so that an update is atomic."""

    def __init__(
        self, zone: Zone, journal: Journal, key: dns.tsig.Key, *, refusing: Path | None = None
    ) -> None:
        """While a file is at `refusing`, no update is taken."""
        self._zone = journal.replayed(zone)
        self._journal = journal
        self._key = key
        self._refusing = refusing

    def respond(self, wire: bytes, client: str, *, stream: bool) -> bytes | None:
        """The answer to a message; None to what deserves none. A datagram is cut to what the asker takes."""
        try:
            message = dns.message.from_wire(wire, keyring=self._the_key)
        except (dns.message.UnknownTSIGKey, dns.tsig.BadAlgorithm):
            return self._tsig_error(wire, Rcode.BADKEY)
        except dns.tsig.BadSignature:
            return self._tsig_error(wire, Rcode.BADSIG)
        except dns.tsig.BadTime:
            return self._tsig_error(wire, Rcode.BADTIME)
        except (dns.exception.DNSException, struct.error, ValueError):
            return _form_error(wire)
        if message.flags & QR:
            return None
        response = self._response(message, client)
        max_size = 65535 if stream else max(512, message.payload)
        return response.to_wire(max_size=max_size, prefer_truncation=True)

    def _the_key(self, message: dns.message.Message, name: dns.name.Name) -> dns.tsig.Key | None:
        return self._key if name == self._key.name else None

    def _response(self, message: dns.message.Message, client: str) -> dns.message.Message:
        if message.opcode() == Opcode.QUERY:
            return answer(self._zone, message)
        response = dns.message.make_response(message)
        if not isinstance(message, dns.update.UpdateMessage):
            response.set_rcode(Rcode.NOTIMP)
        elif not message.had_tsig or (self._refusing is not None and self._refusing.exists()):
            response.set_rcode(Rcode.REFUSED)
        else:
            rcode, zone = updated(self._zone, message)
            if zone is not self._zone:
                self._journal.append(self._zone, zone, client=client)
                self._zone = zone
            response.set_rcode(rcode)
        if response.rcode() != Rcode.NOERROR:
            log.warning("%s to %s from %s", response.rcode().name, message.opcode().name, client)
        return response

    def _tsig_error(self, wire: bytes, error: Rcode) -> bytes:
        """NOTAUTH, with the reason in the TSIG record (RFC 8945, section 5.2).

        Unsigned where the key or the signature is in doubt; signed for a clock that differs.
        """
        message = dns.message.from_wire(wire, keyring=False)
        assert message.tsig is not None
        signature = message.tsig[0]
        assert isinstance(signature, TSIG)
        log.warning("%s: a message was signed with key %s", error.name, message.tsig.name)
        response = dns.message.make_response(message)
        response.set_rcode(Rcode.NOTAUTH)
        if error == Rcode.BADTIME:
            response.use_tsig(self._key, tsig_error=error, algorithm=self._key.algorithm)
            response.request_mac = signature.mac
        else:
            unsigned = signature.replace(mac=b"", error=error, other=b"")
            response.tsig = dns.rrset.from_rdata(message.tsig.name, 0, unsigned)
            response.want_tsig_sign = False
        return response.to_wire()


def _form_error(wire: bytes) -> bytes | None:
    """FORMERR to a message that cannot be read but has a header, and is not an answer itself."""
    if len(wire) < 12 or wire[2] & 0x80:
        return None
    opcode = wire[2] & 0x78
    return wire[:2] + bytes([0x80 | opcode, Rcode.FORMERR]) + bytes(8)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: Nameserver) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        response = self._server.respond(data, addr[0], stream=False)
        if response is not None and self._transport is not None:
            self._transport.sendto(response, addr)


async def _serve_stream(
    server: Nameserver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    client = str(writer.get_extra_info("peername")[0])
    try:
        while True:
            async with asyncio.timeout(10):
                (size,) = struct.unpack("!H", await reader.readexactly(2))
                wire = await reader.readexactly(size)
            response = server.respond(wire, client, stream=True)
            if response is None:
                return
            writer.write(struct.pack("!H", len(response)) + response)
            await writer.drain()
    except (EOFError, OSError, TimeoutError):
        return
    finally:
        writer.close()


async def serve(server: Nameserver, address: str, port: int) -> None:
    """Answer on UDP and TCP until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(server), local_addr=(address, port))
    streams = await asyncio.start_server(
        lambda reader, writer: _serve_stream(server, reader, writer), address, port
    )
    try:
        await stop.wait()
    finally:
        transport.close()
        streams.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="qnwis.lab.nameserver", description="The lab's DNS server")
    parser.add_argument("--zone", required=True)
    parser.add_argument("--record", action="append", required=True, help="name=address, an A record")
    parser.add_argument("--service", action="append", default=[], help="name=text, an SRV record")
    parser.add_argument("--ttl", type=int, required=True, help="seconds, of every record")
    parser.add_argument("--listen", required=True, help="IP address")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key-file", type=Path, required=True, help="TSIG key in BIND's form")
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--refusing", type=Path, help="while this file is there, updates are refused")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    addresses = dict(record.split("=", 1) for record in options.record)
    services: dict[dns.name.Name, list[str]] = {}
    for name, _, text in (record.partition("=") for record in options.service):
        services.setdefault(dns.name.from_text(name, None), []).append(text)
    zone = new_zone(
        dns.name.from_text(options.zone),
        nameserver=options.listen,
        addresses={dns.name.from_text(name, None): address for name, address in addresses.items()},
        services=services,
        ttl_s=options.ttl,
    )
    key = read_key_file(options.key_file)
    server = Nameserver(zone, Journal(options.journal), key, refusing=options.refusing)
    asyncio.run(serve(server, options.listen, options.port))


if __name__ == "__main__":
    main()
