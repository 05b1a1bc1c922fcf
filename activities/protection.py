"""Watching whether the standbys that a cluster wants are there."""

from __future__ import annotations

import asyncio

from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from qnwis.config.problem import ConfigError
from qnwis.config.registry import Registry
from qnwis.continuity.model import Model
from qnwis.continuity.reprotect import Protection, protection
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.nodes import Nodes

from .effect import heartbeating

LOOK_EVERY_S = 2.0
"""How often the agents are asked."""


class WatchProtection(Model):
    cluster_id: str
    lock: str
    """Workflow id of the cluster's runs: while one goes on, the standbys are its business."""
    settle_s: float
    """For so long it has to be the same, so that a node that is just coming back is left alone."""
    seen: Protection | None = None
    """What was reported last; None to hear how it is now."""


class Protecting:
    def __init__(self, registry: Registry, nodes: Nodes, client: Client) -> None:
        self._registry = registry
        self._nodes = nodes
        self._client = client

    @activity.defn
    async def watch_protection(self, asked: WatchProtection) -> Protection:
        """Return once other standbys than in `seen` are missing, and have been for `settle_s`, while no run
        goes on."""
        clock = asyncio.get_running_loop().time
        async with heartbeating():
            last, since = None, clock()
            while True:
                found = await self._look(asked.cluster_id)
                if last is None or not last.same(found) or await self._run_goes_on(asked.lock):
                    since = clock()
                last = found
                new = asked.seen is None or not asked.seen.same(found)
                if new and clock() - since >= asked.settle_s:
                    return found
                await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self, cluster_id: str) -> Protection:
        try:
            cluster = (await asyncio.to_thread(self._registry.load, cluster_id)).cluster
        except ConfigError as error:
            raise ApplicationError(str(error), type="cluster_not_loaded") from error
        return protection(cluster, await collect_evidence(self._nodes, cluster))

    async def _run_goes_on(self, lock: str) -> bool:
        try:
            described = await self._client.get_workflow_handle(lock).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            raise
        return described.status is WorkflowExecutionStatus.RUNNING
