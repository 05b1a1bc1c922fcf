"""Learning what a cluster's readiness is evaluated from. What cannot be learnt is unknown, never good."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from functools import partial

from temporalio import activity
from temporalio.exceptions import ApplicationError

from qnwis.config.access import AccessFiles
from qnwis.config.hooks import FILE as HOOKS
from qnwis.config.hooks import load_hooks
from qnwis.config.notifications import FILE as CHANNELS
from qnwis.config.notifications import load_channels
from qnwis.config.problem import ConfigError
from qnwis.config.registry import Registry
from qnwis.continuity.readiness import evaluate
from qnwis.continuity.readiness_facts import DnsRecord, DnsTrial, Facts, Guarded, Past, Readiness
from qnwis.continuity.topology import Cluster
from qnwis.continuity.weights import StepCheck, Weights
from qnwis.metrics.readiness import ReadinessMetrics
from qnwis.providers.agent_tls import AgentTls
from qnwis.providers.audit_store import AuditStore
from qnwis.providers.dns import Dns
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.nodes import Nodes
from qnwis.providers.proofs import past_of
from qnwis.providers.region_checks import RegionChecks
from qnwis.providers.region_weights import RegionWeights
from qnwis.providers.upkeep import Upkeeps

from .evidence import ClusterName
from .guarding import Guarding

log = logging.getLogger(__name__)


class ReadinessChecks:
    def __init__(
        self,
        registry: Registry,
        nodes: Nodes,
        dns: Dns,
        audit: AuditStore,
        weights: RegionWeights,
        checks: RegionChecks,
        tls: AgentTls,
        upkeeps: Upkeeps,
        metrics: ReadinessMetrics | None = None,
        guarding: Guarding | None = None,
    ) -> None:
        """`metrics`: hears of each evaluation; None where nobody scrapes it. `guarding`: None where no
        guardian can be asked."""
        self._registry = registry
        self._nodes = nodes
        self._dns = dns
        self._audit = audit
        self._weights = weights
        self._checks = checks
        self._tls = tls
        self._upkeeps = upkeeps
        self._metrics = metrics
        self._guarding = guarding

    @activity.defn(name="evaluate_readiness")
    async def evaluate(self, name: ClusterName) -> Readiness:
        """Ask agents, DNS servers and the audit trail, and judge. Changes nothing."""
        try:
            registered = await asyncio.to_thread(self._registry.load, name.cluster_id)
        except ConfigError as error:
            raise ApplicationError(str(error), type="cluster_not_loaded", non_retryable=True) from error
        weights = await self._weights_of(registered.cluster)
        evidence, dns, record, past, regions, certificates, refused, upkeep, guarded = await asyncio.gather(
            collect_evidence(self._nodes, registered.cluster),
            self._try_dns(registered.cluster),
            self._read_dns(registered.cluster),
            self._past(name.cluster_id),
            self._regions_of(registered.cluster),
            self._tls.certificates(registered.cluster),
            self._tls.refused(registered.cluster),
            self._upkeeps.of(registered.cluster),
            self._guarded(registered.cluster),
        )
        readiness = evaluate(
            Facts(
                cluster=registered.cluster,
                policy=registered.policy,
                evidence=evidence,
                dns=dns,
                record=record,
                past=past,
                weights=weights,
                regions=regions,
                certificates=None if certificates is None else tuple(certificates),
                refused=refused,
                upkeep=upkeep,
                guarded=guarded,
                unusable=await asyncio.to_thread(self._unusable),
                now=datetime.now(UTC),
            )
        )
        if self._metrics is not None:
            self._metrics.evaluated(readiness)
        return readiness

    async def _try_dns(self, cluster: Cluster) -> DnsTrial | None:
        if cluster.dns is None:
            return None
        # In Route 53 each region of an active/active cluster has a record of its own.
        apart = cluster.is_active_active and cluster.dns.route53 is not None
        services = [group.dns for group in cluster.lease_groups] if apart else [cluster.dns]
        tried = [await self._dns.try_update(service) for service in services if service is not None]
        return DnsTrial(answers=tuple(one for each in tried for one in each), tried_at=datetime.now(UTC))

    async def _weights_of(self, cluster: Cluster) -> Weights | None:
        if not cluster.is_active_active:
            return None
        try:
            return await self._weights.in_force(cluster)
        except (Unreachable, Refused) as error:
            log.warning("readiness of %s: %s", cluster.cluster_id, error)
            return None

    async def _regions_of(self, cluster: Cluster) -> dict[str, StepCheck]:
        """Of an active/active cluster, each region compared with the others."""
        if not cluster.is_active_active:
            return {}
        regions = [node.region for node in cluster.primaries]
        found = await asyncio.gather(
            *(self._checks.check(cluster, region, {*regions} - {region}) for region in regions)
        )
        return dict(zip(regions, found, strict=True))

    async def _read_dns(self, cluster: Cluster) -> DnsRecord | None:
        if cluster.dns is None or cluster.is_active_active:
            return None
        return DnsRecord(answers=await self._dns.record(cluster.dns), asked_at=datetime.now(UTC))

    async def _guarded(self, cluster: Cluster) -> Guarded | None:
        return None if self._guarding is None else await self._guarding.of(cluster.cluster_id)

    async def _past(self, cluster_id: str) -> Past | None:
        try:
            return await past_of(cluster_id, self._audit)
        except (Unreachable, Refused) as error:
            log.warning("readiness of %s: %s", cluster_id, error)
            return None

    def _unusable(self) -> tuple[str, ...]:
        """What is wrong with each file that a run reads besides the topology and the policy."""
        directory, problems = self._registry.directory, list[str]()
        for load in (
            AccessFiles(directory).load,
            partial(load_hooks, directory / HOOKS),
            partial(load_channels, directory / CHANNELS),
        ):
            try:
                load()
            except ConfigError as error:
                problems.append(str(error))
        return tuple(problems)
