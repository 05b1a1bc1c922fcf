"""An active/active cluster on paper: what becomes of the whole once the lease group of one region has ended.

Nothing is promoted across regions. Where the region is gone its weight goes to the others, as an evacuation
would shift it (`shifting`); as long as a node of it answers, its own lease group is what there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .direction import Direction
from .policy import Policy, Strategy
from .refusal import Refusal
from .shifting import WeightMove, shift_out, unshifted
from .simulation import Event, SimulationResult
from .topology import Cluster


def of_the_whole(
    cluster: Cluster, policy: Policy, region: str, told: SimulationResult, answering: frozenset[str]
) -> SimulationResult:
    """`told`: what the region's lease group came to; `answering`: its nodes that answer at the end."""
    of_all = told.model_copy(
        update={
            "cluster_id": cluster.cluster_id,
            "assumptions": (
                f"{region} decides alone, as {told.cluster_id}; nothing is promoted across regions",
                *told.assumptions,
            ),
        }
    )
    if told.detection_ms is None or told.success:
        return of_all
    moved = shift_out(cluster, {share.region: share.weight for share in cluster.shares}, region)
    if answering:
        return _go_on(of_all, _left_over(region, moved))
    return _lost(of_all, cluster, policy, region, moved)


def _lost(
    told: SimulationResult, cluster: Cluster, policy: Policy, region: str, moved: WeightMove | Refusal | None
) -> SimulationResult:
    """Without the region: an evacuation shifts its weight, or finds no room for it."""
    events = [f"{region} is lost: no node of it answers", _who_leaves(policy, region)]
    if moved is None:
        return _go_on(told, [*events, f"{region} has no weight: no traffic goes there"], refusal=None)
    if isinstance(moved, Refusal):
        return _go_on(told, [*events, f"refused: {moved.message}"], refusal=moved)
    not_yet = unshifted(cluster, moved.after, region, Direction.OUT)
    return _go_on(
        told.model_copy(update={"assumptions": (*told.assumptions, *_assumed(cluster))}),
        [*events, f"weights: {moved.told()}"],
        success=not_yet is None,
        refusal=None,
        weights=moved,
    )


def _who_leaves(policy: Policy, region: str) -> str:
    if policy.region_strategy is Strategy.MANUAL:
        return f"region_strategy is manual: a person leaves it (qnwis-continuity region evacuate {region})"
    who = f"the guardian of {region} leaves it, once its rules call it lost"
    return f"region_strategy is {policy.region_strategy}: {who}"


def _assumed(cluster: Cluster) -> Iterator[str]:
    yield "how long it takes until the weights are shifted is not part of the result"
    if cluster.dns is None:
        yield f"{cluster.cluster_id} has no DNS service, which its weights are in; it is taken to have one"


def _left_over(region: str, moved: WeightMove | Refusal | None) -> Iterator[str]:
    """What a person can do about a region that has nodes left and no primary."""
    if moved is None:
        return
    to_what = moved.message if isinstance(moved, Refusal) else moved.told()
    yield f"a person can leave {region} (qnwis-continuity region evacuate {region}): {to_what}"


def _go_on(told: SimulationResult, events: Iterable[str], **changed: object) -> SimulationResult:
    """The same, with more events at its end."""
    end_ms = told.timeline[-1].t_ms
    timeline = (*told.timeline, *(Event(t_ms=end_ms, what=what) for what in events))
    return told.model_copy(update={"timeline": timeline, **changed})
