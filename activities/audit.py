"""Writing the run's record."""

from __future__ import annotations

from temporalio import activity

from qnwis.continuity.audit import draft_of
from qnwis.continuity.model import Model, canonical_json
from qnwis.continuity.review import Review, draft_of_review
from qnwis.continuity.run import RunArtefacts
from qnwis.providers.audit_store import AuditStore


class AuditId(Model):
    audit_id: str


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
