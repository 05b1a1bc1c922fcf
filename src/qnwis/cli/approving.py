"""`approve` and `reject`: look at the plan that waits, then sign a vote on exactly that."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from temporalio.service import RPCError

from qnwis.continuity.access import Deed
from qnwis.continuity.approvals import PendingApproval, Vote, VoteRequest
from qnwis.starting import pending_approval, vote
from qnwis.temporal import connect
from workflows.names import failover_id

from .output import AsJson, Exit, clear_errors, fail, out, print_json
from .settings import Address
from .showing import show_pending
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
    send_vote(
        Deed.APPROVE, cluster_id, failover_id(cluster_id), reason, by, key, only_print, yes, address, as_json
    )


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
    send_vote(
        Deed.REJECT, cluster_id, failover_id(cluster_id), reason, by, key, only_print, yes, address, as_json
    )


def send_vote(
    deed: Deed,
    name: str,
    workflow_id: str,
    reason: str,
    by: str,
    key: KeyFile,
    only_print: bool,
    yes: bool,
    address: str | None,
    as_json: bool,
) -> None:
    """Show what waits in this workflow, and vote on it. `name`: of the cluster or the region."""
    who = me(key, by)

    async def look() -> PendingApproval:
        return await pending_approval(await connect(address), workflow_id)

    async def send(request: VoteRequest) -> Vote:
        return await vote(await connect(address), workflow_id, request, approve=deed is Deed.APPROVE)

    with clear_errors(as_json=as_json):
        try:
            pending = asyncio.run(look())
            if not (as_json or only_print):
                show_pending(pending)
            token = who.token(
                deed,
                cluster_id=name,
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
            fail(Exit.UNREACHABLE, f"the run of {name} does not answer: {error.message}")
    if as_json:
        print_json(counted)
    else:
        out.print(f"{name}: {counted.person}'s vote is counted", markup=False)
