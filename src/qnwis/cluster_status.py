"""A cluster as its agents and its guardian see it now, for whoever asks: command line or API."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from time import monotonic

from temporalio.client import Client
from temporalio.service import RPCError

from qnwis.continuity.evidence import ClusterEvidence, current_primary
from qnwis.continuity.model import Model
from qnwis.continuity.quorum import ClusterState, assess
from qnwis.continuity.topology import Cluster
from qnwis.providers.all_nodes import AllNodes
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.nodes import Nodes
from qnwis.transport import Transport
from workflows.guardian import Guardian
from workflows.guardian_state import GuardianView
from workflows.names import guardian_id

ANSWER_WITHIN = timedelta(seconds=5)
"""A guardian whom no worker serves does not answer; the nodes do."""


class Status(Model):
    """The cluster now. The first seven fields are the specification's."""

    cluster_id: str
    total_nodes: int
    healthy_nodes: int
    quorum_size: int
    has_quorum: bool
    primary_node_id: str | None
    timings_ms: dict[str, float]
    state: ClusterState
    evidence: ClusterEvidence
    guardian: GuardianView | None
    guardian_note: str | None
    """Why there is nothing from the guardian."""


async def live_evidence(cluster: Cluster) -> ClusterEvidence:
    """What every agent of the cluster, or its Patroni, says now."""
    async with AllNodes(Transport()) as nodes:
        return await collect_evidence(nodes, cluster)


def status_of(
    cluster: Cluster,
    evidence: ClusterEvidence,
    guardian: GuardianView | None,
    note: str | None,
    started_s: float,
) -> Status:
    """`started_s`: of the monotonic clock, when the question was asked."""
    quorum = assess(cluster, evidence)
    answered = any(node.state is not None for node in evidence.nodes)
    return Status(
        cluster_id=cluster.cluster_id,
        total_nodes=quorum.total_nodes,
        healthy_nodes=quorum.healthy_nodes,
        quorum_size=quorum.quorum_size,
        has_quorum=quorum.has_quorum,
        # The file's own word would be no news: without an answer the primary is not known.
        primary_node_id=current_primary(cluster, evidence) if answered else None,
        timings_ms={"total": round((monotonic() - started_s) * 1000, 1)},
        state=quorum.state,
        evidence=evidence,
        guardian=guardian,
        guardian_note=note,
    )


async def look_at(cluster: Cluster, nodes: Nodes, client: Client) -> Status:
    """Nodes and guardian, asked side by side."""
    started_s = monotonic()
    evidence, (guardian, note) = await asyncio.gather(
        collect_evidence(nodes, cluster), guardian_view(client, cluster.cluster_id)
    )
    return status_of(cluster, evidence, guardian, note, started_s)


async def guardian_view(client: Client, cluster_id: str) -> tuple[GuardianView | None, str | None]:
    """What the guardian knows, or why it says nothing."""
    try:
        handle = client.get_workflow_handle_for(Guardian.run, guardian_id(cluster_id))
        return await handle.query(Guardian.view, rpc_timeout=ANSWER_WITHIN), None
    except RPCError as error:
        return None, f"{guardian_id(cluster_id)} does not answer: {error.message}"
