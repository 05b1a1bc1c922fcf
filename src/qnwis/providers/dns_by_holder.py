"""Every DNS service by whoever holds its record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from qnwis.continuity.readiness_facts import RecordAnswer, UpdateAnswer
from qnwis.continuity.topology import DnsService

from .dns import Dns, DnsChange, Rfc2136Dns
from .errors import Refused
from .route53 import Route53Dns
from .third_party import Kind, provider_of


@dataclass(frozen=True)
class DnsByHolder:
    """Dns that asks the right one of several."""

    servers: Dns = field(default_factory=Rfc2136Dns)
    route53: Dns = field(default_factory=Route53Dns)

    def _of(self, service: DnsService) -> Dns:
        """Raises Refused for a provider that is not there."""
        if service.provider is not None:
            return cast(Dns, provider_of(Kind.DNS, service.provider))
        return self.servers if service.route53 is None else self.route53

    async def read(self, service: DnsService) -> dict[str, tuple[str, ...]]:
        return await self._of(service).read(service)

    async def record(self, service: DnsService) -> tuple[RecordAnswer, ...]:
        try:
            holder = self._of(service)
        except Refused as refused:
            return (RecordAnswer(server=service.places[0], addresses=None, reason=str(refused)),)
        return await holder.record(service)

    async def swap(
        self, service: DnsService, *, from_address: str, to_address: str, ttl_s: int | None = None
    ) -> DnsChange:
        return await self._of(service).swap(
            service, from_address=from_address, to_address=to_address, ttl_s=ttl_s
        )

    async def try_update(self, service: DnsService) -> tuple[UpdateAnswer, ...]:
        try:
            holder = self._of(service)
        except Refused as refused:
            return (UpdateAnswer(server=service.places[0], accepted=False, reason=str(refused)),)
        return await holder.try_update(service)
