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

from .output import Exit, clear_errors, fail, out, print_json
from .showing import show_pending
from .speaking import Speaker, spoken
from .steering import Reason, Run, run_of

ClusterId = Annotated[str, typer.Argument(help="cluster_id whose run waits.")]
Yes = Annotated[bool, typer.Option("--yes", help="Vote without a further question.")]


@spoken
def approve(cluster_id: ClusterId, speaker: Speaker, reason: Reason = "", yes: Yes = False) -> None:
    """Agree to the plan that the cluster's run waits with."""
    send_vote(Deed.APPROVE, run_of(cluster_id), reason, speaker, yes=yes)


@spoken
def reject(cluster_id: ClusterId, reason: Reason, speaker: Speaker, yes: Yes = False) -> None:
    """Say no to the plan that the cluster's run waits with: the run ends, and nothing is changed."""
    send_vote(Deed.REJECT, run_of(cluster_id), reason, speaker, yes=yes)


def send_vote(deed: Deed, run: Run, reason: str, speaker: Speaker, *, yes: bool) -> None:
    """Show what waits there, and vote on it."""

    async def look() -> PendingApproval:
        return await pending_approval(await connect(speaker.address), run.workflow_id)

    async def send(request: VoteRequest) -> Vote:
        client = await connect(speaker.address)
        return await vote(client, run.workflow_id, request, approve=deed is Deed.APPROVE)

    with clear_errors(as_json=speaker.as_json):
        try:
            pending = asyncio.run(look())
            if not (speaker.as_json or speaker.only_print):
                show_pending(pending)
            request = _signed(deed, run, pending, reason, speaker)
            if speaker.only_print:
                print_json(request)
                return
            if not (yes or speaker.as_json):
                typer.confirm(f"{deed} as {speaker.name}?", abort=True)
            counted = asyncio.run(send(request))
        except RPCError as error:
            fail(Exit.UNREACHABLE, f"the run of {run.name} does not answer: {error.message}")
    if speaker.as_json:
        print_json(counted)
    else:
        out.print(f"{run.name}: {counted.person}'s vote is counted", markup=False)


def _signed(deed: Deed, run: Run, pending: PendingApproval, reason: str, speaker: Speaker) -> VoteRequest:
    token = speaker.me.token(
        deed, cluster_id=run.name, run_id=pending.run_id, digest=pending.window.digest, reason=reason
    )
    if token is None:
        fail(
            Exit.USAGE,
            "a vote is signed: make a key with `qnwis-continuity people key`, or name yours with --key",
        )
    return VoteRequest(token=token)
