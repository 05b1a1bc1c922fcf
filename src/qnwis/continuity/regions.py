"""The loss of a region: when it is one, which clusters leave it, in which order, and when to stop and ask.

A region counts as lost only where several nodes of several clusters in it are failed, for longer than a
partition lasts; a short one must not move a region. All of it is decided here, from what the guardians of the
clusters hold; nothing is asked of the world.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from pydantic import Field, ValidationInfo, field_validator

from .model import LONGEST_S, Identifier, Model, at_most_if_stored
from .plan import Plan
from .refusal import Refusal
from .region_plan import ClusterMove, Direction, Move, RegionPlan, Unmovable
from .region_sight import ClusterInRegion
from .region_wait import RegionFinding as RegionFinding
from .run import RunOutcome
from .shifting import WeightMove
from .topology import Cluster


class RegionRules(Model):
    """`regions.yaml`: when a region is lost, and how it is left. Everything has a default."""

    dwell_s: float = Field(default=120, ge=0, le=LONGEST_S)
    """For so long a loss must last before anything is done about it. A partition of 43 s moves nothing."""
    settle_s: float = Field(default=60, ge=0, le=LONGEST_S)
    """For so long a region must be well before a loss counts as over: what comes and goes is one loss, and
    databases that stopped for want of a majority have so long to come back by themselves."""
    min_clusters: int = Field(default=2, ge=1)
    """Clusters with failed nodes in the region; of fewer, each cluster's own guardian decides."""
    min_nodes: int = Field(default=2, ge=1)
    """Failed nodes in the region, all clusters together."""
    wave_size: int = Field(default=5, ge=1)
    """Clusters that are moved at the same time."""
    stop_after: int = Field(default=1, ge=1)
    """So many clusters that did not move in one wave hold the next one until a person says to go on."""

    @field_validator("dwell_s", "settle_s", mode="before")
    @classmethod
    def _at_most(cls, seconds: object, info: ValidationInfo) -> object:
        return at_most_if_stored(LONGEST_S, seconds, info)


class RegionVerdict(Model):
    """What is held of a region, and why."""

    region: str
    finding: RegionFinding
    why: str
    since: datetime | None = None
    """When the present loss began; None while the region is well."""
    well_since: datetime | None = None
    """While a loss is not over yet: since when nothing of it is seen."""


def judge_region(
    region: str,
    seen: Sequence[ClusterInRegion],
    rules: RegionRules,
    before: RegionVerdict | None,
    now: datetime,
) -> RegionVerdict:
    """The verdict on a region. It needs failed nodes enough of clusters enough, seen by more than vantages in
    the region itself, and nothing alive beside them: one node that answers from inside, or that a standby
    elsewhere still hears, shows that some nodes are lost and not the region."""
    hit = [cluster for cluster in seen if cluster.failed]
    failed = sum(len(cluster.failed) for cluster in hit)
    alive = [f"{cluster.cluster_id}/{node_id}" for cluster in seen for node_id in cluster.alive]
    counted = f"{failed} failed nodes of {len(hit)} clusters"
    needed = f"needed are {rules.min_nodes} of {rules.min_clusters}"
    lost_now = len(hit) >= rules.min_clusters and failed >= rules.min_nodes and not alive
    since = before.since if before is not None else None
    if lost_now:
        since = since or now
        lasts_s = (now - since).total_seconds()
        if lasts_s >= rules.dwell_s:
            return RegionVerdict(
                region=region, finding=RegionFinding.LOST, why=f"{counted} for {lasts_s:.0f} s", since=since
            )
        why = f"{counted} for {lasts_s:.0f} s; acted on after {rules.dwell_s:g} s"
        return RegionVerdict(region=region, finding=RegionFinding.SUSPECTED, why=why, since=since)
    why = f"{counted}, {needed}" if not alive else f"{counted}; {', '.join(alive[:5])} seem alive"
    well_since = (before.well_since if before is not None else None) or now
    if since is not None and (now - well_since).total_seconds() < rules.settle_s:
        return RegionVerdict(
            region=region, finding=RegionFinding.SUSPECTED, why=why, since=since, well_since=well_since
        )
    return RegionVerdict(region=region, finding=RegionFinding.WELL, why=why)


def decides_at(verdict: RegionVerdict, rules: RegionRules) -> datetime | None:
    """When time alone will change the verdict."""
    if verdict.finding is not RegionFinding.SUSPECTED or verdict.since is None:
        return None
    if verdict.well_since is not None:
        return verdict.well_since + timedelta(seconds=rules.settle_s)
    return verdict.since + timedelta(seconds=rules.dwell_s)


# --- The plan ---


class Candidate(Model):
    """A cluster that the direction concerns, and what planning its move came to."""

    cluster_id: Identifier
    priority: int
    how: Move
    plan: Plan | None
    refusal: Refusal | None
    predicted_loss_bytes: int | None = None


def region_refusal(region: str, clusters: Iterable[Cluster]) -> Refusal | None:
    """Why a region cannot be meant: no cluster that is known stands in one of that name."""
    known = sorted({name for cluster in clusters for name in cluster.regions})
    if region in known:
        return None
    return Refusal(
        rule="unknown_region",
        message=f"No registered cluster has a region {region!r}; known are {', '.join(known) or 'none'}",
        values={"region": region, "known": [*known]},
        remedy="Name one of them, or register the cluster.",
    )


def make_region_plan(
    region: str,
    reason: str,
    candidates: Iterable[Candidate],
    rules: RegionRules,
    direction: Direction = Direction.OUT,
    shifts: Sequence[WeightMove | Unmovable] = (),
) -> RegionPlan | Refusal:
    """All clusters that can be moved, the important ones first, in waves of `wave_size`; before them, the
    active/active ones, whose weights are shifted (`shifts`)."""
    ordered = sorted(candidates, key=lambda candidate: (-candidate.priority, candidate.cluster_id))
    moves = [
        ClusterMove(
            cluster_id=candidate.cluster_id,
            how=candidate.how,
            plan=candidate.plan,
            predicted_loss_bytes=candidate.predicted_loss_bytes,
        )
        for candidate in ordered
        if candidate.plan is not None
    ]
    weights = tuple(shift for shift in shifts if isinstance(shift, WeightMove))
    unmovable = (
        *(shift for shift in shifts if isinstance(shift, Unmovable)),
        *(
            Unmovable(cluster_id=candidate.cluster_id, refusal=candidate.refusal)
            for candidate in ordered
            if candidate.plan is None and candidate.refusal is not None
        ),
    )
    if not moves and not weights:
        return Refusal(
            rule="nothing_to_move",
            message=f"No cluster can {'leave' if direction is Direction.OUT else 'come back to'} {region}: "
            + ("; ".join(f"{one.cluster_id}: {one.refusal}" for one in unmovable) or "it concerns none"),
            values={"region": region, "unmovable": [one.cluster_id for one in unmovable]},
            remedy="Nothing to do." if not unmovable else "Remove what each refusal names, and start again.",
        )
    size = rules.wave_size
    return RegionPlan(
        region=region,
        direction=direction,
        reason=reason,
        waves=tuple(tuple(moves[at : at + size]) for at in range(0, len(moves), size)),
        weights=weights,
        unmovable=unmovable,
        stop_after=rules.stop_after,
    )


# --- While it goes on ---


class Moved(Model):
    """How the run of one cluster ended."""

    cluster_id: Identifier
    outcome: RunOutcome | None
    """None where another run held the cluster's lock all the time, and where how it ended is not known."""
    run_id: str | None
    """None where no run of this evacuation was begun."""
    reason: str
    adopted: bool = False
    """A run of this cluster was going on already, and was waited for."""

    @property
    def good(self) -> bool:
        """Its service runs elsewhere, and that was verified."""
        return self.outcome is RunOutcome.COMPLETED

    @property
    def moved(self) -> bool:
        """Its service, or part of its traffic, is elsewhere, verified or not."""
        return self.outcome in {RunOutcome.COMPLETED, RunOutcome.INCOMPLETE}

    @property
    def became(self) -> str:
        """For people."""
        if self.outcome is not None:
            return self.outcome.value
        return "not moved" if self.run_id is None else "not known"

    def found(self, *, moved: bool, stayed: bool) -> Moved:
        """The same, where how it ended is not known, as the cluster is found afterwards; neither where nobody
        can say."""
        if moved:
            why = f"{self.reason}; it is where it was to go all the same, not verified"
            return self.model_copy(update={"outcome": RunOutcome.INCOMPLETE, "reason": why})
        if stayed:
            why = f"{self.reason}; it is where it was"
            return self.model_copy(update={"outcome": RunOutcome.ROLLED_BACK, "reason": why})
        return self


def hold_before_next(plan: RegionPlan, wave: int, ended: Sequence[Moved]) -> Refusal | None:
    """Why the wave after `wave` (counted from 0) waits for a person: too many of it did not move."""
    ids = {move.cluster_id for move in plan.waves[wave]}
    failed = [moved for moved in ended if moved.cluster_id in ids and not moved.good]
    if len(failed) < plan.stop_after or wave + 1 >= len(plan.waves):
        return None
    told = "; ".join(
        f"{moved.cluster_id} {moved.outcome or 'not started'}: {moved.reason}" for moved in failed
    )
    return Refusal(
        rule="too_many_failed",
        message=f"{len(failed)} of {len(ids)} clusters of wave {wave + 1} did not move, or were not"
        f" verified: {told}",
        values={"wave": wave + 1, "failed": [moved.cluster_id for moved in failed]},
        remedy="Look at them; then let the evacuation go on (resume), or end it here (abort).",
    )
