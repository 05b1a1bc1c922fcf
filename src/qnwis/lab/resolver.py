"""Where the lab's clients find the database: by its name's address, by its service records, or pinned."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
from dns.rdata import Rdata
from dns.rdatatype import RdataType
from dns.rdtypes.IN.SRV import SRV


class NoAddressError(Exception):
    """The name cannot be resolved now."""


class Addresses(Protocol):
    """Where a client is to connect; raises NoAddressError."""

    async def address(self, name: str) -> str: ...


@dataclass
class Resolver:
    """Asks one DNS server and keeps an answer for as long as its TTL allows, and no longer."""

    server: str
    port: int
    now: Callable[[], float] = time.monotonic
    _cache: dict[tuple[str, RdataType], tuple[list[Rdata], float]] = field(default_factory=dict)

    async def address(self, name: str) -> str:
        """An IPv4 address of the name. Raises NoAddressError."""
        return str((await self.records(name, RdataType.A))[0])

    async def records(self, name: str, kind: RdataType) -> list[Rdata]:
        """The name's records of that kind, one at least. Raises NoAddressError."""
        records, valid_until = self._cache.get((name, kind), ([], float("-inf")))
        if self.now() < valid_until:
            return records
        asked_at = self.now()
        query = dns.message.make_query(name, kind)
        try:
            answer, _ = await dns.asyncquery.udp_with_fallback(query, self.server, 0.5, self.port)
        except (dns.exception.DNSException, OSError) as error:
            raise NoAddressError(f"DNS: {type(error).__name__}") from error
        found = answer.get_rrset(answer.answer, dns.name.from_text(name), dns.rdataclass.IN, kind)
        if not found:
            what = "address" if kind is RdataType.A else kind.name
            raise NoAddressError(f"DNS: {answer.rcode().name}, no {what}")
        self._cache[name, kind] = (list(found), asked_at + found.ttl)
        return list(found)


@dataclass(frozen=True)
class Services:
    """By the service records (SRV, RFC 2782) below a name: each address as often as its weight says."""

    resolver: Resolver
    service: str
    """`_postgresql._tcp`"""
    pick: random.Random = field(default_factory=random.Random)

    async def address(self, name: str) -> str:
        """An address of one of the records. Raises NoAddressError."""
        records = await self.resolver.records(f"{self.service}.{name}", RdataType.SRV)
        services = [record for record in records if isinstance(record, SRV)]
        (chosen,) = self.pick.choices(services, [service.weight for service in services])
        return await self.resolver.address(chosen.target.to_text())


@dataclass(frozen=True)
class Pinned:
    """One address, whatever the name."""

    at: str

    async def address(self, name: str) -> str:
        return self.at
