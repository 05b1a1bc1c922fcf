"""Break glass for a region: every cluster that leaves it, as steps for a person, in the order of the waves.

The same region plan as the evacuation's, and of each cluster the same sheet as `break-glass plan` prints.
Of active/active clusters nothing is promoted: theirs is a change of DNS alone, and comes last, when what
clients are sent to serves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .assessment import assess
from .break_glass import BreakGlass, agreed_membership, break_glass
from .evidence import ClusterEvidence
from .leaving import leave
from .membership import MembershipView
from .model import Model
from .plain_text import plain
from .policy import Policy
from .refusal import Refusal
from .region_plan import Move, RegionPlan, Unmovable
from .regions import Candidate, RegionRules, make_region_plan
from .run import FailoverRequest, Maintenance
from .shifting import WeightMove, shift_out
from .topology import Cluster


@dataclass(frozen=True)
class Found:
    """What is known of one cluster that has nodes in the region."""

    cluster: Cluster
    policy: Policy
    evidence: ClusterEvidence
    views: Mapping[str, MembershipView]
    """What the agents that answer say of the membership, by node_id."""


class RegionBreakGlass(Model):
    """What `break-glass region` prints."""

    plan: RegionPlan
    digest: str
    """Of the region plan; the same as an evacuation's on the same evidence."""
    sheets: tuple[BreakGlass, ...]
    """One of each cluster that is moved, in the order in which they are begun."""


def region_break_glass(
    region: str, reason: str, found: Sequence[Found], rules: RegionRules
) -> RegionBreakGlass | Refusal:
    """The sheets of all clusters that can leave, or why none can."""
    candidates: list[Candidate] = []
    shifts: list[WeightMove | Unmovable] = []
    sheets: dict[str, BreakGlass] = {}
    for one in found:
        if region not in one.cluster.regions:
            continue
        cluster_id = one.cluster.cluster_id
        if one.cluster.is_active_active:
            shift = shift_out(one.cluster, {s.region: s.weight for s in one.cluster.shares}, region)
            if isinstance(shift, Refusal):
                shifts.append(Unmovable(cluster_id=cluster_id, refusal=shift))
            elif shift is not None:
                shifts.append(shift)
            continue
        candidate = leave(one.cluster, one.policy, one.evidence, region, reason=reason)
        if candidate is None:
            continue
        if candidate.plan is not None:
            sheet = _sheet(one, candidate, region)
            if isinstance(sheet, Refusal):
                candidate = candidate.model_copy(update={"plan": None, "refusal": sheet})
            else:
                sheets[cluster_id] = sheet
        candidates.append(candidate)
    plan = make_region_plan(region, reason, candidates, rules, shifts=shifts)
    if isinstance(plan, Refusal):
        return plan
    ordered = tuple(sheets[move.cluster_id] for move in plan.moves)
    return RegionBreakGlass(plan=plan, digest=plan.digest, sheets=ordered)


def _sheet(one: Found, candidate: Candidate, region: str) -> BreakGlass | Refusal:
    """The cluster's own steps; the plan in them is the candidate's."""
    cluster, plan = one.cluster, candidate.plan
    assert plan is not None, "the caller has checked it"
    if cluster.by_patroni:
        return Refusal(
            rule="patroni_by_hand",
            message=f"Patroni manages {cluster.cluster_id}; by hand it is driven by patronictl",
            values={"target": plan.failover_target_id},
            remedy="patronictl in its region; between regions see docs/howto/patroni.md",
        )
    membership = agreed_membership(cluster, one.views)
    if isinstance(membership, Refusal):
        return membership
    serves = candidate.how is Move.SWITCHOVER
    request = FailoverRequest(
        cluster_id=cluster.cluster_id,
        initiated_by="break-glass",
        reason=plan.trigger_reason,
        plan=plan,
        leaving=region,
        maintenance=Maintenance(target_node_id=plan.failover_target_id) if serves else None,
    )
    made = assess(request, cluster, one.policy, one.evidence)
    return made.refusal or break_glass(made, cluster, one.policy, one.evidence, membership)


def index(paper: RegionBreakGlass, files: Mapping[str, str], *, unread: Sequence[str] = ()) -> str:
    """The first page, in Markdown. `files`: of each cluster the name of its sheet, without `.md`."""
    plan = paper.plan
    sheets = {sheet.cluster.cluster_id: sheet for sheet in paper.sheets}
    lines = [
        f"# Break glass: leave {plan.region}",
        "",
        f"{len(plan.moves)} clusters in {len(plan.waves)} waves, then {len(plan.weights)} by weights alone."
        f" Region plan digest `{paper.digest}`.",
        f"Reason: {plain(plan.reason)}.",
        "",
        "Stand in this directory, with bash. Take the sheets in this order; of one wave several people may"
        " take one each, and each sheet is one person's. Begin a wave when every sheet of the one before is"
        f" at its end. Where {plan.stop_after} clusters of a wave did not get there, begin no further one:"
        " decide first, with whoever is responsible, whether to go on. Each sheet moves its cluster's DNS"
        " record only after its promotion. A control plane that comes back has to be paused first, for each"
        " cluster (`qnwis-continuity guardian pause`).",
    ]
    for number, wave in enumerate(plan.waves, start=1):
        lines += ["", f"## Wave {number}", "", "| sheet | cluster | how | from → to | predicted loss |"]
        lines += ["|---|---|---|---|---|"]
        for move in wave:
            loss = move.predicted_loss_bytes
            lines.append(
                f"| `{files[move.cluster_id]}.md` | {move.cluster_id} | {move.how.value}"
                f" | {move.plan.primary_node_id} → {move.plan.failover_target_id}"
                f" | {'not known' if loss is None else f'{loss} bytes'} |"
            )
    if plan.weights:
        lines += ["", "## Last: weights, by DNS alone", ""]
        lines += [
            "Nothing is promoted. These are the weights that the topology names: look first at what DNS"
            " holds, and take the region's share from that. Weighted or geolocation records: change them"
            " where the zone is held. One record with all addresses: take the region's address out.",
            "",
            *(f"- {shift.cluster_id}: {shift.told()}" for shift in plan.weights),
        ]
    if plan.unmovable or unread:
        lines += ["", "## Not by these sheets", ""]
        lines += [f"- {one.cluster_id}: {plain(str(one.refusal))}" for one in plan.unmovable]
        lines += [f"- {plain(line)}" for line in unread]
    lines += ["", "## Afterwards", "", "Record each sheet when the world can be written down again:", ""]
    lines += ["```console"]
    lines += [
        f"qnwis-continuity break-glass record --plan {files[cluster_id]}.json --reason '…'"
        f" --answers {sheet.run_id}"
        for cluster_id, sheet in sheets.items()
    ]
    lines += ["```", "", f"Once {plan.region} is well, each sheet's last block lets the old primary follow"]
    lines[-1] += " again (what only it has is exported there first); then all clusters go home at once:"
    lines += ["", "```console", f"qnwis-continuity region failback {plan.region} --reason '…'", "```", ""]
    return "\n".join(lines)
