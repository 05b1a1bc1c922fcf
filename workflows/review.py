"""The review of an emergency override: remind people, look for the lost nodes, and wait until it is closed.

It outlives the run that opened it; it ends when a person has closed it, and its record is written.
"""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from . import options
from .approval import prove, refused
from .details import show_details
from .names import CLUSTER, INITIATOR, KIND, OUTCOME
from .unrecorded import told_if_unrecordable
from .versioning import FOLLOWS

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.audit import Audit
    from activities.notification import Notifications
    from activities.reviews import LookRequest, Reviews
    from qnwis.continuity.access import Deed, Person
    from qnwis.continuity.notifications import Notification, RunEvent
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.review import Closed, CloseRequest, Opened, Review, close_refusal, stated
    from qnwis.continuity.tokens import Expected
    from qnwis.labels import label_of

REVIEW = "override_review"
"""The kind by which reviews are found."""
LOOK_EVERY = timedelta(minutes=5)
"""How often lost nodes of which nothing is known are looked for."""
CLOSE = "Close this review. Input: what `qnwis-continuity review close CLUSTER --reason … --print` prints"


@workflow.defn(failure_exception_types=[ValidationError], versioning_behavior=FOLLOWS)
class OverrideReview:
    """What an emergency override leaves to people."""

    @workflow.init
    def __init__(self, opened: Opened, review: Review | None = None) -> None:
        # `review` is where an execution before this one stood.
        self.review = review or Review(opened=opened, suspension=opened.suspension)
        self._remind_at = workflow.now()

    @workflow.run
    async def run(self, opened: Opened, review: Review | None = None) -> Review:
        workflow.upsert_search_attributes(
            [
                CLUSTER.value_set(opened.cluster_id),
                KIND.value_set(REVIEW),
                INITIATOR.value_set(label_of(opened.initiated_by)),
                OUTCOME.value_set("open"),
            ]
        )
        while self.review.closed is None:
            await self._look()
            if workflow.now() >= self._remind_at:
                await self._remind()
            self._show()
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    self._is_closed, timeout=self._pause(), timeout_summary="until the next look"
                )
            if self.review.closed is None and workflow.info().is_continue_as_new_suggested():
                await workflow.wait_condition(workflow.all_handlers_finished)
                workflow.continue_as_new(args=[opened, self.review])
        unrecorded: list[str] = []
        with told_if_unrecordable(unrecorded.append):
            await workflow.execute_activity_method(
                Audit.record_review, self.review, **options.record("record: the review is closed")
            )
        workflow.upsert_search_attributes([OUTCOME.value_set("closed")])
        self._show("".join(unrecorded))
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self.review

    @workflow.query(name="review", description="What the override passed, and what is still open")
    def state(self) -> Review:
        return self.review

    @workflow.update(description=CLOSE)
    async def close(self, request: CloseRequest) -> Review:
        return await self._close(request)

    @workflow.signal(name="close", description=CLOSE)
    async def close_unanswered(self, request: CloseRequest) -> None:
        try:
            await self._close(request)
        except ApplicationError as error:
            self._show(f"{request.by} could not close it: {error.message}")

    async def _close(self, request: CloseRequest) -> Review:
        person = await self._proved(request)
        await self._look()
        if (refusal := close_refusal(self.review, request)) is not None:
            raise refused(refusal)
        now = workflow.now()
        closed = Closed(by=person.name, roles=person.roles, reason=request.reason, at=now)
        self.review = self.review.found(stated(request), now).model_copy(update={"closed": closed})
        return self.review

    async def _proved(self, request: CloseRequest) -> Person:
        """Raises ApplicationError with the rule by which it is no proof."""
        found = await prove(
            request.token,
            Expected(
                deed=Deed.CLOSE_REVIEW,
                cluster_id=self.review.opened.cluster_id,
                run_id=self.review.opened.run_id,
                digest=request.digest,
            ),
            claimed=request.by,
        )
        if isinstance(found, Refusal):
            raise refused(found)
        return found

    async def _look(self) -> None:
        """Ask the lost nodes of which nothing is known yet. Nobody's silence settles anything."""
        suspension = self.review.suspension
        if suspension is None or not suspension.open:
            return
        opened = self.review.opened
        with contextlib.suppress(ActivityError):
            found = await workflow.execute_activity_method(
                Reviews.look,
                LookRequest(cluster_id=opened.cluster_id, lost=suspension.lost),
                **options.look(f"do {', '.join(suspension.open)} take part?"),
            )
            self.review = self.review.found(found.nodes, workflow.now())

    async def _remind(self) -> None:
        """Tell people that it is open, now and after each interval. A channel that fails blocks nothing."""
        opened, number = self.review.opened, self.review.reminders + 1
        self.review = self.review.model_copy(update={"reminders": number})
        self._remind_at = workflow.now() + timedelta(seconds=opened.remind_every_s)
        notification = Notification(
            cluster_id=opened.cluster_id,
            run_id=opened.run_id,
            event=RunEvent.REVIEW_DUE,
            about=f"reminder {number}",
            title=f"the review of an emergency override of {opened.cluster_id} is open",
            text=f"{self.review.waits_for}\ntype: qnwis-continuity review show {opened.cluster_id}",
        )
        with contextlib.suppress(ActivityError):
            await workflow.execute_activity_method(
                Notifications.notify, notification, **options.notify(f"reminder {number}")
            )

    def _pause(self) -> timedelta:
        left: timedelta = max(timedelta(0), self._remind_at - workflow.now())
        open_nodes = self.review.suspension is not None and self.review.suspension.open
        return min(LOOK_EVERY, left) if open_nodes else left

    def _is_closed(self) -> bool:
        return self.review.closed is not None

    def _show(self, answer: str = "") -> None:
        show_details("\n".join([*_lines(self.review), *([f"- ⚠ {answer}"] if answer else [])]))


def _lines(review: Review) -> list[str]:
    opened, suspension = review.opened, review.suspension
    lines = [
        f"**{review.waits_for}**",
        "",
        f"- override by {opened.initiated_by}: {opened.reason} (run {opened.run_id}, {opened.outcome})",
        *(f"- {note}" for note in opened.notes),
    ]
    if suspension is not None:
        lines.append(
            f"- guarantee suspended since {_moment(suspension.since)}, until {_moment(suspension.until)}"
        )
        lines += [f"- {node_id}: {how}" for node_id, how in suspension.settled]
    return lines


def _moment(at: datetime | None) -> str:
    return "now: it is open" if at is None else f"{at:%F %T} UTC"
