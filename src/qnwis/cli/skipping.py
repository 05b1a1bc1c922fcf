"""`skip`: leave out a step of a run that goes on."""

from __future__ import annotations

from typing import Annotated

import typer

from qnwis.continuity.access import Deed
from qnwis.continuity.run import SkipRequest
from workflows.names import failover_id

from .output import AsJson
from .settings import Address
from .signing import By, KeyFile, Print, me
from .steering import ClusterId, say


def skip(
    cluster_id: ClusterId,
    step: Annotated[str, typer.Argument(help="The step's name, as the runbook has it.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit record.")],
    by: By = "",
    key: KeyFile = None,
    only_print: Print = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Have a step of the cluster's run left out that has not begun; only where the runbook allows it."""
    who = me(key, by)
    request = SkipRequest(by=who.name, reason=reason, step=step)
    say(Deed.SKIP, cluster_id, failover_id(cluster_id), request, who, only_print, address, as_json)
