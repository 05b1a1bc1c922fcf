"""A cluster as its agents and its guardian see it now, for whoever asks: command line or API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from time import monotonic

from temporalio.client import Client

from qnwis.continuity.evidence import ClusterEvidence, current_primary
from qnwis.continuity.model import Model
from qnwis.continuity.quorum import ClusterState, assess
from qnwis.continuity.region_groups import GroupView, group_views, state_of
from qnwis.continuity.reprotect import Protection, protections
from qnwis.continuity.topology import Cluster
from qnwis.continuity.weights import Weights
from qnwis.guardians import cluster_view
from qnwis.providers.all_nodes import AllNodes
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.region_weights import DnsWeights
from qnwis.transport import Transport
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
    protection: tuple[Protection, ...]
    """The standbys that are wanted and there, of each primary."""
    guardian: GuardianView | None
    guardian_note: str | None
    """Why there is nothing from the guardian."""
    regions: tuple[GroupView, ...] = ()
    """Of an active/active cluster, which has a primary in each: `primary_node_id` is none of them."""
    weights_note: str | None = None
    """Why the weights of the regions are not known."""

    @property
    def serves(self) -> bool:
        """A primary takes writes, with a quorum; in each region that clients are sent to."""
        if self.regions:
            return self.state is not ClusterState.CRITICAL
        return self.has_quorum and self.primary_node_id is not None


async def live_evidence(cluster: Cluster, transport: Transport) -> ClusterEvidence:
    """What every agent of the cluster, or its Patroni, says now."""
    async with AllNodes(transport) as nodes:
        return await collect_evidence(nodes, cluster)


Said = tuple[GuardianView | None, str | None]
"""What the guardian knows, or why it says nothing."""


async def look_at(
    cluster: Cluster, evidence: Awaitable[ClusterEvidence], guardian: Awaitable[Said]
) -> Status:
    """Nodes and guardian, asked side by side; of an active/active cluster the weights in DNS, too."""
    started_s = monotonic()
    if cluster.is_active_active:
        seen, said, weights = await asyncio.gather(evidence, guardian, _weights(cluster))
        return _of_regions(cluster, seen, said, *weights, started_s)
    seen, said = await asyncio.gather(evidence, guardian)
    return _of_one(cluster, seen, said, started_s)


def _of_one(cluster: Cluster, evidence: ClusterEvidence, said: Said, started_s: float) -> Status:
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
        timings_ms=_since(started_s),
        state=quorum.state,
        evidence=evidence,
        protection=protections(cluster, evidence),
        guardian=said[0],
        guardian_note=said[1],
    )


def _of_regions(
    cluster: Cluster,
    evidence: ClusterEvidence,
    said: Said,
    weights: Weights | None,
    weights_note: str | None,
    started_s: float,
) -> Status:
    regions = group_views(cluster, evidence, weights)
    return Status(
        cluster_id=cluster.cluster_id,
        total_nodes=sum(view.total_nodes for view in regions),
        healthy_nodes=sum(view.healthy_nodes for view in regions),
        quorum_size=sum(view.quorum_size for view in regions),
        has_quorum=all(view.has_quorum for view in regions if view.is_needed),
        primary_node_id=None,
        timings_ms=_since(started_s),
        state=state_of(regions),
        evidence=evidence,
        protection=protections(cluster, evidence),
        guardian=said[0],
        guardian_note=said[1],
        regions=regions,
        weights_note=weights_note,
    )


def _since(started_s: float) -> dict[str, float]:
    return {"total": round((monotonic() - started_s) * 1000, 1)}


async def _weights(cluster: Cluster) -> tuple[Weights | None, str | None]:
    try:
        return await DnsWeights().in_force(cluster), None
    except (Refused, Unreachable) as error:
        return None, str(error)


async def guardian_view(client: Client, cluster_id: str) -> Said:
    """What the guardian knows, or why it says nothing."""
    try:
        return await cluster_view(client, cluster_id, within=ANSWER_WITHIN), None
    except Refused as refused:
        return None, str(refused.refusal)
    except Exception as error:  # whatever it is: what the nodes say is shown all the same
        return None, f"{guardian_id(cluster_id)} does not answer: {error}"
