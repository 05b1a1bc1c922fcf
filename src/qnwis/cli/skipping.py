"""`skip` a step of a run that goes on, where its runbook allows that."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from temporalio.client import WorkflowUpdateFailedError
from temporalio.service import RPCError

from qnwis.continuity.access import Deed
from qnwis.continuity.run import SkipRequest
from qnwis.starting import raise_refusal, running
from qnwis.temporal import connect
from workflows.names import failover_id

from .output import AsJson, Exit, clear_errors, fail, out, print_json
from .settings import Address
from .signing import By, KeyFile, Print, me


def skip(
    cluster_id: Annotated[str, typer.Argument(help="cluster_id whose run is meant.")],
    step: Annotated[str, typer.Argument(help="The step's name, as the runbook has it.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit record.")],
    by: By = "",
    key: KeyFile = None,
    only_print: Print = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Have a step of the cluster's run left out that has not begun; only where the runbook allows it."""

    async def ask() -> str | None:
        client, who = await connect(address), me(key, by)
        run_id = await running(client, cluster_id)
        request = SkipRequest(by=who.name, reason=reason, step=step)
        token = who.token(
            Deed.SKIP, cluster_id=cluster_id, run_id=run_id, digest=request.digest, reason=reason
        )
        request = request.model_copy(update={"token": token})
        if only_print:
            print_json(request)
            return None
        handle = client.get_workflow_handle(failover_id(cluster_id), run_id=run_id)
        try:
            return str(await handle.execute_update("skip", request, result_type=str))
        except WorkflowUpdateFailedError as error:
            raise_refusal(error)

    with clear_errors(as_json=as_json):
        try:
            answer = asyncio.run(ask())
        except RPCError as error:
            fail(Exit.UNREACHABLE, f"the run of {cluster_id} does not answer: {error.message}")
    if answer is None:
        return
    if as_json:
        print_json({"cluster_id": cluster_id, "answer": answer})
    else:
        out.print(f"{cluster_id}: {answer}", markup=False)
