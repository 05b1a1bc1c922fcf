"""`abort` a run that goes on, and `finish` one that was terminated in the middle."""

from __future__ import annotations

import asyncio
import getpass
import socket
from typing import Annotated

import typer
from temporalio.service import RPCError

from qnwis.continuity.run import AbortRequest, RunOutcome, RunResult
from qnwis.continuity.takeover import UNFINISHED
from qnwis.starting import abort_failover, finish_failover
from qnwis.temporal import connect

from .execute import show_result
from .output import AsJson, Exit, clear_errors, fail, out, print_json
from .settings import Address
from .watching import RunFailed, exit_code, follow, follow_on_terminal

ClusterId = Annotated[str, typer.Argument(help="cluster_id of a registered cluster.")]
By = Annotated[str, typer.Option(help="Who; by default user@host.", show_default=False)]


def abort(
    cluster_id: ClusterId,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit record.")],
    by: By = "",
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Stop the cluster's run and undo what it has begun; refused once the promotion has begun."""

    async def ask() -> str:
        request = AbortRequest(by=by or _me(), reason=reason)
        return await abort_failover(await connect(address), cluster_id, request)

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
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Bring a terminated run to its end, as the cluster's guardian would: undo what it had begun, or, past
    the point of no return, complete it. Exit code 0 says that it has such an end."""

    async def run() -> RunResult:
        handle = await finish_failover(await connect(address), cluster_id, by=by or _me(), run_id=run_id)
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


def _me() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"
