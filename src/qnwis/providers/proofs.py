"""What the audit trail proves of a cluster: its last drill, and the configuration that was verified last."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from qnwis.continuity.plan import Plan
from qnwis.continuity.readiness_facts import Past, Verified

from .audit_store import AuditStore

LOOKED_BACK = 500
"""Records that are searched for a verified run, newest first."""


class Drills(Protocol):
    async def last_drill_at(self, cluster_id: str) -> datetime | None:
        """When the cluster's last verified drill ended; None if there was none. Raises Unreachable."""
        ...


class NoDrills:
    """Drills, as long as no runbook has one."""

    async def last_drill_at(self, cluster_id: str) -> datetime | None:
        return None


async def past_of(cluster_id: str, store: AuditStore, drills: Drills) -> Past:
    """Raises Unreachable or Refused."""
    return Past(
        last_drill_at=await drills.last_drill_at(cluster_id), verified=await _last_verified(cluster_id, store)
    )


async def _last_verified(cluster_id: str, store: AuditStore) -> Verified | None:
    for record in await store.latest(LOOKED_BACK):
        if record.cluster_id != cluster_id or not record.result.success or "plan" not in record.manifest:
            continue
        plan = Plan.model_validate_json((await store.artefacts(record.audit_id))["plan"])
        return Verified(
            run_id=record.run_id,
            at=record.timestamp,
            topology_digest=plan.topology_digest,
            policy_digest=plan.policy_digest,
        )
    return None
