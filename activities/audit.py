"""Writing the run's record, and what proves it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from temporalio import activity

from qnwis.continuity.audit import draft_of
from qnwis.continuity.guardian_record import DECISION, GuardianDecisions, draft_of_guardian
from qnwis.continuity.model import Model, canonical_json
from qnwis.continuity.region_run import EvacuateRequest, RegionResult, draft_of_region
from qnwis.continuity.review import Review, draft_of_review
from qnwis.continuity.run import RunArtefacts
from qnwis.providers.audit_store import AuditStore
from qnwis.providers.bundles import Bundles
from qnwis.providers.errors import Refused, Unreachable, Unrecordable
from qnwis.providers.key_store import KeyStoreError
from qnwis.providers.witness import Witness

from .history_text import history_text

PATIENCE_S = 3.0
"""For the witnesses, and for the bundle: both together well within an attempt of this activity."""


class AuditId(Model):
    audit_id: str


class RegionArtefacts(Model):
    """What the evacuation of a region leaves behind."""

    request: EvacuateRequest
    result: RegionResult


class Audit:
    def __init__(
        self,
        store: AuditStore,
        *,
        bundles: Bundles | None = None,
        witnesses: Sequence[Witness] = (),
    ) -> None:
        """`bundles`: makes each record's; None where nobody wants one."""
        self._store = store
        self._bundles = bundles
        self._witnesses = witnesses
        self._on_record: set[str] = set()
        """Decisions of batches that are not done, by their id."""

    @activity.defn
    async def record(self, artefacts: RunArtefacts) -> AuditId:
        """Append the run's record to the chain; a repeated call finds the first one."""
        record = await self._store.append(
            draft_of(artefacts),
            {name: canonical_json(value) for name, value in artefacts.parts().items()},
        )
        return await self._proved(record.audit_id)

    @activity.defn
    async def record_review(self, review: Review) -> AuditId:
        """Append the record of a closed review; a repeated call finds the first one."""
        record = await self._store.append(draft_of_review(review), {"review": canonical_json(review)})
        return await self._proved(record.audit_id)

    @activity.defn
    async def record_region(self, artefacts: RegionArtefacts) -> AuditId:
        """Append the record of an evacuation; a repeated call finds the first one."""
        result = artefacts.result
        parts = {"request": artefacts.request, "plan": result.plan, "result": result}
        record = await self._store.append(
            draft_of_region(artefacts.request, result),
            {name: canonical_json(part) for name, part in parts.items() if part is not None},
        )
        return await self._proved(record.audit_id)

    @activity.defn
    async def record_guardian(self, made: GuardianDecisions) -> None:
        """Append what a guardian decided; repeated, it finds the first records. They have no bundles of their
        own (`audit bundle` makes one): the guardian's history goes on for as long as its cluster.

        A store may need longer for a batch than an attempt has, even to find what it has of it already: what
        an earlier attempt here saw on record is not asked for again, so that each comes further."""
        for decision in made.decisions:
            if decision.decision_id not in self._on_record:
                told = {DECISION: canonical_json(decision)}
                try:
                    await self._store.append(draft_of_guardian(decision), told)
                except Unrecordable as error:  # it must not keep the others from their records
                    activity.logger.error("NOT ON RECORD: %s", error)
                self._on_record.add(decision.decision_id)
        self._on_record.difference_update(one.decision_id for one in made.decisions)

    async def _proved(self, audit_id: str) -> AuditId:
        """Have witnesses keep the log's head, and seal the bundle. The record stands already: what fails here
        can be done later (`audit head`, `audit bundle`), and keeps no run from its end."""
        for what in (self._keep_head, partial(self._seal, audit_id)):
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await what()
            except (KeyStoreError, Refused, Unreachable, OSError, TimeoutError) as error:
                activity.logger.warning("record %s stands, but: %s", audit_id, error or "it took too long")
        return AuditId(audit_id=audit_id)

    async def _keep_head(self) -> None:
        if self._witnesses and (head := await self._store.head()) is not None:
            await asyncio.gather(*(witness.keep(head) for witness in self._witnesses))

    async def _seal(self, audit_id: str) -> None:
        if self._bundles is not None:
            await self._bundles.write(audit_id, await history_text())
