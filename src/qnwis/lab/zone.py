"""A DNS zone as a value, and what RFC 2136 says of updates to it. No I/O.

The section numbers in this file are those of RFC 2136.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.rrset
import dns.update
from dns.name import Name
from dns.rcode import Rcode
from dns.rdataclass import RdataClass
from dns.rdataset import Rdataset
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.SOA import SOA
from dns.rrset import RRset

Key = tuple[Name, RdataType]

_NOT_DATA = frozenset({RdataType.ANY, RdataType.AXFR, RdataType.IXFR, RdataType.MAILA, RdataType.MAILB})


@dataclass(frozen=True)
class Zone:
    """An origin and its RRsets, by absolute owner name and type; the SOA at the origin is always there."""

    origin: Name
    rrsets: Mapping[Key, Rdataset]

    @property
    def soa(self) -> RRset:
        found = self.rrsets[self.origin, RdataType.SOA]
        return dns.rrset.from_rdata_list(self.origin, found.ttl, list(found))

    @property
    def serial(self) -> int:
        return _soa(self.rrsets[self.origin, RdataType.SOA]).serial

    def has_name(self, name: Name) -> bool:
        return any(owner == name for owner, _ in self.rrsets)


def new_zone(
    origin: Name,
    *,
    nameserver: str,
    addresses: Mapping[Name, str],
    services: Mapping[Name, Sequence[str]] = {},
    ttl_s: int,
) -> Zone:
    """A zone with an SOA, one name server `ns`, an A record for each name (relative to the origin), and the
    SRV records of each service."""
    server = dns.name.from_text("ns", origin)
    soa = f"{server} hostmaster.{origin} 1 3600 600 86400 {ttl_s}"
    rrsets = {
        (origin, RdataType.SOA): dns.rdataset.from_text("IN", "SOA", ttl_s, soa),
        (origin, RdataType.NS): dns.rdataset.from_text("IN", "NS", ttl_s, str(server)),
        (server, RdataType.A): dns.rdataset.from_text("IN", "A", ttl_s, nameserver),
    }
    for name, address in addresses.items():
        rrsets[name.derelativize(origin), RdataType.A] = dns.rdataset.from_text("IN", "A", ttl_s, address)
    for name, records in services.items():
        made = dns.rdataset.from_text_list("IN", "SRV", ttl_s, records)
        rrsets[name.derelativize(origin), RdataType.SRV] = made
    return Zone(origin, rrsets)


def answer(zone: Zone, query: dns.message.Message) -> dns.message.Message:
    """The authoritative answer to a query; REFUSED outside the zone."""
    response = dns.message.make_response(query)
    if len(query.question) != 1:
        response.set_rcode(Rcode.FORMERR)
        return response
    question = query.question[0]
    if question.rdclass != RdataClass.IN or not question.name.is_subdomain(zone.origin):
        response.set_rcode(Rcode.REFUSED)
        return response
    if question.rdtype in _NOT_DATA:
        response.set_rcode(Rcode.NOTIMP)
        return response
    response.flags |= dns.flags.AA
    found = zone.rrsets.get((question.name, question.rdtype))
    found = found or zone.rrsets.get((question.name, RdataType.CNAME))
    if found:
        response.answer.append(dns.rrset.from_rdata_list(question.name, found.ttl, list(found)))
        return response
    exists = any(owner.is_subdomain(question.name) for owner, _ in zone.rrsets)
    response.set_rcode(Rcode.NOERROR if exists else Rcode.NXDOMAIN)
    response.authority.append(zone.soa)
    return response


def updated(zone: Zone, update: dns.update.UpdateMessage) -> tuple[Rcode, Zone]:
    """What an update answers and the zone after it; the same zone when nothing changes (3.1 to 3.6)."""
    if len(update.zone) != 1 or update.zone[0].rdtype != RdataType.SOA:
        return Rcode.FORMERR, zone
    if update.zone[0].name != zone.origin or update.zone[0].rdclass != RdataClass.IN:
        return Rcode.NOTAUTH, zone
    for refusal in (check_prerequisites(zone, update.prerequisite), _prescan(zone, update.update)):
        if refusal is not Rcode.NOERROR:
            return refusal, zone
    return Rcode.NOERROR, _applied(zone, update.update)


def check_prerequisites(zone: Zone, prerequisites: Iterable[RRset]) -> Rcode:
    """Section 3.2. NOERROR when all hold."""
    exact: dict[Key, set[dns.rdata.Rdata]] = {}
    for rrset in prerequisites:
        key = (rrset.name, rrset.rdtype)
        if rrset.ttl != 0:
            return Rcode.FORMERR
        if not rrset.name.is_subdomain(zone.origin):
            return Rcode.NOTZONE
        if rrset.deleting == RdataClass.ANY:  # the name, or the RRset, is in use
            if rrset.rdtype == RdataType.ANY:
                if not zone.has_name(rrset.name):
                    return Rcode.NXDOMAIN
            elif key not in zone.rrsets:
                return Rcode.NXRRSET
        elif rrset.deleting == RdataClass.NONE:  # the name, or the RRset, is not in use
            if rrset.rdtype == RdataType.ANY:
                if zone.has_name(rrset.name):
                    return Rcode.YXDOMAIN
            elif key in zone.rrsets:
                return Rcode.YXRRSET
        elif rrset.rdclass == RdataClass.IN and rrset.rdtype not in _NOT_DATA:
            exact.setdefault(key, set()).update(rrset)
        else:
            return Rcode.FORMERR
    for key, rdatas in exact.items():  # the RRset is exactly this
        if set(zone.rrsets.get(key, ())) != rdatas:
            return Rcode.NXRRSET
    return Rcode.NOERROR


def _prescan(zone: Zone, updates: Iterable[RRset]) -> Rcode:
    """Section 3.4.1. NOERROR when every record may be applied."""
    for rrset in updates:
        if not rrset.name.is_subdomain(zone.origin):
            return Rcode.NOTZONE
        if rrset.deleting == RdataClass.ANY:
            well_formed = rrset.rdtype == RdataType.ANY or rrset.rdtype not in _NOT_DATA
        elif rrset.deleting == RdataClass.NONE:
            well_formed = rrset.ttl == 0 and rrset.rdtype not in _NOT_DATA
        else:
            well_formed = rrset.rdclass == RdataClass.IN and rrset.rdtype not in _NOT_DATA
        if not well_formed:
            return Rcode.FORMERR
    return Rcode.NOERROR


def _applied(zone: Zone, updates: Iterable[RRset]) -> Zone:
    """Sections 3.4.2 and 3.6: the records in order, then the serial, if anything has changed."""
    rrsets = dict(zone.rrsets)
    for rrset in updates:
        if rrset.deleting == RdataClass.ANY:
            _delete_rrsets(rrsets, zone.origin, rrset)
        elif rrset.deleting == RdataClass.NONE:
            _delete_records(rrsets, zone.origin, rrset)
        else:
            _add_records(rrsets, zone.origin, rrset)
    if _same(rrsets, zone.rrsets):
        return zone
    key = (zone.origin, RdataType.SOA)
    if _soa(rrsets[key]).serial == zone.serial:
        soa = _soa(rrsets[key]).replace(serial=(zone.serial + 1) % 2**32)
        rrsets[key] = dns.rdataset.from_rdata(rrsets[key].ttl, soa)
    return Zone(zone.origin, rrsets)


def _delete_rrsets(rrsets: dict[Key, Rdataset], origin: Name, rrset: RRset) -> None:
    """Delete an RRset, or all of a name; the zone's own SOA and NS stay."""
    for key in [k for k in rrsets if k[0] == rrset.name and rrset.rdtype in (RdataType.ANY, k[1])]:
        if key not in ((origin, RdataType.SOA), (origin, RdataType.NS)):
            del rrsets[key]


def _delete_records(rrsets: dict[Key, Rdataset], origin: Name, rrset: RRset) -> None:
    """Delete single records; the SOA and the last name server of the zone stay."""
    key = (rrset.name, rrset.rdtype)
    found = rrsets.get(key)
    if found is None or rrset.rdtype == RdataType.SOA:
        return
    if key == (origin, RdataType.NS) and set(found) <= set(rrset):
        return
    left = [rdata for rdata in found if rdata not in rrset]
    if left:
        rrsets[key] = dns.rdataset.from_rdata_list(found.ttl, left)
    else:
        del rrsets[key]


def _add_records(rrsets: dict[Key, Rdataset], origin: Name, rrset: RRset) -> None:
    """Add records: a CNAME and other data never share a name, and an SOA only replaces an older one."""
    key = (rrset.name, rrset.rdtype)
    others = {rdtype for name, rdtype in rrsets if name == rrset.name} - {rrset.rdtype}
    if (rrset.rdtype == RdataType.CNAME and others) or RdataType.CNAME in others:
        return
    if rrset.rdtype == RdataType.SOA:
        older = rrset.name == origin and _newer(_soa(rrset).serial, _soa(rrsets[key]).serial)
        if not older:
            return
    if rrset.rdtype in (RdataType.SOA, RdataType.CNAME) or key not in rrsets:
        rrsets[key] = dns.rdataset.from_rdata_list(rrset.ttl, list(rrset))
        return
    # One RRset has one TTL (RFC 2181, section 5.2): the newest.
    rrsets[key] = dns.rdataset.from_rdata_list(rrset.ttl, [*rrsets[key], *rrset])


def _same(one: Mapping[Key, Rdataset], other: Mapping[Key, Rdataset]) -> bool:
    """Equal records and equal TTLs (an Rdataset's own equality leaves out the TTL)."""
    return one.keys() == other.keys() and all(one[k] == other[k] and one[k].ttl == other[k].ttl for k in one)


def _newer(serial: int, than: int) -> bool:
    """Serial number arithmetic, RFC 1982."""
    return 0 < (serial - than) % 2**32 < 2**31


def _soa(rdataset: Rdataset) -> SOA:
    rdata = rdataset[0]
    assert isinstance(rdata, SOA)
    return rdata
