"""Detection: from what the vantages vote, the standbys hear and the agent itself says, to a verdict per node.

Unknown is not down. A failed node is one that a majority of all configured vantages call failed and that
nothing shows to be alive. A vantage that abstains (its own loop stalled, it was not heard from) says nothing,
and nothing that is missing ever counts as failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from .evidence import ClusterEvidence, NodeState
from .model import Model
from .refusal import Refusal
from .topology import Cluster, Node, NodeStatus, majority

LIVE_STREAM_S = 2.0
"""A standby that heard from its upstream within this proves it alive, whatever the probes say, seconds."""

Votes = Mapping[str, Mapping[str, NodeStatus]]
"""By vantage, then by node. A vantage that abstains is not in it; a node that it does not name is unknown."""


class Finding(StrEnum):
    HEALTHY = "healthy"
    FAILED = "failed"
    PARTITION_SUSPECTED = "partition_suspected"  # those who speak contradict each other
    UNKNOWN = "unknown"  # too few speak, or the agent asks for time: never treated as down


class Verdict(Model):
    """What is held of one node, and on whose word."""

    node_id: str
    finding: Finding
    why: str
    """One sentence for a person: who says what."""
    refusal: Refusal | None = None
    """Why nothing is done although a vantage says failed; None when none does, or when it is failed."""

    @property
    def status(self) -> NodeStatus:
        """In the specification's words; what is suspected is not determined."""
        return _STATUSES.get(self.finding, NodeStatus.UNKNOWN)


_STATUSES = {Finding.HEALTHY: NodeStatus.HEALTHY, Finding.FAILED: NodeStatus.FAILED}


class Word(StrEnum):
    """What an agent that answers says of its own database."""

    UP = "up"
    ENDED = "ended"  # it saw every process end, and its lease is released or renewed no more
    RESTARTING = "restarting"  # it starts it, within a time of its own
    DOWN = "down"  # it does not answer the agent, and none of the two


def own_word(node: Node, state: NodeState) -> Word:
    """The agent's word; a witness that answers is all that it should be."""
    if state.database_up or not node.holds_data:
        return Word.UP
    if state.database_ended:
        return Word.ENDED
    return Word.RESTARTING if state.restarting else Word.DOWN


def needs_evidence(cluster: Cluster, votes: Votes) -> bool:
    """Whether the vantages' votes alone do not settle it: a majority calls a node failed."""
    need = majority(len(cluster.vantages))
    # Most beats call nobody failed, and a cluster may have a thousand nodes.
    named = {name for said in votes.values() for name, status in said.items() if status is NodeStatus.FAILED}
    return any(
        len(_saying(cluster, votes, node.node_id, NodeStatus.FAILED)) >= need
        for node in cluster.nodes
        if node.node_id in named
    )


def judge(cluster: Cluster, votes: Votes, evidence: ClusterEvidence | None) -> dict[str, Verdict]:
    """The verdict on each node, in the topology's order. `evidence` is what every agent says now.

    A majority is floor(n / 2) + 1 of the n configured vantages, those that abstain included.

    | say failed | say healthy | its agent           | a standby hears it | verdict                          |
    |------------|-------------|---------------------|--------------------|----------------------------------|
    | none       | a majority  |                     |                    | healthy                          |
    | none       | fewer       |                     |                    | unknown                          |
    | fewer      | some        |                     |                    | partition suspected              |
    | fewer      | none        |                     |                    | unknown: too few vantages        |
    | a majority |             | nobody asked yet    |                    | unknown                          |
    | a majority |             | database ended      |                    | failed                           |
    | a majority |             | database down       |                    | failed                           |
    | a majority |             | database restarting |                    | unknown: the agent asks for time |
    | a majority |             | database up         |                    | partition suspected              |
    | a majority |             | silent              | yes                | partition suspected              |
    | a majority |             | silent              | no, or not known   | failed                           |

    An agent stands beside its database, so its own word goes before what a standby hears: of a database that
    has just ended the last message is still fresh, and of one that hangs a part may still send.
    """
    return {node.node_id: judge_node(cluster, node, votes, evidence) for node in cluster.nodes}


def judge_node(cluster: Cluster, node: Node, votes: Votes, evidence: ClusterEvidence | None) -> Verdict:
    """The verdict on this node alone, by the same table."""
    need = majority(len(cluster.vantages))
    failed = _saying(cluster, votes, node.node_id, NodeStatus.FAILED)
    healthy = _saying(cluster, votes, node.node_id, NodeStatus.HEALTHY)
    why = _votes_in_words(cluster, votes, failed, healthy)

    def verdict(finding: Finding, refusal: Refusal | None = None) -> Verdict:
        told = why if refusal is None else refusal.message
        return Verdict(node_id=node.node_id, finding=finding, why=told, refusal=refusal)

    if not failed:
        return verdict(Finding.HEALTHY if len(healthy) >= need else Finding.UNKNOWN)
    if len(failed) < need:
        if healthy:
            return verdict(Finding.PARTITION_SUSPECTED, _vantages_contradict(node, why, need))
        return verdict(Finding.UNKNOWN, _too_few(node, why, need))
    if evidence is None:
        return verdict(Finding.UNKNOWN)
    against = contradiction(node, evidence)
    if against is None:
        return verdict(Finding.FAILED)
    suspected = against.rule == Finding.PARTITION_SUSPECTED
    return verdict(Finding.PARTITION_SUSPECTED if suspected else Finding.UNKNOWN, against)


def contradiction(node: Node, evidence: ClusterEvidence) -> Refusal | None:
    """What stands against calling this node failed: its own agent's word, else what a standby hears.

    The lower half of the table above. None when nothing does; then, and only then, it may be acted on.
    """
    state = evidence.of(node.node_id).state
    if state is not None:
        word = own_word(node, state)
        if word is Word.UP:
            return _agent_answers(node)
        return _restarting(node) if word is Word.RESTARTING else None
    hearing = [e.node_id for e in evidence.nodes if e.state is not None and _hears(e.state, node.node_id)]
    return _heard(node, hearing) if hearing else None


def _hears(standby: NodeState, upstream: str) -> bool:
    """An age below zero says that the standby's clock was set: then it is not known."""
    age_s = standby.last_message_age_s
    return (
        standby.upstream == upstream
        and standby.streaming
        and age_s is not None
        and 0 <= age_s <= LIVE_STREAM_S
    )


def _saying(cluster: Cluster, votes: Votes, node_id: str, status: NodeStatus) -> list[str]:
    """The configured vantages that say so."""
    return [v for v in cluster.vantages if votes.get(v, {}).get(node_id) is status]


def _votes_in_words(cluster: Cluster, votes: Votes, failed: list[str], healthy: list[str]) -> str:
    silent = [v for v in cluster.vantages if v not in votes]
    undecided = [v for v in cluster.vantages if v not in {*failed, *healthy, *silent}]
    groups = (("say failed", failed), ("say healthy", healthy), ("undecided", undecided), ("abstain", silent))
    return "; ".join(f"{what}: {_names(who)}" for what, who in groups if who)


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)


# What is told where nothing is done


def _vantages_contradict(node: Node, why: str, need: int) -> Refusal:
    return Refusal(
        rule=Finding.PARTITION_SUSPECTED.value,
        message=f"The vantages contradict each other on {node.node_id}: {why}; {need} make it failed",
        values={"node": node.node_id, "need": need},
        remedy="Nothing is done automatically; check the network between the vantages and the node.",
    )


def _too_few(node: Node, why: str, need: int) -> Refusal:
    return Refusal(
        rule="too_few_vantages",
        message=f"Too few vantages speak of {node.node_id}: {why}; {need} make it failed",
        values={"node": node.node_id, "need": need},
        remedy="Start the workers of the vantages that abstain.",
    )


def _agent_answers(node: Node) -> Refusal:
    return Refusal(
        rule=Finding.PARTITION_SUSPECTED.value,
        message=f"{node.node_id} is called failed, but its own agent says that its database is up",
        values={"node": node.node_id},
        remedy="Nothing is done automatically; check the network between the vantages and the node.",
    )


def _heard(node: Node, hearing: list[str]) -> Refusal:
    return Refusal(
        rule=Finding.PARTITION_SUSPECTED.value,
        message=f"{node.node_id} does not answer, but it is still heard by {_names(hearing)}",
        values={"node": node.node_id, "hearing": [*hearing], "live_within_s": LIVE_STREAM_S},
        remedy="Nothing is done automatically; check the network between the vantages and the node.",
    )


def _restarting(node: Node) -> Refusal:
    return Refusal(
        rule="database_restarting",
        message=f"{node.node_id} is called failed, but its agent restarts its database",
        values={"node": node.node_id},
        remedy="The rule ends with the restart, for which the agent has a time of its own.",
    )
