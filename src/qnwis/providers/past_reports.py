"""The reports of a cluster's earlier runs, from the audit trail."""

from __future__ import annotations

from qnwis.continuity.report import Report, report_of

from .audit_store import AuditStore

NEWEST_RECORDS = 500
"""Earlier runs are those among these."""


async def reports_of(store: AuditStore, cluster_id: str) -> list[Report]:
    """Newest first. Raises Unreachable, and Refused for a damaged record."""
    records = [r for r in await store.latest(NEWEST_RECORDS) if r.cluster_id == cluster_id]
    return [report_of(record, await store.artefacts(record.audit_id)) for record in records]
