"""The review of access, made once. Started by a schedule each quarter, or by a person who wants to know."""

from __future__ import annotations

import contextlib

from temporalio import workflow
from temporalio.exceptions import ActivityError

from . import options
from .details import show_details
from .lock import refuse_a_lock
from .names import ACCESS_REVIEW_ID, INITIATOR, KIND, OUTCOME
from .versioning import PINNED

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.access_review import AccessReviews, ReviewAccess, ReviewedAccess
    from activities.notification import Notifications
    from qnwis.continuity.access_review import AccessReview, AccessReviewRequest, period_of
    from qnwis.continuity.notifications import Notification, RunEvent
    from qnwis.labels import label_of


@workflow.defn(failure_exception_types=[ValidationError], versioning_behavior=PINNED)
class AccessReviewRun:
    """Review who can do what, who did what, and which rights nobody used."""

    @workflow.init
    def __init__(self, request: AccessReviewRequest | None = None) -> None:
        self.request = request or AccessReviewRequest()

    @workflow.run
    async def run(self, request: AccessReviewRequest | None = None) -> ReviewedAccess:
        refuse_a_lock()
        workflow.upsert_search_attributes(
            [
                KIND.value_set("access_review"),
                INITIATOR.value_set(label_of(self.request.initiated_by)),
                OUTCOME.value_set("running"),
            ]
        )
        reviewed = await workflow.execute_activity_method(
            AccessReviews.review_access,
            ReviewAccess(request=self.request, period=period_of(self.request, workflow.now())),
            **options.look("people, roles, service tokens, audit trail"),
        )
        lines = told(reviewed.review)
        show_details("\n".join(lines))
        await self._tell(reviewed, lines)
        workflow.upsert_search_attributes([OUTCOME.value_set("done")])
        return reviewed

    async def _tell(self, reviewed: ReviewedAccess, lines: list[str]) -> None:
        """A channel that fails changes nothing: the review is on record."""
        notification = Notification(
            cluster_id="access",
            run_id=workflow.info().workflow_id,
            event=RunEvent.ACCESS_REVIEW,
            about=reviewed.audit_id,
            title="the access review is done",
            text="\n".join([*lines, f"qnwis-continuity audit --audit-id {reviewed.audit_id}"]),
        )
        with contextlib.suppress(ActivityError):
            await workflow.execute_activity_method(
                Notifications.notify, notification, **options.notify(ACCESS_REVIEW_ID)
            )


def told(review: AccessReview) -> list[str]:
    """The review as people read it."""
    return [
        f"**{review.headline}**",
        "",
        *(f"- {one.code.value}: {one.message} → {one.remedy}" for one in review.findings),
    ]
