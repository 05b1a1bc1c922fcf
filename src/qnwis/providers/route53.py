"""An address record in Amazon Route 53, moved by compare-and-swap.

One change batch deletes the record as it was found and creates it anew. Route 53 takes a batch whole or not
at all, and refuses to delete what is not exactly there; so whoever else changes the record in between wins or
loses, and nobody's change is overwritten. Weight, location and identifier of a record stay as they are.

What its API lists need not be what its servers answer yet: a change may be PENDING for a minute. So a record
that is found as it is wanted is waited for, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

from qnwis.continuity.readiness_facts import RecordAnswer, UpdateAnswer
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import DnsService, Route53Record

from .aws import aws_client
from .dns import DnsChange
from .errors import Refused, Unreachable
from .threads import Threads

T = TypeVar("T")
RecordSet = dict[str, Any]
"""As boto3 has it."""
REFUSING = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "InvalidClientTokenId",
        "NoSuchHostedZone",
        "SignatureDoesNotMatch",
    }
)
"""Errors that no repetition heals."""
ANSWERED_WITHIN_S = 6.0
"""How long it is waited for one answer on how far a change is, seconds: the next question follows."""
THREADS = Threads("route53")


@cache
def _client() -> Any:
    return aws_client("route53", extra="route53")


class Sent(NamedTuple):
    """A change that Route 53 took."""

    change_id: str
    records: Sequence[RecordSet]
    """What it put there."""


@dataclass(frozen=True)
class Route53Dns:
    """Dns in Route 53."""

    client: Callable[[], Any] = _client
    settle_s: float = 15.0
    """How long a call waits until a change is on all of Route 53's servers, seconds. Below the time that an
    attempt of an effect has (`workflows.options`): it ends by itself, and the next one waits on."""
    poll_s: float = 1.0
    """Between two questions whether it is there, seconds."""
    _on_their_way: dict[tuple[str, str], Sent] = field(default_factory=dict, repr=False, compare=False)
    """By zone and name: the last change, while nobody saw it everywhere. A repetition that sent another one
    in its place would wait for that one from the beginning."""

    async def read(self, service: DnsService) -> dict[str, tuple[str, ...]]:
        found = await self._asked(lambda route53: _find(route53, service))
        return {service.places[0]: _addresses(found)}

    async def record(self, service: DnsService) -> tuple[RecordAnswer, ...]:
        place = service.places[0]
        try:
            found = await self._asked(lambda route53: _find(route53, service))
        except (Unreachable, Refused) as error:
            return (RecordAnswer(server=place, addresses=None, reason=str(error)),)
        ttl_s = None if found is None else found.get("TTL")
        return (RecordAnswer(server=place, addresses=_addresses(found), ttl_s=ttl_s),)

    async def swap(
        self, service: DnsService, *, from_address: str, to_address: str, ttl_s: int | None = None
    ) -> DnsChange:
        wanted_s = service.ttl_s if ttl_s is None else ttl_s
        found = await self._asked(lambda route53: _find(route53, service))
        if found is None or _addresses(found) not in {(from_address,), (to_address,)}:
            raise Refused(_changed(service, found, from_address, to_address))
        before = _addresses(found)
        wanted = {**found, "TTL": wanted_s, "ResourceRecords": [{"Value": to_address}]}
        if found == wanted:
            await self.confirm(service, [found])
        else:
            await self.replace(service, [(found, wanted)])
        return DnsChange(changed=before != (to_address,), before=before, after=(to_address,))

    async def try_update(self, service: DnsService) -> tuple[UpdateAnswer, ...]:
        """Replace the record by itself: all that is checked of a real change, and nothing changes."""
        place = service.places[0]
        try:
            found = await self._asked(lambda route53: _find(route53, service))
            if found is None:
                raise Refused(_changed(service, found, "an address", "another"))
            await self.replace(service, [(found, found)])
        except (Unreachable, Refused) as error:
            return (UpdateAnswer(server=place, accepted=False, reason=str(error)),)
        return (UpdateAnswer(server=place, accepted=True),)

    async def sets(self, service: DnsService) -> list[RecordSet]:
        """All address records of the service's name."""
        return await self._asked(lambda route53: _sets(route53, service))

    async def replace(self, service: DnsService, pairs: Sequence[tuple[RecordSet, RecordSet]]) -> None:
        """In place of each found record the wanted one, all or none. Returns when Route 53 answers them
        everywhere."""
        batch = {
            "Comment": "QNWIS Continuity",
            "Changes": [
                *({"Action": "DELETE", "ResourceRecordSet": found} for found, _ in pairs),
                *({"Action": "CREATE", "ResourceRecordSet": wanted} for _, wanted in pairs),
            ],
        }
        zone = _held(service).hosted_zone_id
        answer = await self._asked(
            lambda route53: route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=batch)
        )
        await self._everywhere(service, answer["ChangeInfo"], [wanted for _, wanted in pairs])

    async def confirm(self, service: DnsService, records: Sequence[RecordSet]) -> None:
        """Return when Route 53 answers these records, which its API lists, everywhere. What is on its way is
        waited for; else each is replaced by itself, which is everywhere no sooner than what came before."""
        sent = self._on_their_way.pop(_place(service), None)
        if sent is None or any(one not in records for one in sent.records):
            await self.replace(service, [(one, one) for one in records])
            return
        try:
            answer = await self._asked(partial(_change, sent.change_id))
        except Refused as refused:
            raise Unreachable(
                f"whether {sent.change_id} is everywhere cannot be seen: {refused}"
            ) from refused
        await self._everywhere(service, answer["ChangeInfo"], sent.records)

    async def _everywhere(self, service: DnsService, change: Any, records: Sequence[RecordSet]) -> None:
        """Raises Unreachable and never Refused: Route 53 took the change, whoever may look at it."""
        place, deadline = _place(service), time.monotonic() + self.settle_s
        self._on_their_way[place] = Sent(change["Id"], records)
        while change["Status"] != "INSYNC":
            if time.monotonic() > deadline:
                told = f"; {change['Why']}" if "Why" in change else ""
                raise Unreachable(
                    f"Route 53: {change['Id']} is not everywhere after {self.settle_s:g} s{told}"
                )
            await asyncio.sleep(self.poll_s)
            change = await self._now(change["Id"])
        self._on_their_way.pop(place, None)

    async def _now(self, change_id: str) -> Any:
        """How far a change is that was taken: pending, with the reason, where that cannot be seen now."""
        try:
            async with asyncio.timeout(ANSWERED_WITHIN_S):
                return (await self._asked(partial(_change, change_id)))["ChangeInfo"]
        except (Refused, Unreachable, TimeoutError) as error:
            return {"Id": change_id, "Status": "PENDING", "Why": str(error) or "no answer"}

    async def _asked(self, ask: Callable[[Any], T]) -> T:
        """Raises Refused for what no repetition heals, and Unreachable for the rest: a batch that came too
        late, too, since it changed nothing and another look tells what is there now."""
        route53 = await THREADS.run(self.client)
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return await THREADS.run(partial(ask, route53))
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in REFUSING:
                raise Refused(
                    Refusal(
                        rule="dns_update_refused",
                        message=f"Route 53 refuses: {error}",
                        values={"code": code},
                        remedy="Give the worker credentials that may list and change this hosted zone.",
                    )
                ) from error
            raise Unreachable(f"Route 53: {error}") from error
        except BotoCoreError as error:
            raise Unreachable(f"Route 53: {error}") from error


def _change(change_id: str, route53: Any) -> Any:
    return route53.get_change(Id=change_id)


def _held(service: DnsService) -> Route53Record:
    assert service.route53 is not None, "the caller chose this provider by it"
    return service.route53


def _place(service: DnsService) -> tuple[str, str]:
    return _held(service).hosted_zone_id, service.fqdn


def _sets(route53: Any, service: DnsService) -> list[RecordSet]:
    answer = route53.list_resource_record_sets(
        HostedZoneId=_held(service).hosted_zone_id, StartRecordName=service.fqdn, StartRecordType="A"
    )
    return [one for one in answer["ResourceRecordSets"] if (one["Name"], one["Type"]) == (service.fqdn, "A")]


def _find(route53: Any, service: DnsService) -> RecordSet | None:
    """The record set that is the cluster's; None where there is none."""
    ours = _held(service).set_identifier
    found = [one for one in _sets(route53, service) if one.get("SetIdentifier") == ours]
    return found[0] if found else None


def _addresses(found: RecordSet | None) -> tuple[str, ...]:
    return () if found is None else tuple(sorted(one["Value"] for one in found.get("ResourceRecords", ())))


def _changed(service: DnsService, found: RecordSet | None, from_address: str, to_address: str) -> Refusal:
    held, has = _held(service), ", ".join(_addresses(found)) or "no address"
    which = f" ({held.set_identifier})" if held.set_identifier is not None else ""
    return Refusal(
        rule="dns_record_changed",
        message=f"{service.fqdn}{which} in {held.hosted_zone_id} holds {has}; expected {from_address} (to"
        f" move it) or {to_address} (already moved)",
        values={"expected": from_address, "wanted": to_address, "found": list(_addresses(found))},
        remedy="Find out who changed the record, then plan again.",
    )
