"""Reading the world: the registered topology, and what every node's agent says now."""

from __future__ import annotations

from temporalio import activity
from temporalio.exceptions import ApplicationError

from qnwis.config.problem import ConfigError
from qnwis.config.registry import Registered, Registry
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.model import Identifier, Model
from qnwis.continuity.topology import Cluster
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.nodes import Nodes


class ClusterName(Model):
    cluster_id: Identifier


class Evidence:
    def __init__(self, registry: Registry, nodes: Nodes) -> None:
        self._registry = registry
        self._nodes = nodes

    @activity.defn
    def load_cluster(self, name: ClusterName) -> Registered:
        """The registered cluster and its policy; only registered nodes are ever contacted."""
        try:
            return self._registry.load(name.cluster_id)
        except ConfigError as error:
            raise ApplicationError(str(error), type="cluster_not_loaded", non_retryable=True) from error

    @activity.defn
    async def collect(self, cluster: Cluster) -> ClusterEvidence:
        """Ask every agent at once. A node that does not answer is unknown, never assumed down."""
        return await collect_evidence(self._nodes, cluster)
