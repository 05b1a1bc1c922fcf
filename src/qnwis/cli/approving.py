"""`approve` and `reject`: look at the plan that waits, then sign a vote on exactly that."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table
from temporalio.service import RPCError

from qnwis.continuity.access import Deed
from qnwis.continuity.approvals import PendingApproval, Vote, VoteRequest
from qnwis.starting import pending_approval, vote
from qnwis.temporal import connect

from .output import AsJson, Exit, clear_errors, fail, out, print_json
from .settings import Address
from .signing import By, KeyFile, Print, me

ClusterId = Annotated[str, typer.Argument(help="cluster_id whose run waits.")]
NO_KEY = "a vote is signed: make a key with `qnwis-continuity people key`, or name yours with --key"
Yes = Annotated[bool, typer.Option("--yes", help="Vote without a further question.")]


def approve(
    cluster_id: ClusterId,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit record.")] = "",
    by: By = "",
    key: KeyFile = None,
    only_print: Print = False,
    yes: Yes = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Agree to the plan that the cluster's run waits with."""
    _vote(Deed.APPROVE, cluster_id, reason, by, key, only_print, yes, address, as_json)


def reject(
    cluster_id: ClusterId,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit record.")],
    by: By = "",
    key: KeyFile = None,
    only_print: Print = False,
    yes: Yes = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Say no to the plan that the cluster's run waits with: the run ends, and nothing is changed."""
    _vote(Deed.REJECT, cluster_id, reason, by, key, only_print, yes, address, as_json)


def _vote(
    deed: Deed,
    cluster_id: str,
    reason: str,
    by: str,
    key: KeyFile,
    only_print: bool,
    yes: bool,
    address: str | None,
    as_json: bool,
) -> None:
    who = me(key, by)

    async def look() -> PendingApproval:
        return await pending_approval(await connect(address), cluster_id)

    async def send(request: VoteRequest) -> Vote:
        return await vote(await connect(address), cluster_id, request, approve=deed is Deed.APPROVE)

    with clear_errors(as_json=as_json):
        try:
            pending = asyncio.run(look())
            if not (as_json or only_print):
                show_pending(pending)
            token = who.token(
                deed,
                cluster_id=cluster_id,
                run_id=pending.run_id,
                digest=pending.window.digest,
                reason=reason,
            )
            if token is None:
                fail(
                    Exit.USAGE,
                    "a vote is signed: make a key with `qnwis-continuity people key`, or give --key",
                )
            request = VoteRequest(token=token)
            if only_print:
                print_json(request)
                return
            if not (yes or as_json):
                typer.confirm(f"{deed} as {who.name}?", abort=True)
            counted = asyncio.run(send(request))
        except RPCError as error:
            fail(Exit.UNREACHABLE, f"the run of {cluster_id} does not answer: {error.message}")
    if as_json:
        print_json(counted)
    else:
        out.print(f"{cluster_id}: {counted.person}'s vote is counted", markup=False)


def show_pending(pending: PendingApproval) -> None:
    """What people are asked to agree to."""
    window, plan = pending.window, pending.plan
    left_s = max(0.0, (window.closes_at - datetime.now(UTC)).total_seconds())
    loss = pending.predicted_loss_bytes
    votes = ", ".join(f"{v.person} {'for' if v.approve else 'against'}" for v in window.votes) or "none yet"
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in (
        ("plan", f"{plan.plan_id}: {plan.primary_node_id} → {plan.failover_target_id}"),
        ("digest", window.digest),
        ("why", plan.trigger_reason),
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
    for action in plan.actions:
        out.print(f"  {action.action_id} (about {action.estimate_ms} ms)", markup=False)
    for candidate in pending.candidates:
        lag = "" if candidate.lag_bytes is None else f", {candidate.lag_bytes} bytes behind"
        chosen = "target" if candidate.node_id == plan.failover_target_id else "standby"
        out.print(f"  {chosen} {candidate.node_id}: {candidate.reason}{lag}", markup=False)
