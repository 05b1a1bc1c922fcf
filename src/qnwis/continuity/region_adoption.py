"""What the guardian of a region takes up when it is started anew: the evacuation that goes on, or the last
one that a guardian had begun, so that one loss is answered once however often its guardian was ended.

What Temporal keeps no longer is not taken up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import AwareDatetime

from .model import Model
from .region_decision import GOES_ON, Begun
from .region_plan import Direction
from .region_run import EvacuateRequest
from .region_sight import ClusterInRegion
from .region_wait import RegionFinding
from .regions import RegionVerdict
from .run import RunOutcome

MOVED = {RunOutcome.COMPLETED, RunOutcome.INCOMPLETE}


class PastEvacuation(Model):
    """One execution under a region's lock, whichever direction it had."""

    run_id: str
    request: EvacuateRequest
    started_at: AwareDatetime
    goes_on: bool
    outcome: RunOutcome | None = None
    """None while it goes on, and where it ended without a result."""
    reason: str = GOES_ON


class TakenUp(Model):
    """What a guardian goes by that did not begin it itself."""

    begun: Begun
    goes_on: bool
    told: bool
    """Whether people were told of that loss: a guardian had begun it."""


def decisive(past: PastEvacuation) -> bool:
    """Whether nothing that was before it matters: it goes on, a guardian began it, or clusters came back."""
    back = past.request.direction is Direction.BACK
    return past.goes_on or (past.outcome in MOVED if back else past.request.automatic)


def taken_up(past: Sequence[PastEvacuation]) -> TakenUp | None:
    """`past`: newest first. A person's evacuation that has ended holds nothing back, as it does none for a
    guardian that goes on; one after which clusters came back, or do now, belongs to a loss that is over."""
    newest = next((one for one in past if decisive(one)), None)
    if newest is None or newest.request.direction is Direction.BACK:
        return None
    verdict = newest.request.verdict
    since = verdict.since if verdict is not None and verdict.since is not None else newest.started_at
    return TakenUp(
        begun=Begun(
            since=since,
            clusters=newest.request.clusters,
            run_id=newest.run_id,
            outcome=newest.outcome,
            reason=newest.reason,
        ),
        goes_on=newest.goes_on,
        told=newest.request.automatic,
    )


class FollowsUpon(NamedTuple):
    """What the next verdict on a region is judged after."""

    begun: Begun | None
    verdict: RegionVerdict | None


def follows_upon(
    region: str,
    begun: Begun | None,
    verdict: RegionVerdict | None,
    seen: Sequence[ClusterInRegion],
    *,
    goes_on: bool,
) -> FollowsUpon:
    """Whether an evacuation that was taken up answers the present loss. It does where nodes are failed and
    none is alive: then the loss has lasted since before it. One node that is alive shows that there is none
    any more, or none yet. As long as neither is seen the evacuation is kept, and forbids a second one."""
    if begun is None or _of_its_loss(begun, verdict):
        return FollowsUpon(begun, verdict)
    if any(cluster.alive for cluster in seen):
        return FollowsUpon(begun if goes_on else None, verdict)
    if not any(cluster.failed for cluster in seen):
        return FollowsUpon(begun, verdict)
    why = f"an evacuation was begun for it, run {begun.run_id}"
    lost = RegionVerdict(region=region, finding=RegionFinding.SUSPECTED, why=why, since=begun.since)
    return FollowsUpon(begun, lost)


def is_over(
    after: FollowsUpon, now: RegionVerdict, seen: Sequence[ClusterInRegion], *, goes_on: bool
) -> bool:
    """Whether the loss that the evacuation answers has ended: the region is well after it was not, and a node
    in it is seen alive. That nobody says anything of it is no sign of that."""
    if after.begun is None or goes_on or not any(cluster.alive for cluster in seen):
        return False
    return now.finding is RegionFinding.WELL and _of_its_loss(after.begun, after.verdict)


def _of_its_loss(begun: Begun, verdict: RegionVerdict | None) -> bool:
    return verdict is not None and verdict.since == begun.since
