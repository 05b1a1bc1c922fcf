"""An emergency override that gives nodes up: which, on whose word, and what is said of it for good.

`forced.py` installs the membership; here is what people decide and read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import AwareDatetime, JsonValue

from .evidence import ClusterEvidence, NodeEvidence
from .model import Identifier, Model
from .orders import FencingEvidenceType
from .refusal import Refusal
from .topology import Cluster, ReplicationMode

PROVEN = frozenset(
    {FencingEvidenceType.RELEASED, FencingEvidenceType.LEASE_EXPIRED, FencingEvidenceType.HOOK}
)
"""Evidence that does not rest on a person's word."""


class GiveUp(Model):
    """The nodes that an override gives up."""

    node_ids: tuple[Identifier, ...]
    attested_by: str | None = None
    """Who starts the run, where that person states that they are off, and not only that nobody hears of
    them."""


class Suspension(Model):
    """That the guarantee of a single primary was suspended: from when, and until when."""

    lost: tuple[str, ...]
    since: AwareDatetime
    until: AwareDatetime | None = None
    """When the last of the lost nodes was known to take no part; None while that is open."""
    settled: tuple[tuple[str, str], ...] = ()
    """node_id, and how it is known that it takes no part."""

    @property
    def open(self) -> tuple[str, ...]:
        """Lost nodes of which nothing is known yet."""
        known = {node_id for node_id, _ in self.settled}
        return tuple(node_id for node_id in self.lost if node_id not in known)

    def with_settled(self, found: Mapping[str, str], at: AwareDatetime) -> Suspension:
        """With what became known of some of the lost nodes; it ends with the last of them."""
        news = tuple((node_id, how) for node_id, how in found.items() if node_id in self.open)
        after = self.model_copy(update={"settled": (*self.settled, *news)})
        return after if after.open or after.until is not None else after.model_copy(update={"until": at})


def given_up_refusal(
    give_up: GiveUp, cluster: Cluster, seen: Mapping[str, NodeEvidence], primary_id: str
) -> Refusal | None:
    """Why the cluster may not go on without these nodes; the rules in the order in which they refuse."""
    known = [node.node_id for node in cluster.nodes]
    lost: list[JsonValue] = [*give_up.node_ids]
    if strangers := [node_id for node_id in give_up.node_ids if node_id not in known]:
        return Refusal(
            rule="lost_node_unknown",
            message=f"{', '.join(strangers)} is no node of {cluster.cluster_id}",
            values={"lost": lost, "nodes": [*known]},
            remedy=f"Name nodes of the topology: {', '.join(known)}.",
        )
    if primary_id not in give_up.node_ids:
        return Refusal(
            rule="primary_not_lost",
            message=f"The primary {primary_id} is not given up, only {', '.join(give_up.node_ids)}",
            values={"lost": lost, "primary": primary_id},
            remedy="If it is gone, name it too. A primary that lives and misses its majority serves again"
            f" when {', '.join(give_up.node_ids)} or others come back.",
        )
    if set(known) <= set(give_up.node_ids):
        return Refusal(
            rule="nobody_left",
            message="Every node would be given up, and none is left to take over",
            values={"lost": lost},
            remedy="Restore from a backup: no node that holds data answers.",
        )
    if answering := [n for n in give_up.node_ids if seen[n].state is not None]:
        return Refusal(
            rule="lost_node_answers",
            message=f"{', '.join(answering)} answers, so it is not lost",
            values={"lost": lost, "answering": [*answering]},
            remedy="Give up only what nobody hears of; what answers can be asked.",
        )
    silent = [n for n in known if n not in give_up.node_ids and seen[n].state is None]
    if silent:
        return Refusal(
            rule="survivor_silent",
            message=f"{', '.join(silent)} does not answer and is not given up; every node that is left has to"
            " take part",
            values={"lost": lost, "silent": [*silent]},
            remedy=f"Bring {', '.join(silent)} back, or name it among the lost too.",
        )
    return None


def suspended_notes(give_up: GiveUp, cluster: Cluster, evidence: ClusterEvidence) -> Iterable[str]:
    """What whoever agrees has to have read."""
    lost = ", ".join(give_up.node_ids)
    word = f"{give_up.attested_by or 'nobody'} states that they are off"
    yield (
        f"GUARANTEE SUSPENDED from this plan's first action on: {lost} are given up, and {word}. If they live"
        " somewhere, two nodes may accept writes until they hear of it; the writes of one side are lost."
    )
    left = cluster.without(give_up.node_ids)
    answering = sum(1 for seen in evidence.nodes if seen.state is not None)
    if answering >= cluster.quorum:
        yield (
            f"A quorum answers without them ({answering} of {len(cluster.nodes)}): an ordinary failover keeps"
            " the guarantee; try that first."
        )
    standbys = sum(node.holds_data for node in left.nodes) - 1
    wanted = cluster.replication.required_acks
    if cluster.replication.mode is ReplicationMode.SYNCHRONOUS and standbys < wanted:
        yield (
            f"A commit waits for {standbys} standby(s) instead of {wanted}, until nodes are added again: what"
            " the primary alone has is lost with it."
        )
    if len(left.nodes) < 3:
        yield (
            f"{len(left.nodes)} member(s) will be left: no further failover is possible before lost nodes are"
            " added again (`qnwis-continuity member add`)."
        )
