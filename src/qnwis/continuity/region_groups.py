"""An active/active cluster as a whole: several primaries are right, one in each region.

Each region is a lease group of its own, with its own epoch, quorum and primary. Nothing is promoted across
them: of the whole nobody starts a failover.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .detection import Finding, Verdict
from .evidence import ClusterEvidence, current_primary
from .guardian_rules import Decision, Hold, Quiet
from .model import Model
from .quorum import ClusterState, assess
from .refusal import Refusal
from .topology import Cluster
from .weights import Weights


class GroupView(Model):
    """One region's lease group now."""

    cluster_id: str
    region: str
    weight: int | None
    """The percent of the traffic that it takes now by DNS; None where that is not known."""
    total_nodes: int
    healthy_nodes: int
    quorum_size: int
    has_quorum: bool
    state: ClusterState
    primary_node_id: str | None
    """The one node that takes writes; None where none or several do."""
    epoch: int | None
    """The highest that one of its agents says; None where none answers."""
    answering: int
    """Agents that answer."""

    @property
    def serves(self) -> bool:
        return self.has_quorum and self.primary_node_id is not None

    @property
    def is_needed(self) -> bool:
        """Whether clients are sent there, for all that is known."""
        return self.weight != 0


def group_views(
    cluster: Cluster, evidence: ClusterEvidence, in_force: Weights | None
) -> tuple[GroupView, ...]:
    """Each region of an active/active cluster; `in_force`: the weights by DNS, None where not known."""
    return tuple(_view(group, evidence.within(group), in_force) for group in cluster.lease_groups)


def state_of(views: Sequence[GroupView]) -> ClusterState:
    """Critical where a region that clients are sent to takes no writes; degraded where a region or a node is
    missing that nobody needs now."""
    if any(view.is_needed and not view.serves for view in views):
        return ClusterState.CRITICAL
    healthy = all(view.state is ClusterState.HEALTHY and view.serves for view in views)
    return ClusterState.HEALTHY if healthy else ClusterState.DEGRADED


def primaries_now(cluster: Cluster, evidence: ClusterEvidence) -> dict[str, str | None]:
    """By region: who is the primary there, from the best evidence there is."""
    return {
        group.regions[0]: current_primary(group, evidence.within(group)) for group in cluster.lease_groups
    }


def decide_regions(
    cluster: Cluster, primaries: Mapping[str, str | None], verdicts: Mapping[str, Verdict]
) -> Decision:
    """What the guardian of the whole does: it starts nothing, and says whose it is to act.

    `primaries`: by region, the node that serves there or served last.
    """
    named = [(region, verdicts.get(node or "")) for region, node in sorted(primaries.items())]
    judged = [(region, verdict) for region, verdict in named if verdict is not None]
    failed = {region: verdict for region, verdict in judged if verdict.finding is Finding.FAILED}
    if failed:
        return Hold(_left_to_the_regions(cluster, failed))
    doubtful = next((v.refusal for _, v in judged if v.refusal is not None), None)
    return Quiet() if doubtful is None else Hold(doubtful, look_again=True)


def _left_to_the_regions(cluster: Cluster, failed: Mapping[str, Verdict]) -> Refusal:
    told = ", ".join(f"{verdict.node_id}, the primary of {region}" for region, verdict in failed.items())
    groups = ", ".join(f"guardian-{cluster.lease_group(region).cluster_id}" for region in failed)
    evacuate = "; ".join(f"qnwis-continuity region evacuate {region} --reason …" for region in failed)
    return Refusal(
        rule="regions_decide_alone",
        message=f"{told} failed; {cluster.cluster_id} is active/active, and nothing is promoted across"
        " regions",
        values={"failed": {region: verdict.node_id for region, verdict in failed.items()}},
        remedy=f"Within a region its own guardian fails over ({groups}); where the region is lost, give its"
        f" weight to the others: {evacuate}",
    )


def _view(group: Cluster, evidence: ClusterEvidence, in_force: Weights | None) -> GroupView:
    (region,) = group.regions
    quorum = assess(group, evidence)
    states = [node.state for node in evidence.nodes if node.state is not None]
    writable = [state.node_id for state in states if state.writable]
    return GroupView(
        cluster_id=group.cluster_id,
        region=region,
        weight=None if in_force is None else in_force.get(region),
        total_nodes=quorum.total_nodes,
        healthy_nodes=quorum.healthy_nodes,
        quorum_size=quorum.quorum_size,
        has_quorum=quorum.has_quorum,
        state=quorum.state,
        primary_node_id=writable[0] if len(writable) == 1 else None,
        epoch=max((state.epoch for state in states), default=None),
        answering=len(states),
    )
