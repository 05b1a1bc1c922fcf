"""Watching a cluster from one vantage: one long activity that returns only when a node's status changes.

So a guardian's history grows with events and not with probes. The heartbeats carry the counters, for people
who look at a pending watch in the Temporal UI. A watch that sends none any more has failed: the guardian
lets that vantage abstain, and the watch that follows begins anew, because nothing was seen meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from qnwis.config.problem import ConfigError
from qnwis.config.registry import Registered, Registry
from qnwis.continuity.model import Identifier, Model
from qnwis.continuity.topology import Cluster
from qnwis.metrics.watches import WatchMetrics
from qnwis.providers.nodes import Nodes

from .beats import Beats, NodeVote, Told
from .stalls import Meters, Stalls
from .topology_changes import TopologyChanges
from .waiting import speaks_every_s


class WatchRequest(Model):
    cluster_id: Identifier
    vantage: Identifier
    votes: Mapping[str, NodeVote] | None = None
    """What this vantage said last. None: it has no say, so the watch begins anew, and reports as soon as it
    has asked every node once."""


class WatchReport(Model):
    vantage: str
    votes: dict[str, NodeVote]
    cluster_changed: bool = False
    """Another topology or policy is registered than this vantage's watches have told of."""


class Health:
    def __init__(self, registry: Registry, nodes: Nodes, metrics: WatchMetrics | None = None) -> None:
        """`metrics`: of what the watches see; None where nobody scrapes them."""
        self._registry = registry
        self._nodes = nodes
        self._metrics = metrics
        self._meters = Meters()
        self._topologies = TopologyChanges(registry)
        self._told_last: dict[tuple[str, str], Registered] = {}
        """What was registered when the newest watch of this process began, or when it told of a change; by
        cluster and vantage."""

    @activity.defn
    async def watch(self, request: WatchRequest) -> WatchReport:
        """Beat until a node's status differs from the request's, or what is registered changes.

        A watch whose vantage has a say fails for good whatever ends it, so that the guardian hears of it.
        """
        try:
            return await self._watch(request)
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            if details is None or not details.worker_shutdown:
                raise
            raise _ended(request, "its worker was stopped", expected=True) from None
        except ConfigError as error:
            raise _ended(request, str(error)) from error

    async def _watch(self, request: WatchRequest) -> WatchReport:
        registered = self._registry.load(request.cluster_id)
        told_of = self._told_of(request, registered)
        with self._meters.watching(registered.cluster.heartbeat.stall_limit_s) as stalls:
            report = await self._beat(request, registered.cluster, stalls, told_of)
        if told_of != registered:
            return report.model_copy(update={"cluster_changed": True})
        if report.cluster_changed:
            with contextlib.suppress(ConfigError, OSError):
                self._told_last[_key(request)] = self._registry.load(request.cluster_id)
        return report

    def _told_of(self, request: WatchRequest, registered: Registered) -> Registered:
        """What its guardian knows by the watches of this process, so that a change between two of them is
        told as well. When a vantage speaks that had no say, the guardian reads the files by itself."""
        before = self._told_last.get(_key(request), registered) if request.votes is not None else registered
        self._told_last[_key(request)] = registered
        return before

    async def _beat(
        self, request: WatchRequest, cluster: Cluster, stalls: Stalls, told_of: Registered
    ) -> WatchReport:
        told = self._told(cluster, request.vantage)
        beats = Beats(request.vantage, request.votes, cluster, self._nodes, stalls, told)
        if self._metrics is None:
            return await self._until_due(request, told_of, beats)
        with self._metrics.watching(cluster, request.vantage, beats.detectors):
            return await self._until_due(request, told_of, beats)

    def _told(self, cluster: Cluster, vantage: str) -> Told | None:
        if (metrics := self._metrics) is None:
            return None
        return lambda node, path, probe: metrics.asked(cluster.cluster_id, vantage, node.node_id, path, probe)

    async def _until_due(self, request: WatchRequest, told_of: Registered, beats: Beats) -> WatchReport:
        with self._topologies.of(told_of) as changed:
            works = (changed.wait(), beats.reported.wait(), beats.run(), _tell(beats))
            tasks = [asyncio.create_task(work) for work in works]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
        for fault in ended:
            if isinstance(fault, Exception):
                raise _ended(request, f"{type(fault).__name__}: {fault}") from fault
        return WatchReport(vantage=request.vantage, votes=beats.votes(), cluster_changed=changed.is_set())


def _key(request: WatchRequest) -> tuple[str, str]:
    return request.cluster_id, request.vantage


async def _tell(beats: Beats) -> None:
    every_s = speaks_every_s()
    while True:
        activity.heartbeat({name: vote.model_dump(mode="json") for name, vote in beats.votes().items()})
        await asyncio.sleep(every_s)


def _ended(request: WatchRequest, why: str, *, expected: bool = False) -> ApplicationError:
    return ApplicationError(
        why,
        type="watch_ended",
        non_retryable=request.votes is not None,
        category=ApplicationErrorCategory.BENIGN if expected else ApplicationErrorCategory.UNSPECIFIED,
    )
