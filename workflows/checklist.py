"""What the Temporal UI shows of a run on its page "User Metadata": Markdown, from where the run stands."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from qnwis.continuity.approvals import PendingApproval
    from qnwis.continuity.executor import Outcome, OutcomeStatus
    from qnwis.continuity.plan import Plan
    from qnwis.continuity.region_plan import RegionPlan
    from qnwis.continuity.run import DRY_RUN_MARK, RunProgress, StepProgress, StepStatus

MARKS = {
    StepStatus.PENDING: "☐",
    StepStatus.RUNNING: "▶",
    StepStatus.DONE: "☑",
    StepStatus.FAILED: "☒",
    StepStatus.SKIPPED: "–",
}


def checklist(progress: RunProgress, below: str) -> str:
    """The steps with what is known of each, then `below`: the text of the step that runs, or how it ended."""
    lines = [f"**{DRY_RUN_MARK}** every effect is previewed, none is made", ""] if progress.dry_run else []
    for step in progress.steps:
        lines.append(_step(step))
        lines += [f"    - {remark}" for remark in step.remarks]
        if step.name == "execution":
            lines += [f"    - {_outcome(outcome)}" for outcome in progress.outcomes]
    lines += [f"- ⏸ **held** {progress.paused}"] if progress.paused is not None else []
    lines += [f"- ⚠ {undelivered}" for undelivered in progress.undelivered]
    # The cluster's own name, so that the commands of the runbook's text are ready to paste.
    return "\n".join([*lines, "", below.replace("<cluster_id>", progress.cluster_id)])


def asked(pending: PendingApproval) -> str:
    """How a vote stands, in a sentence."""
    window = pending.window
    votes = ", ".join(f"{vote.person} {'for' if vote.approve else 'against'}" for vote in window.votes)
    return (
        f"{window.approvals} of {window.workflow.required_approvers} approvals of {window.name}"
        f"{f' ({votes})' if votes else ''} until {window.closes_at:%H:%M:%S} UTC"
    )


def how_to_vote(pending: PendingApproval) -> tuple[str, ...]:
    """What people agree to, who may, and by which command."""
    loss = pending.predicted_loss_bytes
    return (
        f"the plan: {_plan(pending.plan)}; predicted loss {'not known' if loss is None else f'{loss} bytes'}",
        *(f"**{note}**" for note in pending.notes),
        f"its digest: `{pending.window.digest}`",
        f"may vote: {', '.join(pending.voters)}",
        f"to vote: `qnwis-continuity {command_to_approve(pending.plan)}`; with `--print` it prints the input"
        " of the signal `approve`",
    )


def _plan(plan: Plan | RegionPlan) -> str:
    if isinstance(plan, Plan):
        actions = ", ".join(f"`{action.action_id}`" for action in plan.actions)
        return f"{plan.primary_node_id} → {plan.failover_target_id}: {actions}"
    waves = "; ".join(
        ", ".join(f"{move.cluster_id} to {move.plan.failover_target_id} ({move.how})" for move in wave)
        for wave in plan.waves
    )
    stay = ", ".join(one.cluster_id for one in plan.unmovable)
    return f"wave by wave {waves}" + (f"; {stay} cannot be moved" if stay else "")


def command_to_approve(plan: Plan | RegionPlan) -> str:
    """What to type after the program's name."""
    return f"approve {plan.cluster_id}" if isinstance(plan, Plan) else f"region approve {plan.region}"


def _step(step: StepProgress) -> str:
    took = None if step.elapsed_ms is None or step.status is StepStatus.RUNNING else step.elapsed_ms
    times = [f"took {_duration(took)}"] if took is not None else []
    times += [f"expected {_duration(step.expected_ms)}"] if step.expected_ms else []
    in_brackets = f" ({', '.join(times)})" if times else ""
    note = f" — {step.note}" if step.note else ""
    return f"- {MARKS[step.status]} **{step.title}**{in_brackets}{note}"


def _outcome(outcome: Outcome) -> str:
    mark = "☑" if outcome.status is OutcomeStatus.SUCCEEDED else outcome.status.value
    took = f" ({_duration(outcome.duration_ms)})" if outcome.duration_ms is not None else ""
    return f"{mark} `{outcome.action_id}`{took} {outcome.detail}"


def _duration(ms: float) -> str:
    """For people: the unit that suits it."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    minutes, seconds = divmod(ms / 1000, 60)
    return f"{minutes:.0f} min {seconds:.0f} s" if minutes else f"{seconds:.1f} s"
