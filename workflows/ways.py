"""How each kind of action is asked for: to be done, undone, and previewed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from temporalio import workflow
from temporalio.workflow import ActivityConfig

from . import options

with workflow.unsafe.imports_passed_through():
    from activities.dns import DnsRecords, FlipRequest, RetimeRequest
    from activities.fencing import FenceRequest, Fencing
    from activities.forcing import ForceRequest, Forcing
    from activities.http_application import (
        ApplicationMoves,
        DemoteRequest,
        HttpFenceRequest,
        HttpPromoteRequest,
    )
    from activities.patroni import HandOverRequest, PatroniMoves
    from activities.patroni_fencing import FenceClusterRequest, PatroniFencing
    from activities.patroni_regions import (
        DemoteClusterRequest,
        PatroniRegions,
        PromoteClusterRequest,
    )
    from activities.promotion import PromoteRequest, Promotion, RepointRequest
    from activities.switchover import PrepareRequest, RejoinRequest, ReleaseRequest, Switchover
    from qnwis.continuity.http_actions import HttpDemote, HttpFence, HttpPromote
    from qnwis.continuity.patroni_actions import (
        PatroniDemoteCluster,
        PatroniFailover,
        PatroniFenceCluster,
        PatroniPromoteCluster,
        PatroniSwitchover,
    )
    from qnwis.continuity.plan import (
        Action,
        FencePrimary,
        FlipDns,
        ForceMembership,
        LowerTtl,
        PrepareNodes,
        PromoteTarget,
        RejoinOldPrimary,
        ReleasePrimary,
        RepointStandbys,
        RestoreTtl,
    )
    from qnwis.continuity.topology import Cluster


@dataclass(frozen=True)
class Way:
    """The activities of one kind of action, and what they are all asked with."""

    asked_with: type
    do: Any
    undo: Any = None
    """None for what is never undone."""
    preview: Any = None
    """None for what needs no look at the world to be previewed."""
    within: Callable[[str], ActivityConfig] = options.effect
    """Options of `do`."""
    undone_within: Callable[[str], ActivityConfig] = options.compensate
    besides_s: Callable[[Any, Cluster], float] = lambda action, cluster: 0.0
    """What configuration allows doing or undoing it to take besides, seconds."""

    def done_with(self, action: Action, cluster: Cluster, summary: str) -> ActivityConfig:
        """Options of `do` for this action."""
        return options.longer(self.within(summary), self.besides_s(action, cluster))

    def undone_with(self, action: Action, cluster: Cluster, summary: str) -> ActivityConfig:
        """Options of `undo` for this action."""
        return options.longer(self.undone_within(summary), self.besides_s(action, cluster))


def _of_the_hook(action: Action, cluster: Cluster) -> float:
    return 0.0 if cluster.fencing is None else cluster.fencing.timeout_s


def _of_the_drain(action: ReleasePrimary, cluster: Cluster) -> float:
    return action.drain_s


WAYS: Mapping[type, Way] = {
    FencePrimary: Way(
        FenceRequest,
        Fencing.fence,
        Fencing.unfence,
        Fencing.preview_fence,
        within=options.fence,
        besides_s=_of_the_hook,
    ),
    ForceMembership: Way(
        ForceRequest,
        Forcing.force,
        Forcing.unforce,
        Forcing.preview_force,
        within=options.fence,
        besides_s=_of_the_hook,
    ),
    LowerTtl: Way(RetimeRequest, DnsRecords.retime, DnsRecords.retime_back),
    PrepareNodes: Way(PrepareRequest, Switchover.prepare, preview=Switchover.preview_prepare),
    ReleasePrimary: Way(
        ReleaseRequest,
        Switchover.release,
        Switchover.take_back,
        Switchover.preview_release,
        within=options.fence,
        besides_s=_of_the_drain,
    ),
    PromoteTarget: Way(PromoteRequest, Promotion.promote, preview=Promotion.preview_promote),
    RepointStandbys: Way(RepointRequest, Promotion.repoint, preview=Promotion.preview_repoint),
    FlipDns: Way(FlipRequest, DnsRecords.flip, preview=DnsRecords.preview_flip),
    RejoinOldPrimary: Way(RejoinRequest, Switchover.rejoin, preview=Switchover.preview_rejoin),
    RestoreTtl: Way(RetimeRequest, DnsRecords.retime),
    PatroniSwitchover: Way(
        HandOverRequest,
        PatroniMoves.hand_over,
        preview=PatroniMoves.preview_hand_over,
        within=options.hand_over,
    ),
    PatroniFailover: Way(
        HandOverRequest,
        PatroniMoves.hand_over,
        preview=PatroniMoves.preview_hand_over,
        within=options.hand_over,
    ),
    PatroniDemoteCluster: Way(
        DemoteClusterRequest,
        PatroniRegions.demote_cluster,
        PatroniRegions.take_cluster_back,
        PatroniRegions.preview_demote_cluster,
        within=options.patroni,
        undone_within=options.compensate_patroni,
    ),
    PatroniFenceCluster: Way(
        FenceClusterRequest,
        PatroniFencing.fence_cluster,
        PatroniFencing.unfence_cluster,
        PatroniFencing.preview_fence_cluster,
        within=options.patroni,
        besides_s=_of_the_hook,
    ),
    PatroniPromoteCluster: Way(
        PromoteClusterRequest,
        PatroniRegions.promote_cluster,
        preview=PatroniRegions.preview_promote_cluster,
        within=options.patroni,
    ),
    HttpDemote: Way(
        DemoteRequest,
        ApplicationMoves.http_demote,
        ApplicationMoves.http_take_back,
        ApplicationMoves.preview_http_demote,
        within=options.application,
        undone_within=options.compensate_application,
    ),
    HttpFence: Way(
        HttpFenceRequest,
        ApplicationMoves.http_fence,
        ApplicationMoves.http_unfence,
        ApplicationMoves.preview_http_fence,
        within=options.fence,
        besides_s=_of_the_hook,
    ),
    HttpPromote: Way(
        HttpPromoteRequest,
        ApplicationMoves.http_promote,
        preview=ApplicationMoves.preview_http_promote,
        within=options.application,
    ),
}
"""Verification is in none of them: the run itself verifies."""
