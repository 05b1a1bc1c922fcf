"""Moving the primary between two Patroni clusters: the old region is made read-only, or fenced without its
Patroni (`patroni_fencing`), then the new one is promoted. Each cluster's own Patroni carries it out."""

from __future__ import annotations

from datetime import UTC, datetime

from temporalio import activity

from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.orders import FencingEvidence, FencingEvidenceType
from qnwis.continuity.patroni import demoted_refusal, writing
from qnwis.continuity.patroni_actions import PatroniDemoteCluster, PatroniPromoteCluster
from qnwis.continuity.promotion import patroni_promotion_refusal
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.switchover import steady_state_refusal
from qnwis.continuity.topology import Node
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.evidence import collect_evidence
from qnwis.providers.nodes import Nodes
from qnwis.providers.patroni import Patroni

from .effect import EffectRequest, carried_out, compensated, preview
from .patroni import PatroniRequest, rounds_s, until

TOLD_WITHIN_S = 5.0
"""Patroni answers a change of its configuration at once, and acts on it afterwards."""
ACTS_WITHIN_S = 40.0
"""Beyond two rounds of Patroni: a stop of the database and its start as a standby, or a promotion."""
BACK_WITHIN_S = 120.0
"""How long an undo begins to ask for the old region's primary, seconds: a restart of its Patroni and of its
database. One that is lost does not come back by itself, and the run holds its cluster's lock."""
BACK_ATTEMPT_S = 80.0


class DemoteClusterRequest(PatroniRequest):
    action: PatroniDemoteCluster


class PromoteClusterRequest(PatroniRequest):
    action: PatroniPromoteCluster


class PatroniRegions:
    def __init__(self, nodes: Nodes, patroni: Patroni) -> None:
        self._nodes = nodes
        self._patroni = patroni

    # The old region

    @activity.defn
    async def demote_cluster(self, request: DemoteClusterRequest) -> Outcome:
        """Make the old region a standby cluster of the target, and wait until it is seen to be read-only and
        the target to have all of its log. What is so already is left as it is."""
        action, cluster = request.action, request.cluster

        async def demoted() -> Outcome:
            evidence, changed = await self._look(request), False
            if _demoted(evidence, action) is not None:
                if not (request.may_be_asked or _follows(evidence, action)):
                    refusal = steady_state_refusal(request.plan, cluster, request.policy, evidence)
                    if refusal is not None:
                        raise Refused(refusal)
                await self._patroni.follow_as_standby_cluster(
                    cluster.node(action.node_id),
                    host=action.upstream_host,
                    port=action.upstream_port,
                    timeout_s=TOLD_WITHIN_S,
                )
                changed = True
            evidence = await until(
                self._nodes,
                request,
                lambda seen: _demoted(seen, action) is None,
                within_s=_patience_s(evidence),
            )
            if (not_yet := _demoted(evidence, action)) is not None:
                raise Unreachable(str(not_yet))
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.SUCCEEDED,
                changed=changed,
                detail=f"{', '.join(action.node_ids)} are read-only and follow {action.target}",
                fencing=_handed_over(request, evidence, changed=changed),
                facts={"end_lsn": _replayed(evidence, action.node_id)},
            )

        return await carried_out(action.action_id, demoted, if_refused=request.if_refused)

    @activity.defn
    async def take_cluster_back(self, request: DemoteClusterRequest) -> Outcome:
        """Compensation of `demote_cluster`: the old region has a primary again, unless another region has one
        by now, or is told to: this run has promoted none, so a person has."""
        action, cluster = request.action, request.cluster

        async def taken_back() -> Outcome:
            evidence = await self._look(request)
            if (elsewhere := _elsewhere(request, evidence)) is not None:
                return Outcome(
                    action_id=action.action_id,
                    status=OutcomeStatus.UNDONE,
                    changed=False,
                    detail=f"{', '.join(action.node_ids)} were not told to have a primary again: {elsewhere}",
                )
            changed = _follows(evidence, action)
            members = [cluster.node(node_id) for node_id in action.node_ids]
            # Told in any case: a member may not have heard yet what this run has told the others.
            await self._stand_alone(members)
            evidence = await until(
                self._nodes, request, lambda seen: _serves(seen, members), within_s=_patience_s(evidence)
            )
            if not _serves(evidence, members):
                raise Unreachable(f"none of {', '.join(action.node_ids)} accepts writes yet")
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.UNDONE,
                changed=changed,
                detail=f"{', '.join(_writing(evidence, members))} accepts writes again",
            )

        region = cluster.node(action.node_id).region
        upstream = f"{action.upstream_host}:{action.upstream_port}"
        return await compensated(
            action.action_id,
            taken_back,
            attempt_s=BACK_ATTEMPT_S,
            within_s=BACK_WITHIN_S,
            # What was told may be stored, and be acted on when its hosts are back: else two would write.
            left=f"{region} was told to lead and may begin any moment: before another is promoted, make it a"
            f" standby cluster of {upstream} again (`patronictl edit-config`) or switch it off. If none is"
            f" promoted: {region} may still be a standby cluster, and then nobody accepts writes; take"
            " standby_cluster out of its configuration",
        )

    async def _stand_alone(self, members: list[Node]) -> None:
        """Tell the first of the members that takes it. Raises Unreachable where none does."""
        failures: list[str] = []
        for member in members:
            try:
                return await self._patroni.stand_alone(member, timeout_s=TOLD_WITHIN_S)
            except (Refused, Unreachable) as failure:
                failures.append(str(failure))
        raise Unreachable("; ".join(failures))

    @activity.defn
    async def preview_demote_cluster(self, request: DemoteClusterRequest) -> Outcome:
        action = request.action
        return preview(
            action.action_id,
            f"would send PATCH /config to Patroni of {action.node_id}: standby_cluster"
            f" {action.upstream_host}:{action.upstream_port}; and wait until {', '.join(action.node_ids)} are"
            f" read-only and {action.target} has replayed all",
        )

    # The new region

    @activity.defn
    async def promote_cluster(self, request: PromoteClusterRequest) -> Outcome:
        """Make the target's cluster one that has a primary, and see that the target is it. The point of no
        return.

        The old region is fenced by now, so what speaks against the target is final, until it is asked for the
        first time; from then on it may happen any moment, and a refusal is waited out.
        """
        action, cluster = request.action, request.cluster
        target = cluster.node(action.node_id)

        async def promoted() -> Outcome:
            evidence, changed = await self._look(request), False
            if not _serves(evidence, [target]):
                refusal = patroni_promotion_refusal(
                    request.plan, cluster, request.policy, evidence, left=action.left
                )
                if refusal is not None and request.may_be_asked:
                    raise Unreachable(f"{target.region} may be about to be promoted, and now: {refusal}")
                if refusal is not None:
                    raise Refused(refusal)
                await self._told_to_lead(request, target)
                changed = True
            evidence = await until(
                self._nodes,
                request,
                lambda seen: _serves(seen, [target]),
                within_s=_patience_s(evidence),
            )
            if not _serves(evidence, [target]):
                raise Unreachable(f"{action.node_id} does not accept writes yet")
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.SUCCEEDED,
                changed=changed,
                detail=f"{action.node_id} accepts writes; {target.region} is no standby cluster any more",
                facts={"promoted_at": datetime.now(UTC).isoformat()},
            )

        return await carried_out(action.action_id, promoted)

    async def _told_to_lead(self, request: PromoteClusterRequest, target: Node) -> None:
        """Raises Refused where the target's Patroni says no at the first request; at a later one it may do
        all the same what it was asked before."""
        try:
            await self._patroni.stand_alone(target, timeout_s=TOLD_WITHIN_S)
        except Refused as refused:
            if request.may_be_asked:
                about = f"{target.region} may be about to be promoted"
                raise Unreachable(f"{about}, and now: {refused}") from refused
            raise

    @activity.defn
    async def preview_promote_cluster(self, request: PromoteClusterRequest) -> Outcome:
        action = request.action
        return preview(
            action.action_id,
            f"would send PATCH /config to Patroni of {action.node_id}: no standby_cluster; and wait until"
            f" {action.node_id} accepts writes",
        )

    async def _look(self, request: EffectRequest) -> ClusterEvidence:
        return await collect_evidence(self._nodes, request.cluster)


def _patience_s(evidence: ClusterEvidence) -> float:
    return rounds_s([node.state for node in evidence.nodes]) + ACTS_WITHIN_S


def _follows(evidence: ClusterEvidence, action: PatroniDemoteCluster) -> bool:
    """Whether the old region's Patroni is told already to follow the target."""
    state = evidence.of(action.node_id).state
    wanted = f"{action.upstream_host}:{action.upstream_port}"
    return state is not None and state.patroni is not None and state.patroni.standby_of == wanted


def _demoted(evidence: ClusterEvidence, action: PatroniDemoteCluster) -> Refusal | None:
    """Why the old region does not count as handed over yet."""
    return demoted_refusal(evidence, old=action.node_id, region=action.node_ids, target=action.target)


def _elsewhere(request: DemoteClusterRequest, evidence: ClusterEvidence) -> str | None:
    """Who accepts writes outside the old region, or is about to: its cluster is no standby cluster, and
    Patroni acts on that within a round."""
    action, cluster = request.action, request.cluster
    others = [node for node in cluster.nodes if node.node_id not in action.node_ids]
    if writes := _writing(evidence, others):
        return f"{', '.join(writes)} accepts writes"
    for node in cluster.in_region(cluster.node(action.target).region):
        state = evidence.of(node.node_id).state
        if state is not None and state.patroni is not None and state.patroni.standby_of is None:
            return f"{node.region} is no standby cluster any more, says {node.node_id}"
    return None


def _writing(evidence: ClusterEvidence, nodes: list[Node]) -> list[str]:
    return list(writing(nodes, {seen.node_id: seen for seen in evidence.nodes}))


def _serves(evidence: ClusterEvidence, nodes: list[Node]) -> bool:
    return bool(_writing(evidence, nodes))


def _replayed(evidence: ClusterEvidence, node_id: str) -> int | None:
    state = evidence.of(node_id).state
    return None if state is None else state.replay_lsn


def _handed_over(
    request: DemoteClusterRequest, evidence: ClusterEvidence, *, changed: bool
) -> FencingEvidence:
    action = request.action
    return FencingEvidence(
        type=FencingEvidenceType.RELEASED,
        holder=action.node_id,
        epoch=request.epoch,
        source=evidence.of(action.node_id).source,
        detail=f"{action.node_id} is in recovery, in a standby cluster of"
        f" {action.upstream_host}:{action.upstream_port}",
        at=datetime.now(UTC),
        changed=changed,
    )
