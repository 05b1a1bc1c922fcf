"""Reading the world: the registered topology, and what every node's agent says now."""

from __future__ import annotations

import asyncio

from temporalio import activity
from temporalio.exceptions import ApplicationError

from qnwis.config.hooks import FILE as HOOKS
from qnwis.config.hooks import load_hooks
from qnwis.config.problem import ConfigError
from qnwis.config.registry import Registered, Registry
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.hooks_file import Declared
from qnwis.continuity.model import Identifier, Model
from qnwis.continuity.run import RunKind
from qnwis.continuity.topology import Cluster
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.nodes import Nodes
from qnwis.providers.third_party import unusable


class ClusterName(Model):
    cluster_id: Identifier
    kind: RunKind | None = None
    """Of the run that asks, for which hooks and probes are loaded; None for a guardian."""


class Evidence:
    def __init__(self, registry: Registry, nodes: Nodes) -> None:
        self._registry = registry
        self._nodes = nodes

    @activity.defn
    async def load_cluster(self, name: ClusterName) -> Registered:
        """The registered cluster and its policy; only registered nodes are ever contacted."""
        return await asyncio.to_thread(self._load, name)

    def _load(self, name: ClusterName) -> Registered:
        try:
            registered = self._registry.load(name.cluster_id)
        except ConfigError as error:
            raise ApplicationError(str(error), type="cluster_not_loaded", non_retryable=True) from error
        if name.kind is None:
            return registered
        # A provider that is not there would be missed where it is needed, past the point of no return.
        if lacking := [str(refusal) for _, refusal in unusable(registered.cluster)]:
            raise ApplicationError("; ".join(lacking), type="cluster_not_loaded", non_retryable=True)
        return registered.model_copy(update={"declared": self._declared(name.cluster_id, name.kind)})

    def _declared(self, cluster_id: str, kind: RunKind) -> Declared:
        """A file that cannot be used is an answer, not an error: the run decides what that means."""
        try:
            return Declared.of(load_hooks(self._registry.directory / HOOKS), cluster_id, kind)
        except ConfigError as error:
            return Declared(problem=str(error))

    @activity.defn
    async def collect(self, cluster: Cluster) -> ClusterEvidence:
        """Ask every agent at once. A node that does not answer is unknown, never assumed down."""
        return await collect_evidence(self._nodes, cluster)
