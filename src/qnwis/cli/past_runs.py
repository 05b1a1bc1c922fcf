"""What the audit trail knows of a cluster's earlier runs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from qnwis.continuity.report_text import ms
from qnwis.continuity.run import RunKind
from qnwis.continuity.trend import trends
from qnwis.providers.audit_place import SQLITE, is_elsewhere
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.past_reports import reports_of

from .audit import store_of
from .settings import state_dir_of

FAILOVER = ("failover_execute", RunKind.PRIMARY_FAILURE)
MAINTENANCE = ("maintenance_execute", RunKind.PLANNED_MAINTENANCE)
NAMES = {FAILOVER: "failovers", MAINTENANCE: "planned maintenance"}


def earlier_ones_took(
    state_dir: Path | None, cluster_id: str, which: tuple[str, RunKind] = FAILOVER
) -> str | None:
    """A line beside a plan or a run; None where there is no trail. A damaged one keeps nobody from acting."""
    where = state_dir_of(state_dir)
    if where is None or not (is_elsewhere(os.environ) or os.access(where / SQLITE, os.R_OK)):
        return None
    try:
        reports = asyncio.run(reports_of(store_of(where), cluster_id))
    except (Refused, Unreachable) as error:
        return f"earlier {NAMES[which]}: not known ({error})"
    for one in trends(cluster_id, reports, None):
        if (one.operation, one.runbook) == which and (told := one.forecast) is not None:
            took = f"{ms(told.p50_ms)} (P50), {ms(told.p90_ms)} (P90)"
            return f"earlier {NAMES[which]}: recovered in {took}, of {told.runs} runs"
    return f"earlier {NAMES[which]}: too few to say how long one takes"
