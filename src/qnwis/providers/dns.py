"""DNS as clients see it: reading an address record from every authoritative server, and moving it by
compare-and-swap (RFC 2136 update with a prerequisite, signed by TSIG, RFC 8945)."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.inet
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.tsig
import dns.update
from dns.rcode import Rcode
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.SOA import SOA

from qnwis.continuity.model import Model
from qnwis.continuity.readiness_facts import RecordAnswer, UpdateAnswer
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import DnsService, host_and_port

from .errors import Refused, Unreachable


class DnsChange(Model):
    """What a compare-and-swap found and left behind, read back from every server."""

    changed: bool
    """False when the record already had the wanted address."""
    before: tuple[str, ...]
    after: tuple[str, ...]
    serial: int | None = None
    """The zone's serial on the first server afterwards."""


TELLS_NOTHING = frozenset({"dns_not_authoritative", "dns_signature_refused", "dns_update_refused"})
"""Rules of refusals by which nobody knows what the record holds."""
UNUSED = tuple(f"192.0.2.{number}" for number in range(1, 255))
"""Addresses for documentation only (RFC 5737)."""
UNUSED_SERVICES = ("0 0 0 unused.invalid.",)
"""A name that there never is (RFC 6761)."""


class Dns(Protocol):
    """Reads and moves a service's address record. Raises Unreachable or Refused."""

    async def read(self, service: DnsService) -> dict[str, tuple[str, ...]]:
        """The A addresses that each authoritative server answers, sorted; () where the name has none. Of a
        service with `srv`, its service records as text (RFC 2782) instead."""
        ...

    async def record(self, service: DnsService) -> tuple[RecordAnswer, ...]:
        """The same for each server by itself, with the record's TTL. Raises nothing on purpose."""
        ...

    async def swap(
        self, service: DnsService, *, from_address: str, to_address: str, ttl_s: int | None = None
    ) -> DnsChange:
        """Move the record, if and only if it holds exactly `from_address`; already moved changes nothing.
        Returns when the address is answered everywhere.

        The same address twice sets the TTL alone, by default to the service's own.
        """
        ...

    async def try_update(self, service: DnsService) -> tuple[UpdateAnswer, ...]:
        """Whether the place that takes updates takes this one's: asked by one that changes nothing. Raises
        nothing on purpose."""
        ...


@dataclass(frozen=True)
class Rfc2136Dns:
    """Dns over the wire."""

    timeout_s: float = 1.0
    """Silence of a server after which it is asked a second and last time, seconds."""
    settle_s: float = 10.0
    """How long the other servers may take to have a change, seconds. BIND tells them of it 5 s later, unless
    its `notify-delay` says otherwise."""

    async def read(self, service: DnsService) -> dict[str, tuple[str, ...]]:
        answers = await asyncio.gather(
            *(self._addresses(service, server) for server in service.servers), return_exceptions=True
        )
        failures = [a for a in answers if isinstance(a, BaseException)]
        for failure in failures:
            if not isinstance(failure, Unreachable):
                raise failure
        if failures:
            raise Unreachable("; ".join(map(str, failures)))
        return {
            server: found
            for server, found in zip(service.servers, answers, strict=True)
            if not isinstance(found, BaseException)
        }

    async def record(self, service: DnsService) -> tuple[RecordAnswer, ...]:
        return tuple(await asyncio.gather(*(self._record(service, server) for server in service.servers)))

    async def _record(self, service: DnsService, server: str) -> RecordAnswer:
        try:
            addresses, ttl_s = await self._answer(service, server)
        except (Unreachable, Refused) as error:
            return RecordAnswer(server=server, addresses=None, reason=str(error))
        return RecordAnswer(server=server, addresses=addresses, ttl_s=ttl_s)

    async def swap(
        self, service: DnsService, *, from_address: str, to_address: str, ttl_s: int | None = None
    ) -> DnsChange:
        return await self.swap_all(service, (from_address,), (to_address,), ttl_s=ttl_s)

    async def swap_all(
        self,
        service: DnsService,
        from_addresses: tuple[str, ...],
        to_addresses: tuple[str, ...],
        *,
        ttl_s: int | None = None,
    ) -> DnsChange:
        """The same with any number of addresses but none, which would send clients nowhere."""
        before, after = tuple(sorted(from_addresses)), tuple(sorted(to_addresses))
        first = service.servers[0]
        update, name = _signed_update(service), _owner(service)
        kind = _type(service).name
        ttl_s = service.ttl_s if ttl_s is None else ttl_s
        update.present(name, kind, *before)
        update.replace(name, ttl_s, kind, *after)
        answer = await self._exchange(update, first)
        rcode = answer.rcode()
        # NXRRSET and NXDOMAIN: the record is something else, perhaps by our own earlier request whose
        # answer was lost.
        changed = rcode == Rcode.NOERROR and before != after
        if rcode in (Rcode.NXRRSET, Rcode.NXDOMAIN):
            try:
                found = await self._addresses(service, first)
            except Refused as refused:
                raise Unreachable(f"whether {name} was moved already cannot be seen: {refused}") from refused
            if found != after:
                raise Refused(
                    Refusal(
                        rule="dns_record_changed",
                        message=f"{name} on {first} holds {_listed(found)}; expected {_listed(before)} "
                        f"(to move it) or {_listed(after)} (already moved)",
                        values={
                            "expected": ", ".join(before),
                            "wanted": ", ".join(after),
                            "found": list(found),
                        },
                        remedy="Find out who changed the record, then plan again.",
                    )
                )
        elif rcode != Rcode.NOERROR:
            raise Refused(_update_refused(service, first, answer))
        await self._settled(service, after, None if before != after else ttl_s)
        return DnsChange(
            changed=changed,
            before=before if changed else after,
            after=after,
            serial=await self._serial(service, first),
        )

    async def try_update(self, service: DnsService) -> tuple[UpdateAnswer, ...]:
        first = service.servers[0]  # the others get the zone from it, and rightly refuse
        try:
            await self._change_nothing(service, first)
        except (Unreachable, Refused, KeyFileError) as error:
            return (UpdateAnswer(server=first, accepted=False, reason=str(error)),)
        return (UpdateAnswer(server=first, accepted=True),)

    async def _change_nothing(self, service: DnsService, server: str) -> None:
        """If the record is what it is, delete an address that it does not hold: the server checks all that it
        would check of a real update, down to who may change this name, and there is nothing to change."""
        name, found = _owner(service), await self._addresses(service, server)
        update, kind = _signed_update(service), _type(service)
        if found:
            update.present(name, kind.name, *found)
        else:
            update.absent(name, kind.name)
        unused = UNUSED if kind is RdataType.A else UNUSED_SERVICES
        update.delete(name, kind.name, next(data for data in unused if data not in found))
        answer = await self._exchange(update, server)
        rcode = answer.rcode()
        if rcode in (Rcode.NXRRSET, Rcode.NXDOMAIN, Rcode.YXRRSET):
            raise Unreachable(f"DNS server {server}: {name} changed while an update of it was tried")
        if rcode != Rcode.NOERROR:
            raise Refused(_update_refused(service, server, answer))

    async def _settled(self, service: DnsService, addresses: tuple[str, ...], ttl_s: int | None) -> None:
        """Wait until every server answers the new addresses; with `ttl_s` until every one answers that TTL,
        too: whoever waits for an old TTL to run out begins when nobody hands it out any more.

        Raises Unreachable and never Refused: the change stands, and a server that does not tell of it (it has
        only begun to load the zone, for one) is behind like any other.
        """
        deadline = time.monotonic() + self.settle_s
        while True:
            looks = (self._behind(service, server, addresses, ttl_s) for server in service.servers)
            behind = [told for told in await asyncio.gather(*looks) if told is not None]
            if not behind:
                return
            if time.monotonic() > deadline:
                done = f"was moved to {_listed(addresses)}" if ttl_s is None else f"has the TTL {ttl_s} s"
                raise Unreachable(
                    f"{_owner(service)} {done}, but after {self.settle_s:g} s "
                    f"{', '.join(behind)}; check the zone transfer to them"
                )
            await asyncio.sleep(0.1)

    async def _behind(
        self, service: DnsService, server: str, addresses: tuple[str, ...], ttl_s: int | None
    ) -> str | None:
        """What the server answers in place of what was wanted; None where it has it."""
        try:
            found, held_s = await self._answer(service, server)
        except Refused as refused:
            return refused.refusal.message
        except Unreachable as error:
            return str(error)
        if found == addresses and ttl_s in (None, held_s):
            return None
        return f"{server} answers {_listed(found)}" + (f" for {held_s} s" if found == addresses else "")

    async def _addresses(self, service: DnsService, server: str) -> tuple[str, ...]:
        addresses, _ = await self._answer(service, server)
        return addresses

    async def _answer(self, service: DnsService, server: str) -> tuple[tuple[str, ...], int | None]:
        """The record's addresses, sorted, and its TTL in seconds."""
        kind = _type(service)
        response = await self._exchange(dns.message.make_query(_owner(service), kind), server)
        rcode = response.rcode()
        if rcode == Rcode.NXDOMAIN:
            return (), None
        if rcode != Rcode.NOERROR or not response.flags & dns.flags.AA:
            said = rcode.name if rcode != Rcode.NOERROR else "an answer that is not authoritative"
            raise Refused(
                Refusal(
                    rule="dns_not_authoritative",
                    message=f"DNS server {server} answers {said} for {_owner(service)}",
                    values={"server": server, "name": str(_owner(service)), "rcode": rcode.name},
                    remedy=f"List only authoritative servers of zone {service.zone} in dns.servers.",
                )
            )
        records = [rrset for rrset in response.answer if rrset.rdtype == kind]
        addresses = tuple(sorted(rdata.to_text() for rrset in records for rdata in rrset))
        return addresses, max((rrset.ttl for rrset in records), default=None)

    async def _serial(self, service: DnsService, server: str) -> int | None:
        response = await self._exchange(dns.message.make_query(service.zone, RdataType.SOA), server)
        rdatas = [rdata for rrset in response.answer for rdata in rrset if isinstance(rdata, SOA)]
        return rdatas[0].serial if rdatas else None

    async def _exchange(self, message: dns.message.Message, server: str) -> dns.message.Message:
        """Ask by UDP, twice; by TCP when the answer is cut short. A signed question gets a signed answer, or
        an unsigned one that says no. Raises Unreachable, also where the server fails just now (SERVFAIL), or
        Refused for a signature that it does not take."""
        if (place := host_and_port(server)) is None:
            raise Unreachable(f"DNS server {server!r}: expected host:port")
        host, port = place
        try:
            address = await _ip_address(host)
            try:
                response = await _asked(message, address, port, self.timeout_s)
            except dns.exception.Timeout:  # a lost datagram
                response = await _asked(message, address, port, self.timeout_s)
        except dns.exception.Timeout as error:
            silence_s = 2 * self.timeout_s
            raise Unreachable(f"DNS server {server}: no answer within {silence_s:g} s") from error
        except dns.tsig.PeerError as error:
            raise Refused(
                Refusal(
                    rule="dns_signature_refused",
                    message=f"DNS server {server} refuses the TSIG signature: {error}",
                    values={"server": server},
                    remedy="Give dns.tsig_key_file the key that the server has, and check both clocks.",
                )
            ) from error
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise Unreachable(f"DNS server {server}: {error or type(error).__name__}") from error
        if response.rcode() == Rcode.SERVFAIL:
            # It says nothing of what was asked: whether an update was made first is not known either.
            raise Unreachable(f"DNS server {server} answers SERVFAIL")
        return response


class UnsignedAnswer(dns.exception.DNSException):
    """A signed update was accepted without a signature: by anybody."""

    msg = "the answer to a signed update has no signature, so anybody may have sent it"


async def _asked(
    message: dns.message.Message, address: str, port: int, timeout_s: float
) -> dns.message.Message:
    """Verified by itself: dnspython knows nothing between a signed answer and none, but Knot DNS and PowerDNS
    do not sign with which error they turn a signed update away."""
    wire, expires = message.to_wire(), time.time() + timeout_s
    response = await _by_datagram(wire, address, port, expires)
    if response.flags & dns.flags.TC:
        response = await _by_stream(wire, address, port, expires)
    if not message.is_response(response):
        raise dns.query.BadResponse
    if not message.had_tsig:
        return response
    if response.had_tsig:
        assert response.wire is not None, "it came from there"
        return dns.message.from_wire(response.wire, keyring=message.keyring, request_mac=message.mac)
    if response.rcode() == Rcode.NOERROR:
        raise UnsignedAnswer
    return response


UNVERIFIED: Any = False
"""In place of a key: a signature is read and not checked."""


async def _by_datagram(wire: bytes, address: str, port: int, expires: float) -> dns.message.Message:
    async with await _socket(address, socket.SOCK_DGRAM) as sock:
        await dns.asyncquery.send_udp(sock, wire, (address, port), expires)
        response: dns.message.Message
        response, _, _ = await dns.asyncquery.receive_udp(sock, (address, port), expires, keyring=UNVERIFIED)
    return response


async def _by_stream(wire: bytes, address: str, port: int, expires: float) -> dns.message.Message:
    left_s = max(0.0, expires - time.time())
    async with await _socket(address, socket.SOCK_STREAM, 0, None, (address, port), left_s) as sock:
        await dns.asyncquery.send_tcp(sock, wire, expires)
        response, _ = await dns.asyncquery.receive_tcp(sock, expires, keyring=UNVERIFIED)
    return response


async def _socket(address: str, *kind: object) -> Any:
    backend: Any = dns.asyncbackend.get_default_backend()
    return await backend.make_socket(dns.inet.af_for_address(address), *kind)


class KeyFileError(Exception):
    """A TSIG key file that cannot be used; the text names the file and what was expected."""


def read_key_file(path: Path) -> dns.tsig.Key:
    """The TSIG key in a file of BIND's form, as `tsig-keygen` writes it. Raises KeyFileError."""
    try:
        text = path.read_text()
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read ({error.strerror}); expected a TSIG key file") from error
    # Comments, but not the "//" that base64 may hold.
    text = re.sub(r'("[^"\n]*")|(//|#).*', lambda found: found[1] or "", text)
    found = re.search(r'\bkey\s+"?([^"\s{]+)"?\s*\{([^}]*)\}', text)
    fields = dict(re.findall(r'\b(algorithm|secret)\s+"?([^"\s;]+)"?\s*;', found[2])) if found else {}
    if found is None or fields.keys() != {"algorithm", "secret"}:
        raise KeyFileError(
            f'{path}: expected key "NAME" {{ algorithm hmac-sha256; secret "BASE64"; }}; '
            "as tsig-keygen writes it"
        )
    try:
        key = dns.tsig.Key(found[1], fields["secret"], fields["algorithm"])
    except (ValueError, dns.exception.DNSException) as error:
        raise KeyFileError(f"{path}: key {found[1]!r}: {error}") from error
    if key.algorithm not in dns.tsig.mac_sizes:
        raise KeyFileError(
            f"{path}: key {found[1]!r}: algorithm {fields['algorithm']!r} is unknown; expected hmac-sha256"
        )
    return key


def key_file_text(name: str, secret: str) -> str:
    """A TSIG key for hmac-sha256 in BIND's form; `secret` is base64."""
    return f'key "{name}" {{\n    algorithm hmac-sha256;\n    secret "{secret}";\n}};\n'


def _signed_update(service: DnsService) -> dns.update.UpdateMessage:
    """Raises KeyFileError."""
    update = dns.update.UpdateMessage(dns.name.from_text(service.zone))
    if service.tsig_key_file is not None:
        key = read_key_file(Path(service.tsig_key_file))
        update.use_tsig(key, key.name, algorithm=key.algorithm)
    return update


def _update_refused(service: DnsService, server: str, answer: dns.message.Message) -> Refusal:
    rcode, signed = answer.rcode(), service.tsig_key_file is not None
    allow = f"Allow updates of {_owner(service)} for the key of dns.tsig_key_file on {server}"
    same = "it has the key of dns.tsig_key_file by the same name, algorithm and secret"
    remedies = {
        Rcode.NOTAUTH: f"Check that {server} is the primary server of zone {service.zone}, and that {same}.",
        Rcode.REFUSED: f"{allow}, and check that {same}.",
        Rcode.NOTIMP: "The server takes no dynamic updates (RFC 2136); use one that does.",
    }
    if not signed and rcode != Rcode.NOTIMP:
        remedies[rcode] = f"Set dns.tsig_key_file. {allow}."
    how = "a signed update" if signed else "an unsigned update"
    return Refusal(
        rule="dns_update_refused",
        message=f"DNS server {server} answers {rcode.name} to {how} of {_owner(service)}",
        values={"server": server, "rcode": rcode.name, "signed": signed},
        remedy=remedies.get(rcode, "See the server's log."),
    )


def _owner(service: DnsService) -> dns.name.Name:
    """The record's name, absolute."""
    return dns.name.from_text(service.record_name)


def _type(service: DnsService) -> RdataType:
    return RdataType.A if service.srv is None else RdataType.SRV


def _listed(addresses: tuple[str, ...]) -> str:
    return ", ".join(addresses) or "no address"


async def _ip_address(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        return str(found[0][4][0])
