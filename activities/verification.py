"""Reading the world again and letting the verifier say whether the failover succeeded."""

from __future__ import annotations

import asyncio
from time import monotonic

from temporalio import activity

from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.model import Model
from qnwis.continuity.orders import FencingEvidence
from qnwis.continuity.plan import Plan
from qnwis.continuity.policy import Policy
from qnwis.continuity.topology import Cluster
from qnwis.continuity.verifier import VerificationReport, verify
from qnwis.providers.dns import Dns
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.nodes import Nodes

from .effect import heartbeating

PAUSE_S = 0.05
"""Between two readings while the world is still settling (a standby reconnecting, for example)."""


class VerifyRequest(Model):
    plan: Plan
    cluster: Cluster
    policy: Policy
    before: ClusterEvidence
    fencing: FencingEvidence | None
    epoch: int
    elapsed_ms: float
    """What the policy limits: from the run's start, or where people took their time from when the service
    was taken from the old primary, until only what nobody waits for was left."""
    settle_s: float = 5.0
    """How long the world may take to settle before the last reading counts, seconds."""


class Verified(Model):
    report: VerificationReport
    after: ClusterEvidence


class Verification:
    def __init__(self, nodes: Nodes, dns: Dns) -> None:
        self._nodes = nodes
        self._dns = dns

    @activity.defn
    async def verify(self, request: VerifyRequest) -> Verified:
        """Read until the verifier passes or `settle_s` is over; the last reading is the answer."""
        deadline = monotonic() + request.settle_s
        async with heartbeating():
            while True:
                verified = await self._read_and_verify(request)
                if verified.report.passed or monotonic() >= deadline:
                    return verified
                await asyncio.sleep(PAUSE_S)

    async def _read_and_verify(self, request: VerifyRequest) -> Verified:
        after = await collect_evidence(self._nodes, request.cluster)
        report = verify(
            request.plan,
            request.cluster,
            request.policy,
            request.before,
            after,
            fencing=request.fencing,
            dns=await self._answers(request.cluster),
            elapsed_ms=request.elapsed_ms,
            epoch=request.epoch,
        )
        return Verified(report=report, after=after)

    async def _answers(self, cluster: Cluster) -> dict[str, tuple[str, ...]] | None:
        """What every authoritative server answers; a silent one, or one that refuses to answer, fails the
        check by its absence. It must not fail the run: what was done is done, and is on record by this."""
        if cluster.dns is None:
            return None
        try:
            return await self._dns.read(cluster.dns)
        except (Unreachable, Refused) as error:
            activity.logger.warning("the name cannot be read: %s", error)
            return {}
