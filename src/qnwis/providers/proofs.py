"""What the audit trail proves of a cluster: its last drill, and the configuration that was verified last."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from qnwis.continuity.audit import DRILL, AuditRecord
from qnwis.continuity.plan import Plan
from qnwis.continuity.readiness_facts import Past, Verified

from .audit_store import AuditStore

LOOKED_BACK = 500
"""Records that are searched for a verified run, newest first."""


async def past_of(cluster_id: str, store: AuditStore) -> Past:
    """Raises Unreachable or Refused."""
    return Past(
        last_drill_at=last_drill_at(await store.latest(LOOKED_BACK), cluster_id),
        verified=await _last_verified(cluster_id, store),
    )


def last_drill_at(newest_first: Sequence[AuditRecord], cluster_id: str) -> datetime | None:
    """When the cluster's last drill was back where it began; a drill that did not come back is none."""
    verified = [
        record
        for record in newest_first
        if record.cluster_id == cluster_id
        and record.operation == f"{DRILL}_execute"
        and record.result.success
    ]
    for back, there in pairwise(verified):
        if (back.source_node, back.target_node) == (there.target_node, there.source_node):
            return back.timestamp
    return None


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
