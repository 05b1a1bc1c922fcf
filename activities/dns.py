"""Moving the service's address record."""

from __future__ import annotations

from temporalio import activity

from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.plan import FlipDns, LowerTtl, RestoreTtl
from qnwis.continuity.topology import DnsService
from qnwis.providers.dns import TELLS_NOTHING, Dns
from qnwis.providers.errors import Unreachable

from .effect import EffectRequest, carried_out, in_case_it_was_done, preview

NO_DNS = "no DNS service is configured for this cluster; move the clients yourself"


class FlipRequest(EffectRequest):
    action: FlipDns


class RetimeRequest(EffectRequest):
    action: LowerTtl | RestoreTtl


class DnsRecords:
    def __init__(self, dns: Dns) -> None:
        self._dns = dns

    @activity.defn
    async def flip(self, request: FlipRequest) -> Outcome:
        """Compare-and-swap the record, then read it back from every authoritative server."""
        action, service = request.action, request.cluster.dns

        async def swap() -> Outcome:
            if service is None:
                return Outcome(
                    action_id=action.action_id, status=OutcomeStatus.SKIPPED, changed=False, detail=NO_DNS
                )
            with in_case_it_was_done(TELLS_NOTHING):
                change = await self._dns.swap(
                    service,
                    from_address=action.from_address,
                    to_address=action.to_address,
                    ttl_s=action.ttl_s,
                )
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.SUCCEEDED,
                changed=change.changed,
                detail=f"{action.record}: {action.from_address} -> {action.to_address}",
                facts={"before": list(change.before), "after": list(change.after), "serial": change.serial},
            )

        return await carried_out(action.action_id, swap)

    @activity.defn
    async def retime(self, request: RetimeRequest) -> Outcome:
        """Give the record another TTL, whatever address it has."""
        return await self._retimed(request, request.action.to_ttl_s, OutcomeStatus.SUCCEEDED)

    @activity.defn
    async def retime_back(self, request: RetimeRequest) -> Outcome:
        """Compensation of a TTL that was lowered: the ordinary one again."""
        return await self._retimed(request, _service(request).ttl_s, OutcomeStatus.UNDONE)

    async def _retimed(self, request: RetimeRequest, ttl_s: int, status: OutcomeStatus) -> Outcome:
        action, service = request.action, _service(request)

        async def retimed() -> Outcome:
            with in_case_it_was_done(TELLS_NOTHING, certainly=status is OutcomeStatus.UNDONE):
                answers = await self._dns.read(service)
            addresses = {address for found in answers.values() for address in found}
            if len(addresses) != 1:
                said = "; ".join(
                    f"{place} answers {', '.join(a) or 'nothing'}" for place, a in answers.items()
                )
                raise Unreachable(f"{action.record}: expected one address everywhere, found {said}")
            (address,) = addresses
            with in_case_it_was_done(TELLS_NOTHING):
                await self._dns.swap(service, from_address=address, to_address=address, ttl_s=ttl_s)
            return Outcome(
                action_id=action.action_id,
                status=status,
                changed=True,
                detail=f"the TTL of {action.record} is {ttl_s} s",
            )

        return await carried_out(action.action_id, retimed)

    @activity.defn
    async def preview_flip(self, request: FlipRequest) -> Outcome:
        action, service = request.action, request.cluster.dns
        if service is None:
            return preview(action.action_id, NO_DNS)
        found = await self._dns.read(service)
        servers = "; ".join(f"{server} answers {', '.join(a) or 'nothing'}" for server, a in found.items())
        return preview(action.action_id, f"would set {action.record} to {action.to_address} ({servers})")


def _service(request: RetimeRequest) -> DnsService:
    assert request.cluster.dns is not None, "without a DNS service no plan changes a TTL"
    return request.cluster.dns
