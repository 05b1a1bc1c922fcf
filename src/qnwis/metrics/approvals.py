"""Which clusters' runs wait for people's votes now: asked of Temporal when scraped."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Iterator, Set
from datetime import timedelta

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowQueryFailedError
from temporalio.service import RPCError, RPCStatusCode

from qnwis.config.registry import Registry
from qnwis.continuity.metrics import APPROVALS_WAITING, Sample
from qnwis.continuity.run import RunProgress
from workflows.names import FAILOVER_PREFIX, failover_id

from .clusters import lease_groups
from .instruments import gauges

log = logging.getLogger(__name__)

GOING_ON = f"WorkflowId STARTS_WITH '{FAILOVER_PREFIX}' AND ExecutionStatus = 'Running'"
"""One question tells which of many clusters have a run at all."""
ANSWER_WITHIN = timedelta(seconds=1)
"""For each question."""
ALL_WITHIN_S = 4.0
"""For all clusters together; a scrape has ten seconds as a rule."""


class ApprovalMetrics(Collector):
    """Of every registered cluster; made in the loop that the client belongs to, scraped in another thread.

    A run that does not answer in time has no sample: it is not known whether it waits.
    """

    def __init__(self, client: Client, clusters: Registry, registry: CollectorRegistry) -> None:
        self._client = client
        self._clusters = clusters
        self._loop = asyncio.get_running_loop()
        registry.register(self)

    def collect(self) -> Iterator[Family]:
        yield from gauges((APPROVALS_WAITING,), self._samples())

    def _samples(self) -> list[Sample]:
        cluster_ids = [*lease_groups(self._clusters)]
        asking = asyncio.run_coroutine_threadsafe(self._ask(cluster_ids), self._loop)
        try:
            return asking.result(ALL_WITHIN_S)
        except concurrent.futures.TimeoutError:
            asking.cancel()
            log.warning("metrics do not say who waits for approval: no answer within %g s", ALL_WITHIN_S)
            return []

    async def _ask(self, cluster_ids: list[str]) -> list[Sample]:
        try:
            going_on = {
                run.id async for run in self._client.list_workflows(GOING_ON, rpc_timeout=ANSWER_WITHIN)
            }
        except RPCError as error:
            log.warning("metrics do not say who waits for approval: %s", error)
            return []
        waiting = await asyncio.gather(*(self._waits(one, going_on) for one in cluster_ids))
        return [
            Sample(APPROVALS_WAITING, (cluster_id,), float(waits))
            for cluster_id, waits in zip(cluster_ids, waiting, strict=True)
            if waits is not None
        ]

    async def _waits(self, cluster_id: str, going_on: Set[str]) -> bool | None:
        """None where that is not known now."""
        if (lock := failover_id(cluster_id)) not in going_on:
            return False
        run = self._client.get_workflow_handle(lock)
        try:
            described = await run.describe(rpc_timeout=ANSWER_WITHIN)
            if described.status is not WorkflowExecutionStatus.RUNNING:
                return False
            progress: RunProgress = await run.query(
                "progress", result_type=RunProgress, rpc_timeout=ANSWER_WITHIN
            )
        except RPCError as error:
            return False if error.status is RPCStatusCode.NOT_FOUND else None
        except WorkflowQueryFailedError:
            return None
        return progress.approval is not None
