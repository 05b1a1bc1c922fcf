"""Plans that wait for votes, for people."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.table import Table

from qnwis.continuity.approvals import PendingApproval
from qnwis.continuity.plan import Plan
from qnwis.continuity.region_plan import Direction, RegionPlan

from .output import out


def show_pending(pending: PendingApproval) -> None:
    """What people are asked to agree to."""
    window, plan, loss = pending.window, pending.plan, pending.predicted_loss_bytes
    left_s = max(0.0, (window.closes_at - datetime.now(UTC)).total_seconds())
    votes = ", ".join(f"{v.person} {'for' if v.approve else 'against'}" for v in window.votes) or "none yet"
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in (
        ("plan", _name(plan)),
        ("digest", window.digest),
        ("why", plan.trigger_reason if isinstance(plan, Plan) else plan.reason),
        ("started by", window.initiator),
        ("predicted loss", "not known" if loss is None else f"{loss} bytes"),
        ("approvals", f"{window.approvals} of {window.workflow.required_approvers} ({window.name}): {votes}"),
        ("time left", f"{left_s:.0f} s, until {window.closes_at:%H:%M:%S} UTC"),
        ("may vote", ", ".join(pending.voters)),
        ("run", pending.run_id),
    ):
        table.add_row(name, value)
    out.print(table)
    for note in pending.notes:
        out.print(f"  ! {note}", style="bold yellow", markup=False)
    if isinstance(plan, Plan):
        _show_plan(plan, pending)
    else:
        show_region_plan(plan)


def _name(plan: Plan | RegionPlan) -> str:
    if isinstance(plan, Plan):
        return f"{plan.plan_id}: {plan.primary_node_id} → {plan.failover_target_id}"
    went = "leave" if plan.direction is Direction.OUT else "come back to"
    shifted = f"; the weights of {len(plan.weights)} active/active ones shift" if plan.weights else ""
    return f"{len(plan.moves)} clusters {went} {plan.region} in {len(plan.waves)} waves{shifted}"


def _show_plan(plan: Plan, pending: PendingApproval) -> None:
    for action in plan.actions:
        out.print(f"  {action.action_id} (about {action.estimate_ms} ms)", markup=False)
    for candidate in pending.candidates:
        lag = "" if candidate.lag_bytes is None else f", {candidate.lag_bytes} bytes behind"
        chosen = "target" if candidate.node_id == plan.failover_target_id else "standby"
        out.print(f"  {chosen} {candidate.node_id}: {candidate.reason}{lag}", markup=False)


def show_region_plan(plan: RegionPlan) -> None:
    """Wave by wave, and who cannot leave."""
    for shift in plan.weights:
        out.print(f"  {shift.cluster_id} weights ({shift.steering}): {shift.told()}", markup=False)
    table = Table("wave", "cluster", "from", "to", "how", "predicted loss", box=None, pad_edge=False)
    for number, wave in enumerate(plan.waves, start=1):
        for move in wave:
            loss = "not known" if move.predicted_loss_bytes is None else f"{move.predicted_loss_bytes} bytes"
            made = move.plan
            table.add_row(
                str(number),
                move.cluster_id,
                made.primary_node_id,
                made.failover_target_id,
                move.how.value,
                loss,
            )
    out.print(table)
    for one in plan.unmovable:
        out.print(f"  {one.cluster_id} cannot be moved: {one.refusal}", markup=False)
