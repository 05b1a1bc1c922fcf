"""Which nodes may take over from a primary, in which order, and what would be lost.

Eligibility first (a node that could lose acknowledged writes is no candidate, however preferred), then the
order of the specification, "Target Selection". Missing data means no: a node that evidence says too little
of is not eligible. Evidence from a file knows nothing of log positions, so only its statuses decide there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from .evidence import ClusterEvidence, NodeEvidence, NodeState
from .model import Model
from .patroni import reason_against
from .policy import Policy
from .refusal import Refusal
from .topology import Cluster, Manager, Node, NodeRole, NodeStatus, ReplicationMode


class Basis(StrEnum):
    """What a decision stands on."""

    FILE = "file"  # statuses as written in the topology; nothing is known of log positions
    LIVE = "live"  # what the agents said


class Candidate(Model):
    """One node besides the primary, and why it may or may not take over."""

    node_id: str
    eligible: bool
    reason: str
    rank: int | None = None
    """1 is the target; None when not eligible."""
    lag_bytes: int | None = None
    """Behind the most advanced standby; None where not known."""


class Position(NamedTuple):
    """A place in the log. Along one history a later timeline is always further on."""

    timeline: int
    lsn: int


@dataclass(frozen=True)
class Coverage:
    """Whether the answering standbys must include one that holds every acknowledged write."""

    standbys: int
    required_acks: int
    answering: int
    silent: tuple[str, ...]

    @property
    def needed(self) -> int:
        """Any `required_acks` of n standbys have one in common with any n - required_acks + 1 of them."""
        return max(1, self.standbys - self.required_acks + 1)

    @property
    def complete(self) -> bool:
        return self.answering >= self.needed


@dataclass(frozen=True)
class Survey:
    """The standbys of one primary side by side: all that eligibility and loss are decided on."""

    cluster: Cluster
    policy: Policy
    basis: Basis
    primary: NodeEvidence
    standbys: tuple[Node, ...]
    """Every node but the primary, witnesses included, in the topology's order."""
    seen: Mapping[str, NodeEvidence]
    system_identifier: str | None
    """Of the primary's database, else the one that most standbys have; None where none prevails."""
    positions: Mapping[str, Position]
    """Of each standby that answers."""
    head: Position | None
    """The most advanced of them."""
    leaving: str | None = None
    """A region that is left: its nodes are no targets, whatever they say."""

    @property
    def primary_writes(self) -> bool:
        """While it does, positions move between two reads, and a difference of some bytes means nothing."""
        return self.primary.state is not None and self.primary.state.writable

    @property
    def synchronous(self) -> bool:
        return self.cluster.replication.mode is ReplicationMode.SYNCHRONOUS

    @cached_property
    def allowed_lag_bytes(self) -> int:
        return 0 if self.synchronous and not self.primary_writes else self.policy.max_lag_bytes

    def lag_bytes(self, node_id: str) -> int | None:
        """Behind the most advanced standby; None where not known or on another timeline."""
        return self._lags_bytes.get(node_id)

    @cached_property
    def _lags_bytes(self) -> Mapping[str, int]:
        head = self.head
        if head is None:
            return {}
        own = self.positions.items()
        return {node_id: head.lsn - at.lsn for node_id, at in own if at.timeline == head.timeline}

    def behind_primary(self, node_id: str) -> int | None:
        """Behind the primary's end of the log, as far as that is known, else as `lag_bytes`."""
        own, primary = self.positions.get(node_id), self.primary.state
        if own is None or primary is None or primary.write_lsn is None:
            return self.lag_bytes(node_id)
        return max(0, primary.write_lsn - own.lsn)

    def coverage(self) -> Coverage:
        data_nodes = [node.node_id for node in self.standbys if node.holds_data]
        return Coverage(
            standbys=len(data_nodes),
            required_acks=self.cluster.replication.required_acks,
            answering=len(self.positions),
            silent=tuple(node_id for node_id in data_nodes if node_id not in self.positions),
        )


def survey(
    cluster: Cluster,
    policy: Policy,
    evidence: ClusterEvidence,
    primary_id: str,
    *,
    leaving: str | None = None,
) -> Survey:
    """Read the evidence once, for all rules. Raises nothing: what is missing becomes unknown."""
    seen = {e.node_id: e for e in evidence.nodes}
    seen |= {node.node_id: _nothing_known(node) for node in cluster.nodes if node.node_id not in seen}
    standbys = tuple(node for node in cluster.nodes if node.node_id != primary_id)
    states = {n.node_id: seen[n.node_id].state for n in standbys if n.holds_data}
    identifier = _system_identifier(seen[primary_id].state, states.values())
    positions = {
        node_id: position
        for node_id, state in states.items()
        if (position := _position(node_id, state, identifier)) is not None
    }
    return Survey(
        cluster=cluster,
        policy=policy,
        basis=basis_of(evidence),
        primary=seen[primary_id],
        standbys=standbys,
        seen=seen,
        system_identifier=identifier,
        positions=positions,
        head=max(positions.values(), default=None),
        leaving=leaving,
    )


def basis_of(evidence: ClusterEvidence) -> Basis:
    """`file` only if every word comes from a file; a mixture is judged as live, by the stricter rules."""
    return Basis.FILE if all(e.source.split()[0:1] == ["file"] for e in evidence.nodes) else Basis.LIVE


# --- Eligibility: each rule gives the reason against a node, or None ----------------------------------------


def _is_healthy(survey: Survey, node: Node, seen: NodeEvidence) -> str | None:
    if seen.status is NodeStatus.HEALTHY:
        return None
    if seen.status is not NodeStatus.DEGRADED or seen.state is None:
        return f"is {seen.status}, not healthy"
    # An override takes what it lacks for a loss, which the plan's readers see.
    return "is degraded: it streams from nobody" if survey.policy.limits_lag else None


def _is_elsewhere(survey: Survey, node: Node, seen: NodeEvidence) -> str | None:
    return f"is in {node.region}, which is left" if node.region == survey.leaving else None


def _holds_data(survey: Survey, node: Node, seen: NodeEvidence) -> str | None:
    return None if node.holds_data else "is a witness and holds no data"


def _is_secondary_on_file(survey: Survey, node: Node, seen: NodeEvidence) -> str | None:
    return None if node.role is NodeRole.SECONDARY else f"is a {node.role}, not a secondary"


def _answers(survey: Survey, node: Node, seen: NodeEvidence) -> str | None:
    if seen.state is None:
        return f"did not answer ({seen.error or 'no state known'})"
    if seen.state.node_id != node.node_id:
        return f"answered as {seen.state.node_id!r}; its endpoint leads to another node"
    return None


def _is_member(survey: Survey, node: Node, seen: NodeEvidence) -> str | None:
    return None if _known(seen).member else "is no member of the cluster; add it first"


def _is_running_standby(survey: Survey, node: Node, seen: NodeEvidence) -> str | None:
    state = _known(seen)
    if not state.database_up:
        return "has its database down"
    if state.in_recovery is None:
        return "does not say whether it is in recovery"
    return None if state.in_recovery else "is not in recovery, so not a standby"


def _is_of_this_database(survey: Survey, node: Node, seen: NodeEvidence) -> str | None:
    own = _known(seen).system_identifier
    if own is None or own == survey.system_identifier:
        return None
    return (
        f"has system identifier {own}, expected {survey.system_identifier or 'one that most standbys share'}"
    )


def _is_on_the_latest_timeline(survey: Survey, node: Node, seen: NodeEvidence) -> str | None:
    own, head = survey.positions.get(node.node_id), survey.head
    if own is None or head is None:
        return "does not say its timeline and its received log position"
    return None if own.timeline == head.timeline else f"is on timeline {own.timeline}, behind {head.timeline}"


def _has_the_log(survey: Survey, node: Node, seen: NodeEvidence) -> str | None:
    lag, allowed = survey.lag_bytes(node.node_id), survey.allowed_lag_bytes
    if lag is not None and lag <= allowed:
        return None
    return f"is {lag} bytes behind the most advanced standby, allowed are {allowed}"


def _patroni_allows(survey: Survey, node: Node, seen: NodeEvidence) -> str | None:
    return reason_against(survey.cluster, survey.primary, node, seen, survey.behind_primary(node.node_id))


def _is_not_writing(survey: Survey, node: Node, seen: NodeEvidence) -> str | None:
    return "accepts writes already" if _known(seen).writable else None


Rule = Callable[[Survey, Node, NodeEvidence], str | None]

ON_FILE: tuple[Rule, ...] = (_is_healthy, _holds_data, _is_elsewhere, _is_secondary_on_file)
LIVE: tuple[Rule, ...] = (
    _is_healthy,
    _holds_data,
    _is_elsewhere,
    _answers,
    _is_member,
    _is_running_standby,
    _is_of_this_database,
    _is_on_the_latest_timeline,
    _has_the_log,
)
PATRONI: tuple[Rule, ...] = (*LIVE, _patroni_allows)
APPLICATION: tuple[Rule, ...] = (_is_healthy, _holds_data, _is_elsewhere, _answers, _is_not_writing)
"""It says nothing of a log or of whom it follows."""


def rules_of(survey: Survey) -> tuple[Rule, ...]:
    if survey.basis is Basis.FILE:
        return ON_FILE
    return {Manager.AGENTS: LIVE, Manager.PATRONI: PATRONI, Manager.HTTP: APPLICATION}[survey.cluster.manager]


def rank(survey: Survey) -> tuple[Candidate, ...]:
    """Every node besides the primary: the eligible ones in order of preference, then the others."""
    rules = rules_of(survey)
    eligible: list[Node] = []
    others: list[Candidate] = []
    for node in survey.standbys:
        reason = _first_reason(rules, survey, node)
        if reason is None:
            eligible.append(node)
        else:
            lag = survey.lag_bytes(node.node_id)
            others.append(Candidate(node_id=node.node_id, eligible=False, reason=reason, lag_bytes=lag))
    preferred = preference(survey.policy)
    home = survey.cluster.node(survey.primary.node_id).region if survey.cluster.by_patroni else None

    def key(node: Node) -> tuple[object, ...]:
        degraded = survey.seen[node.node_id].status is NodeStatus.DEGRADED
        # Where Patroni keeps a region's primary, a region is left only where it must be or a person says so.
        away = home is not None and node.region != home
        return (degraded, away, *preferred(node), _behind(survey, node), node.node_id)

    eligible.sort(key=key)
    chosen = [
        Candidate(
            node_id=node.node_id,
            eligible=True,
            reason=_merits(node, survey),
            rank=place,
            lag_bytes=survey.lag_bytes(node.node_id),
        )
        for place, node in enumerate(eligible, start=1)
    ]
    return (*chosen, *others)


def preference(policy: Policy) -> Callable[[Node], tuple[int, int, int, float]]:
    """The specification's order: region, site, priority, capacity."""
    regions = {region: place for place, region in reversed(tuple(enumerate(policy.region_priority)))}
    sites = {site: place for place, site in reversed(tuple(enumerate(policy.site_priority)))}

    def key(node: Node) -> tuple[int, int, int, float]:
        return (
            regions.get(node.region, len(policy.region_priority)),
            sites.get(node.site, len(policy.site_priority)),
            -node.priority,
            -node.capacity,
        )

    return key


def _behind(survey: Survey, node: Node) -> int:
    """Bytes behind the most advanced standby, between nodes that are preferred alike. While the primary
    writes they say nothing, and the choice would change from one look to the next."""
    return 0 if survey.primary_writes else survey.lag_bytes(node.node_id) or 0


def predicted_loss_bytes(survey: Survey, target_id: str) -> int | None:
    """Log that promoting the target is known to lose, bytes. None where nothing is known of positions.

    Synchronous: 0, because only a node that holds every acknowledged write may be promoted; not known where
    an override gives up standbys that may hold more. Asynchronous: a lower bound; what a dead primary wrote
    and sent to nobody is not known.
    """
    if target_id not in survey.positions:
        return None
    if survey.synchronous:
        return 0 if survey.basis is Basis.FILE or survey.coverage().complete else None
    known = [position.lsn for position in survey.positions.values()]
    if survey.primary.state is not None and survey.primary.state.write_lsn is not None:
        known.append(survey.primary.state.write_lsn)
    return max(0, max(known) - survey.positions[target_id].lsn)


def coverage_refusal(survey: Survey) -> Refusal | None:
    """Synchronous replication: the standbys that answer must include one with every acknowledged write."""
    if not survey.synchronous or survey.basis is Basis.FILE:
        return None
    c = survey.coverage()
    if c.complete:
        return None
    silent = ", ".join(c.silent)
    return Refusal(
        rule="acknowledged_writes_uncertain",
        message=(
            f"Commits wait for any {c.required_acks} of {c.standbys} standbys, so {c.needed} must answer "
            f"to be certain of every acknowledged write; {c.answering} did. "
            f"Writes acknowledged only by {silent} would be lost, how many is not known."
        ),
        values={
            "standbys": c.standbys,
            "required_acks": c.required_acks,
            "answering": c.answering,
            "needed": c.needed,
            "silent": list(c.silent),
            "most_advanced_lsn": None if survey.head is None else survey.head.lsn,
        },
        remedy=f"Bring back {silent}, until {c.needed} standbys answer.",
    )


def _first_reason(rules: Iterable[Rule], survey: Survey, node: Node) -> str | None:
    seen = survey.seen[node.node_id]
    for rule in rules:
        reason = rule(survey, node, seen)
        if reason is not None:
            return reason
    return None


def _merits(node: Node, survey: Survey) -> str:
    lag = survey.lag_bytes(node.node_id)
    known = "log position not known" if lag is None else f"{lag} bytes behind the most advanced standby"
    return (
        f"{survey.seen[node.node_id].status} standby, {known}; region {node.region}, site {node.site}, "
        f"priority {node.priority}, capacity {node.capacity:g}"
    )


def _nothing_known(node: Node) -> NodeEvidence:
    return NodeEvidence(node_id=node.node_id, status=NodeStatus.UNKNOWN, source="nobody", error="no evidence")


def _known(seen: NodeEvidence) -> NodeState:
    if seen.state is None:
        raise AssertionError("a rule that reads the state stands before the one that demands it")
    return seen.state


def _system_identifier(primary: NodeState | None, standbys: Iterable[NodeState | None]) -> str | None:
    if primary is not None and primary.system_identifier is not None:
        return primary.system_identifier
    counts = Counter(
        s.system_identifier for s in standbys if s is not None and s.system_identifier is not None
    )
    most = counts.most_common(2)
    if not most or (len(most) == 2 and most[0][1] == most[1][1]):
        return None
    return most[0][0]


def _position(node_id: str, state: NodeState | None, identifier: str | None) -> Position | None:
    """Where a standby of this database stands; None if it is not one or does not say."""
    if state is None or state.node_id != node_id or not state.database_up or not state.in_recovery:
        return None
    if state.system_identifier is not None and state.system_identifier != identifier:
        return None
    if state.timeline is None or state.receive_lsn is None:
        return None
    return Position(state.timeline, state.receive_lsn)
