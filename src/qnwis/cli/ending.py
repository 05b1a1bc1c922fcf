"""`abort` a run that goes on, and `finish` one that was terminated in the middle."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from temporalio.service import RPCError

from qnwis.continuity.access import Deed
from qnwis.continuity.run import AbortRequest, RunOutcome, RunResult
from qnwis.continuity.takeover import UNFINISHED
from qnwis.starting import abort_failover, finish_request, running, start_failover
from qnwis.temporal import connect

from .execute import show_result, signed_start
from .output import AsJson, Exit, clear_errors, fail, out, print_json
from .settings import Address
from .signing import By, KeyFile, me
from .watching import RunFailed, exit_code, follow, follow_on_terminal

ClusterId = Annotated[str, typer.Argument(help="cluster_id of a registered cluster.")]


def abort(
    cluster_id: ClusterId,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit record.")],
    by: By = "",
    key: KeyFile = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Stop the cluster's run and undo what it has begun; refused once the promotion has begun."""

    async def ask() -> str:
        client, who = await connect(address), me(key, by)
        request = AbortRequest(by=who.name, reason=reason)
        token = who.token(
            Deed.ABORT,
            cluster_id=cluster_id,
            run_id=await running(client, cluster_id),
            digest=request.digest,
            reason=reason,
        )
        return await abort_failover(client, cluster_id, request.model_copy(update={"token": token}))

    with clear_errors(as_json=as_json):
        try:
            answer = asyncio.run(ask())
        except RPCError as error:
            fail(Exit.UNREACHABLE, f"the run of {cluster_id} does not answer: {error.message}")
    if as_json:
        print_json({"cluster_id": cluster_id, "answer": answer})
    else:
        out.print(f"{cluster_id}: {answer}", markup=False)


def finish(
    cluster_id: ClusterId,
    run_id: Annotated[str, typer.Option(help="Which run; by default the one that is.")] = UNFINISHED,
    by: By = "",
    key: KeyFile = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Bring a terminated run to its end, as the cluster's guardian would: undo what it had begun, or, past
    the point of no return, complete it. Exit code 0 says that it has such an end."""

    async def run() -> RunResult:
        who = me(key, by)
        request = signed_start(finish_request(cluster_id, by=who.name, run_id=run_id), who)
        handle = await start_failover(await connect(address), request)
        return await (follow(handle) if as_json else follow_on_terminal(handle))

    with clear_errors(as_json=as_json):
        try:
            result = asyncio.run(run())
        except RunFailed as failed:
            fail(Exit.NOT_DONE, f"The run failed: {failed}")
    if as_json:
        print_json(result)
    else:
        show_result(result)
    undone = result.outcome is RunOutcome.ROLLED_BACK
    raise typer.Exit(Exit.OK if undone else exit_code(result))
