"""A repeated attempt at a DNS change never says that nothing was changed: an earlier one may have."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import pytest
from temporalio.testing import ActivityEnvironment

from activities.dns import DnsRecords, FlipRequest, RetimeRequest
from qnwis.continuity.executor import OutcomeStatus
from qnwis.continuity.plan import FlipDns, LowerTtl
from qnwis.continuity.readiness_facts import RecordAnswer, UpdateAnswer
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import DnsService
from qnwis.providers.dns import DnsChange
from qnwis.providers.errors import Refused, Unreachable
from tests.unit.continuity.scenes import cluster, node

OLD, NEW = "10.0.0.1", "10.0.0.2"
SERVICE = DnsService(zone="example.test", name="db", ttl_s=30, servers=("10.0.0.53:53",))
CLUSTER = cluster(node("node-1", "primary"), node("node-2"), node("node-3"), dns=SERVICE)


@dataclass
class Refusing:
    """A nameserver that refuses, and tells nothing of the record unless it is asked to look."""

    rule: str
    swaps: list[tuple[str, str]] = field(default_factory=list)
    reads: bool = False
    """Whether it refuses to be read, too."""

    def _refused(self) -> Refused:
        return Refused(Refusal(rule=self.rule, message="no", remedy="look"))

    async def read(self, service: DnsService) -> dict[str, tuple[str, ...]]:
        if self.reads:
            raise self._refused()
        return {service.places[0]: (OLD,)}

    async def swap(
        self, service: DnsService, *, from_address: str, to_address: str, ttl_s: int | None = None
    ) -> DnsChange:
        self.swaps.append((from_address, to_address))
        raise self._refused()

    async def record(self, service: DnsService) -> tuple[RecordAnswer, ...]:
        return (RecordAnswer(server=service.places[0], addresses=None, reason="refused"),)

    async def try_update(self, service: DnsService) -> tuple[UpdateAnswer, ...]:
        return ()


def attempt(number: int) -> ActivityEnvironment:
    made = ActivityEnvironment()
    made.info = dataclasses.replace(made.info, attempt=number)
    return made


FLIP = FlipRequest(
    run_id="run-1",
    epoch=2,
    cluster=CLUSTER,
    action=FlipDns(
        action_id="flip-dns", record="db", from_address=OLD, to_address=NEW, ttl_s=30, estimate_ms=1
    ),
)
LOWER = RetimeRequest(
    run_id="run-1",
    epoch=2,
    cluster=CLUSTER,
    action=LowerTtl(action_id="lower-ttl", record="db", from_ttl_s=30, to_ttl_s=1, estimate_ms=1),
)


@pytest.mark.parametrize("rule", ["dns_not_authoritative", "dns_signature_refused", "dns_update_refused"])
async def test_a_refusal_counts_as_nothing_changed_only_where_no_attempt_came_before(rule: str) -> None:
    dns = DnsRecords(Refusing(rule))
    assert (await attempt(1).run(dns.flip, FLIP)).status is OutcomeStatus.FAILED
    with pytest.raises(Unreachable, match="may have been changed before"):
        await attempt(2).run(dns.flip, FLIP)


async def test_a_refusal_by_who_looked_at_the_record_is_final_at_any_attempt() -> None:
    dns = DnsRecords(Refusing("dns_record_changed"))
    for number in (1, 2):
        assert (await attempt(number).run(dns.flip, FLIP)).status is OutcomeStatus.FAILED


async def test_a_ttl_that_may_have_been_lowered_is_not_said_to_be_as_before() -> None:
    dns = DnsRecords(Refusing("dns_not_authoritative", reads=True))
    assert (await attempt(1).run(dns.retime, LOWER)).status is OutcomeStatus.FAILED
    with pytest.raises(Unreachable):
        await attempt(2).run(dns.retime, LOWER)
    with pytest.raises(Unreachable):
        await attempt(1).run(dns.retime_back, LOWER)
