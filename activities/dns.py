"""Moving the service's address record."""

from __future__ import annotations

from temporalio import activity

from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.plan import FlipDns, LowerTtl, RestoreTtl
from qnwis.continuity.topology import DnsService
from qnwis.providers.dns import TELLS_NOTHING, Dns
from qnwis.providers.errors import Unreachable

from .effect import EffectRequest, carried_out, compensated, in_case_it_was_done, preview

TTL_BACK_WITHIN_S = 60.0
"""How long an undo begins to ask for the ordinary TTL, seconds. Long enough for a DNS server to be started
again; a TTL that stays low costs queries, and a failover waits for the lock."""
TTL_BACK_ATTEMPT_S = 20.0
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
        action, service = request.action, _service(request)

        async def retimed() -> Outcome:
            with in_case_it_was_done(TELLS_NOTHING):
                answers = await self._dns.read(service)
            addresses = {address for found in answers.values() for address in found}
            if len(addresses) != 1:
                said = "; ".join(
                    f"{place} answers {', '.join(a) or 'nothing'}" for place, a in answers.items()
                )
                raise Unreachable(f"{action.record}: expected one address everywhere, found {said}")
            (address,) = addresses
            with in_case_it_was_done(TELLS_NOTHING):
                await self._dns.swap(service, from_address=address, to_address=address, ttl_s=action.to_ttl_s)
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.SUCCEEDED,
                changed=True,
                detail=f"the TTL of {action.record} is {action.to_ttl_s} s",
            )

        return await carried_out(action.action_id, retimed, if_refused=request.if_refused)

    @activity.defn
    async def retime_back(self, request: RetimeRequest) -> Outcome:
        """Compensation of a TTL that was lowered: the ordinary one again, where the record is changed; the
        other servers have it from there, and one that is silent just now is not waited for.

        Where it has the ordinary TTL nothing is asked for: it was never lowered, or is restored already.
        """
        action, service = request.action, _service(request)

        async def back() -> Outcome:
            first, *_ = await self._dns.record(service)
            # An earlier attempt of this may have changed it.
            changed = None if activity.info().attempt > 1 else False
            if first.ttl_s != service.ttl_s:
                if first.addresses is None:
                    raise Unreachable(first.reason)
                if len(first.addresses) != 1:
                    found = ", ".join(first.addresses) or "nothing"
                    raise Unreachable(f"{action.record}: expected one address; {first.server} has {found}")
                (address,) = first.addresses
                await self._dns.swap(service, from_address=address, to_address=address, ttl_s=service.ttl_s)
                changed = True
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.UNDONE,
                changed=changed,
                detail=f"the TTL of {action.record} is {service.ttl_s} s",
            )

        return await compensated(
            action.action_id,
            back,
            attempt_s=TTL_BACK_ATTEMPT_S,
            within_s=TTL_BACK_WITHIN_S,
            left=f"the TTL of {action.record} may still be {action.to_ttl_s} s: see to it by hand that it is"
            f" {service.ttl_s} s again",
        )

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
