"""A cluster on paper: what its agents would say, and what the actions of a plan would do to it.

The rehearsal of a run and the scenarios of the simulator both play plans here, through the real stepper and
the real verifier. Effects are modelled as succeeding wherever the node they speak to is alive.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from .evidence import ClusterEvidence, NodeEvidence, NodeState
from .executor import Do, Finish, Outcome, OutcomeStatus, RunEnd, Undo, advance, satisfied
from .http_actions import HttpDemote, HttpFence, HttpPromote
from .modelled_http import carry_out as carry_out_on_application
from .modelled_patroni import SOURCE as SOURCE
from .modelled_patroni import carry_out as carry_out_by_patroni
from .orders import FencingEvidence, FencingEvidenceType
from .outage import waited_for
from .patroni_actions import (
    PatroniDemoteCluster,
    PatroniFailover,
    PatroniFenceCluster,
    PatroniPromoteCluster,
    PatroniSwitchover,
)
from .plan import (
    Action,
    FencePrimary,
    FlipDns,
    ForceMembership,
    LowerTtl,
    Plan,
    PrepareNodes,
    PromoteTarget,
    RejoinOldPrimary,
    ReleasePrimary,
    RepointStandbys,
    RestoreTtl,
    VerifyService,
)
from .policy import Policy
from .topology import Cluster, NodeRole, NodeStatus
from .verifier import VerificationReport, verify


@dataclass
class ModelledCluster:
    """The world that modelled effects change."""

    cluster: Cluster
    states: dict[str, NodeState]
    """What each node would say if it were asked; a node that is gone is not in it."""
    statuses: Mapping[str, NodeStatus]
    """What each node counts as while it answers."""
    unheard: frozenset[str] = frozenset()
    """Alive, but cut off from those who ask."""
    dns: dict[str, tuple[str, ...]] | None = None
    """What each authoritative server answers, from the first change on."""

    @classmethod
    def of(cls, cluster: Cluster, evidence: ClusterEvidence) -> ModelledCluster:
        return cls(
            cluster,
            states={node.node_id: node.state for node in evidence.nodes if node.state is not None},
            statuses={node.node_id: node.status for node in evidence.nodes},
        )

    def evidence(self, at: datetime) -> ClusterEvidence:
        """What a collector would find now: silence is unknown, because it does not say why."""
        silent = NodeEvidence(
            node_id="",
            status=NodeStatus.UNKNOWN,
            source=SOURCE,
            observed_at=at,
            state=None,
            error="no answer",
        )

        def seen(node_id: str) -> NodeEvidence:
            """A copy: a cluster may have a thousand nodes, and a copy is not validated."""
            state = None if node_id in self.unheard else self.states.get(node_id)
            if state is None:
                return silent.model_copy(update={"node_id": node_id})
            status = self.statuses[node_id]
            return silent.model_copy(
                update={"node_id": node_id, "status": status, "state": state, "error": None}
            )

        nodes = tuple(seen(node.node_id) for node in self.cluster.nodes)
        return ClusterEvidence(cluster_id=self.cluster.cluster_id, nodes=nodes, taken_at=at)

    def lose(self, node_ids: Collection[str]) -> None:
        """These nodes are gone, and who streamed from them streams no more."""
        for node_id in node_ids:
            self.states.pop(node_id, None)
        for node_id, state in self.states.items():
            if state.streaming and state.upstream in node_ids:
                self.states[node_id] = state.model_copy(update={"streaming": False})

    def carry_out(self, action: Action, *, epoch: int, at: datetime) -> Outcome:
        """The effect of one action other than the verification."""
        match action:
            case FencePrimary():
                return self._fence(action, epoch, at)
            case ForceMembership():
                return self._force(action, epoch, at)
            case ReleasePrimary():
                return self._release(action, epoch, at)
            case LowerTtl() | RestoreTtl():
                return _ended(action, OutcomeStatus.SUCCEEDED, f"the TTL is {action.to_ttl_s} s")
            case PrepareNodes():
                return _ended(action, OutcomeStatus.SUCCEEDED, "checkpoints are written")
            case RejoinOldPrimary():
                return self._rejoin(action, epoch)
            case PromoteTarget():
                return self._promote(action, epoch)
            case RepointStandbys():
                return self._repoint(action, epoch)
            case FlipDns():
                return self._flip(action)
            case (
                PatroniSwitchover()
                | PatroniFailover()
                | PatroniDemoteCluster()
                | PatroniFenceCluster()
                | PatroniPromoteCluster()
            ):
                return carry_out_by_patroni(action, self.cluster, self.states, epoch=epoch, at=at)
            case HttpDemote() | HttpFence() | HttpPromote():
                return carry_out_on_application(action, self.states, epoch=epoch, at=at)
            case VerifyService():
                raise ValueError("verification reads the world and changes nothing; see `play`")

    def _fence(self, action: FencePrimary, epoch: int, at: datetime) -> Outcome:
        was_alive = action.node_id in self.states
        self.lose({action.node_id})
        return Outcome(
            action_id=action.action_id,
            status=OutcomeStatus.SUCCEEDED,
            changed=was_alive,
            detail=f"the lease of {action.node_id} has run out",
            fencing=FencingEvidence(
                type=FencingEvidenceType.LEASE_EXPIRED,
                holder=action.node_id,
                epoch=epoch,
                source=SOURCE,
                detail="a lease that ran out, modelled",
                at=at,
            ),
        )

    def _force(self, action: ForceMembership, epoch: int, at: datetime) -> Outcome:
        """On paper the lost nodes are gone, as these people say."""
        self.lose(action.lost)
        outcome = _ended(action, OutcomeStatus.SUCCEEDED, f"the members are {', '.join(action.members)}")
        evidence = FencingEvidence(
            type=FencingEvidenceType.ATTESTED,
            holder=action.node_id,
            epoch=epoch,
            source=SOURCE,
            detail=f"{', '.join(action.lost)} are gone, modelled",
            at=at,
        )
        return outcome.model_copy(update={"fencing": evidence})

    def _release(self, action: ReleasePrimary, epoch: int, at: datetime) -> Outcome:
        state = self.states.get(action.node_id)
        if state is None or not state.writable:
            return _ended(action, OutcomeStatus.FAILED, f"{action.node_id} does not accept writes")
        self.states[action.node_id] = state.model_copy(
            update={"database_up": False, "writable": False, "in_recovery": None}
        )
        evidence = FencingEvidence(
            type=FencingEvidenceType.RELEASED,
            holder=action.node_id,
            epoch=epoch,
            source=SOURCE,
            detail="a lease that was released, modelled",
            at=at,
        )
        outcome = _ended(action, OutcomeStatus.SUCCEEDED, f"{action.node_id} has released its lease")
        return outcome.model_copy(update={"fencing": evidence})

    def _rejoin(self, action: RejoinOldPrimary, epoch: int) -> Outcome:
        state, upstream = self.states[action.node_id], self.states[action.upstream]
        self.states[action.node_id] = state.model_copy(
            update={
                "database_up": True,
                "in_recovery": True,
                "upstream": action.upstream,
                "streaming": True,
                "last_message_age_s": 0.0,
                "timeline": upstream.timeline,
                "write_lsn": None,
                "receive_lsn": upstream.write_lsn,
                "replay_lsn": upstream.write_lsn,
                "epoch": epoch,
            }
        )
        return _ended(action, OutcomeStatus.SUCCEEDED, f"{action.node_id} follows {action.upstream}")

    def _promote(self, action: PromoteTarget, epoch: int) -> Outcome:
        state = self.states.get(action.node_id)
        if state is None:
            return _ended(action, OutcomeStatus.FAILED, f"{action.node_id} is gone")
        self.states[action.node_id] = state.model_copy(
            update={
                "role": NodeRole.PRIMARY,
                "writable": True,
                "in_recovery": False,
                "timeline": 1 + max(other.timeline or 0 for other in self.states.values()),
                "write_lsn": state.receive_lsn or 0,
                "upstream": None,
                "streaming": False,
                "epoch": epoch,
            }
        )
        return _ended(action, OutcomeStatus.SUCCEEDED, f"{action.node_id} accepts writes")

    def _repoint(self, action: RepointStandbys, epoch: int) -> Outcome:
        upstream = self.states[action.upstream]
        following = {
            "upstream": action.upstream,
            "streaming": True,
            "last_message_age_s": 0.0,
            "timeline": upstream.timeline,
            "receive_lsn": upstream.write_lsn,
            "replay_lsn": upstream.write_lsn,
            "epoch": epoch,
        }
        alive = [n for n in action.node_ids if n in self.states and self.states[n].database_up]
        for node_id in alive:
            self.states[node_id] = self.states[node_id].model_copy(update=following)
        away = len(action.node_ids) - len(alive)
        detail = f"{len(alive)} standbys follow {action.upstream}" + (f", {away} are away" if away else "")
        return _ended(action, OutcomeStatus.SUCCEEDED, detail)

    def _flip(self, action: FlipDns) -> Outcome:
        if action.record is None or self.cluster.dns is None:
            return _ended(action, OutcomeStatus.SKIPPED, "the topology has no DNS service")
        self.dns = dict.fromkeys(self.cluster.dns.places, (action.to_address,))
        return _ended(action, OutcomeStatus.SUCCEEDED, f"{action.record} is {action.to_address}")


@dataclass(frozen=True)
class Played:
    """What came of a plan on paper."""

    finish: Finish
    outcomes: tuple[Outcome, ...]
    """The last outcome of each action, in the order in which they ended."""
    report: VerificationReport | None
    """None when the run never came to its verification."""
    elapsed_ms: float

    @property
    def completed(self) -> bool:
        return self.finish.end is RunEnd.COMPLETED

    @property
    def actions_executed(self) -> int:
        return satisfied(self.outcomes)


def play(
    plan: Plan,
    policy: Policy,
    world: ModelledCluster,
    *,
    before: ClusterEvidence,
    epoch: int,
    started_at: datetime,
    duration_ms: Callable[[Action], float],
) -> Played:
    """Carry the plan out on `world`, as a run does: the stepper decides, the verifier has the last word."""
    outcomes: dict[str, Outcome] = {}
    report: VerificationReport | None = None
    elapsed_ms = outage_ms = 0.0
    counts = {action.action_id for action in waited_for(plan)}
    while True:
        now = started_at + timedelta(milliseconds=elapsed_ms)
        match advance(plan, list(outcomes.values())):
            case Finish() as finish:
                return Played(finish, tuple(outcomes.values()), report, elapsed_ms)
            case Undo(action=action):
                outcome = _ended(action, OutcomeStatus.UNDONE, "undone")
            case Do(action=VerifyService() as action):
                report = verify(
                    plan,
                    world.cluster,
                    policy,
                    before,
                    world.evidence(now),
                    fencing=next((o.fencing for o in outcomes.values() if o.fencing is not None), None),
                    dns=world.dns,
                    elapsed_ms=outage_ms,
                    epoch=epoch,
                )
                status = OutcomeStatus.SUCCEEDED if report.passed else OutcomeStatus.FAILED
                outcome = _ended(action, status, "; ".join(check.detail for check in report.failures))
            case Do(action=action):
                outcome = world.carry_out(action, epoch=epoch, at=now)
        took_ms = duration_ms(action)
        elapsed_ms += took_ms
        outage_ms += took_ms if action.action_id in counts else 0.0
        outcomes.pop(action.action_id, None)
        outcomes[action.action_id] = outcome.model_copy(update={"duration_ms": took_ms})


def _ended(action: Action, status: OutcomeStatus, detail: str) -> Outcome:
    """An outcome that changed the world if it succeeded. A verification changes nothing."""
    changed = status is OutcomeStatus.SUCCEEDED and not isinstance(action, VerifyService)
    return Outcome(action_id=action.action_id, status=status, changed=changed, detail=detail)
