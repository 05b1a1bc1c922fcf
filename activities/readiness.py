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
from qnwis.continuity.readiness_facts import DnsRecord, DnsTrial, Facts, Past, Readiness
from qnwis.continuity.topology import Cluster
from qnwis.providers.audit_store import AuditStore
from qnwis.providers.dns import Dns
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.nodes import Nodes
from qnwis.providers.proofs import past_of

from .evidence import ClusterName

log = logging.getLogger(__name__)


class ReadinessChecks:
    def __init__(self, registry: Registry, nodes: Nodes, dns: Dns, audit: AuditStore) -> None:
        self._registry = registry
        self._nodes = nodes
        self._dns = dns
        self._audit = audit

    @activity.defn(name="evaluate_readiness")
    async def evaluate(self, name: ClusterName) -> Readiness:
        """Ask agents, DNS servers and the audit trail, and judge. Changes nothing."""
        try:
            registered = await asyncio.to_thread(self._registry.load, name.cluster_id)
        except ConfigError as error:
            raise ApplicationError(str(error), type="cluster_not_loaded", non_retryable=True) from error
        evidence, dns, record, past = await asyncio.gather(
            collect_evidence(self._nodes, registered.cluster),
            self._try_dns(registered.cluster),
            self._read_dns(registered.cluster),
            self._past(name.cluster_id),
        )
        return evaluate(
            Facts(
                cluster=registered.cluster,
                policy=registered.policy,
                evidence=evidence,
                dns=dns,
                record=record,
                past=past,
                unusable=await asyncio.to_thread(self._unusable),
                now=datetime.now(UTC),
            )
        )

    async def _try_dns(self, cluster: Cluster) -> DnsTrial | None:
        if cluster.dns is None:
            return None
        return DnsTrial(answers=await self._dns.try_update(cluster.dns), tried_at=datetime.now(UTC))

    async def _read_dns(self, cluster: Cluster) -> DnsRecord | None:
        if cluster.dns is None:
            return None
        return DnsRecord(answers=await self._dns.record(cluster.dns), asked_at=datetime.now(UTC))

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
