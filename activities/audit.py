"""Writing the run's record."""

from __future__ import annotations

from temporalio import activity

from qnwis.continuity.audit import draft_of
from qnwis.continuity.model import Model, canonical_json
from qnwis.continuity.region_run import EvacuateRequest, RegionResult, draft_of_region
from qnwis.continuity.review import Review, draft_of_review
from qnwis.continuity.run import RunArtefacts
from qnwis.providers.audit_store import AuditStore


class AuditId(Model):
    audit_id: str


class RegionArtefacts(Model):
    """What the evacuation of a region leaves behind."""

    request: EvacuateRequest
    result: RegionResult


class Audit:
    def __init__(self, store: AuditStore) -> None:
        self._store = store

    @activity.defn
    async def record(self, artefacts: RunArtefacts) -> AuditId:
        """Append the run's record to the chain; a repeated call finds the first one."""
        record = await self._store.append(
            draft_of(artefacts),
            {name: canonical_json(value) for name, value in artefacts.parts().items()},
        )
        return AuditId(audit_id=record.audit_id)

    @activity.defn
    async def record_review(self, review: Review) -> AuditId:
        """Append the record of a closed review; a repeated call finds the first one."""
        record = await self._store.append(draft_of_review(review), {"review": canonical_json(review)})
        return AuditId(audit_id=record.audit_id)

    @activity.defn
    async def record_region(self, artefacts: RegionArtefacts) -> AuditId:
        """Append the record of an evacuation; a repeated call finds the first one."""
        result = artefacts.result
        parts = {"request": artefacts.request, "plan": result.plan, "result": result}
        record = await self._store.append(
            draft_of_region(artefacts.request, result),
            {name: canonical_json(part) for name, part in parts.items() if part is not None},
        )
        return AuditId(audit_id=record.audit_id)
