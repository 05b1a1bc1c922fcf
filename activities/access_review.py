"""Reviewing who can do what: the files that say so, beside what the audit trail has."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from temporalio import activity
from temporalio.exceptions import ApplicationError

from qnwis.config.access import AccessFiles
from qnwis.config.problem import ConfigError
from qnwis.continuity.access_review import (
    AccessReview,
    AccessReviewRequest,
    Period,
    draft_of_access_review,
    review,
)
from qnwis.continuity.audit import AuditRecord
from qnwis.continuity.model import Model, canonical_json
from qnwis.continuity.refusal import Refusal
from qnwis.providers.audit_store import AuditStore
from qnwis.providers.service_tokens import TokenFile


class ReviewedAccess(Model):
    review: AccessReview
    audit_id: str


class ReviewAccess(Model):
    request: AccessReviewRequest
    period: Period


class AccessReviews:
    def __init__(self, files: AccessFiles, tokens: TokenFile, audit: AuditStore) -> None:
        self._files = files
        self._tokens = tokens
        self._audit = audit

    @activity.defn
    async def review_access(self, asked: ReviewAccess) -> ReviewedAccess:
        """Read everything, judge, and have the result on record; repeated, the first record stands."""
        try:
            access = await asyncio.to_thread(self._files.load)
            tokens = await asyncio.to_thread(self._tokens.load)
        except ConfigError as error:
            raise ApplicationError(str(error), type="access_not_loaded") from error
        read = await self._audit.between(asked.period.since, asked.period.until)
        records = [one for _, one in read if isinstance(one, AuditRecord)]
        unread = [(place, one) for place, one in read if isinstance(one, Refusal)]
        found = review(access, tokens, records, asked.period, unread)
        draft = draft_of_access_review(
            found, asked.request, run_id=activity.info().workflow_run_id or "", at=datetime.now(UTC)
        )
        record = await self._audit.append(draft, {"review": canonical_json(found)})
        return ReviewedAccess(review=found, audit_id=record.audit_id)
