"""`finish` a run that was terminated in the middle."""

from __future__ import annotations

from typing import Annotated

import typer

from qnwis.continuity.run import RunOutcome
from qnwis.continuity.takeover import UNFINISHED
from qnwis.starting import finish_request, start_failover

from .execute import see_through
from .output import AsJson, Exit
from .settings import Address
from .signing import By, KeyFile, me, signed_start
from .watching import exit_code


def finish(
    cluster_id: Annotated[str, typer.Argument(help="cluster_id of a registered cluster.")],
    run_id: Annotated[str, typer.Option(help="Which run; by default the one that is.")] = UNFINISHED,
    by: By = "",
    key: KeyFile = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Bring a terminated run to its end, as the cluster's guardian would: undo what it had begun, or, past
    the point of no return, complete it. Exit code 0 says that it has such an end."""
    who = me(key, by)
    request = signed_start(finish_request(cluster_id, by=who.name, run_id=run_id), who)
    result = see_through(start_failover, request, address, as_json=as_json)
    undone = result.outcome is RunOutcome.ROLLED_BACK
    raise typer.Exit(Exit.OK if undone else exit_code(result))
