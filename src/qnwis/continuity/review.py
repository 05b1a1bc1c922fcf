"""The review that every emergency override opens: open until a person closes it, with what was found.

Where nodes were given up, it is not closed before of each of them it is known that it takes no part, because
it says so itself or because the person who closes the review states it by name.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import AwareDatetime, Field

from .audit import Approval, AuditDraft, AuditResult
from .forced import is_forced
from .membership import MembershipView
from .model import LONGEST_S, Identifier, Model
from .override import Suspension
from .refusal import Refusal
from .run import RunOutcome
from .tokens import PersonRequest

OPERATION = "override_review"
"""Of its audit record."""


class Opened(Model):
    """What a review is about."""

    cluster_id: Identifier
    run_id: str
    """Of the override."""
    audit_id: str | None
    initiated_by: str
    reason: str
    outcome: RunOutcome
    old_primary: str | None
    new_primary: str | None
    notes: tuple[str, ...]
    """Each gate that the override passed."""
    suspension: Suspension | None
    at: AwareDatetime
    remind_every_s: float = Field(gt=0, le=LONGEST_S)


class CloseRequest(PersonRequest):
    """Close a review: what happened is understood, and nothing of it is left open."""

    off: tuple[Identifier, ...] = ()
    """Lost nodes of which the person states that they are off for good, or were set up anew."""


class Closed(Model):
    by: str
    roles: tuple[str, ...]
    reason: str
    at: AwareDatetime


class Review(Model):
    """Where a review stands."""

    opened: Opened
    suspension: Suspension | None
    """As it is known now."""
    reminders: int = 0
    closed: Closed | None = None

    @property
    def waits_for(self) -> str:
        """What has to be done, for people."""
        if self.closed is not None:
            return f"closed by {self.closed.by}: {self.closed.reason}"
        left = self.suspension.open if self.suspension is not None else ()
        lost = f" {', '.join(left)} must come back and give way, or be stated to be off; then" if left else ""
        return f"open:{lost} somebody other than {self.opened.initiated_by} closes it"

    def found(self, settled: dict[str, str], at: AwareDatetime) -> Review:
        """With what was found of lost nodes."""
        if self.suspension is None or not settled:
            return self
        return self.model_copy(update={"suspension": self.suspension.with_settled(settled, at)})


def close_refusal(review: Review, request: CloseRequest) -> Refusal | None:
    """Why the review stays open; asked after the lost nodes were looked at once more."""
    if review.closed is not None:
        return Refusal(
            rule="review_closed",
            message=f"{review.closed.by} has closed it already, at {review.closed.at:%F %T} UTC",
            values={"by": review.closed.by},
            remedy="Nothing to do.",
        )
    if request.by == review.opened.initiated_by:
        return Refusal(
            rule="initiator_excluded",
            message=f"{request.by} started the override, and does not close its review",
            values={"initiator": request.by},
            remedy="Let another admin look at it.",
        )
    left = review.suspension.open if review.suspension is not None else ()
    if strangers := [node_id for node_id in request.off if node_id not in left]:
        return Refusal(
            rule="not_open",
            message=f"{', '.join(strangers)} is not among the lost nodes of which nothing is known",
            values={"off": [*request.off], "open": [*left]},
            remedy=f"Name {', '.join(left) or 'nobody'}.",
        )
    if unknown := [node_id for node_id in left if node_id not in request.off]:
        return Refusal(
            rule="lost_nodes_open",
            message=f"Of {', '.join(unknown)} it is not known that it takes no part",
            values={"open": [*unknown]},
            remedy="Start its agent, so that it hears of the new membership and gives way; or state that it"
            f" is off for good ({' '.join(f'--off {node_id}' for node_id in unknown)}).",
        )
    return None


def stated(request: CloseRequest) -> dict[str, str]:
    """What the person's word settles."""
    return dict.fromkeys(request.off, f"off, states {request.by}")


def gave_way(lost: Iterable[MembershipView], newest: MembershipView | None) -> dict[str, str]:
    """Of which lost nodes it is known that they take no part as they were, by what their agents say.

    Either it follows the forced membership and is no member; or the members have added it again.
    """
    found: dict[str, str] = {}
    for view in lost:
        membership = view.membership
        if is_forced(membership) and view.node_id not in membership.members:
            found[view.node_id] = f"follows membership {membership.version}, and is no member of it"
        elif newest is not None and is_forced(membership) and membership == newest.membership:
            found[view.node_id] = f"was added again, membership {membership.version}"
    return found


def draft_of_review(review: Review) -> AuditDraft:
    """The record of a review that was closed."""
    opened, closed = review.opened, review.closed
    assert closed is not None
    return AuditDraft(
        timestamp=closed.at,
        operation=OPERATION,
        cluster_id=opened.cluster_id,
        initiated_by=closed.by,
        role=", ".join(closed.roles),
        source_node=opened.old_primary,
        target_node=opened.new_primary,
        reason=closed.reason,
        approval=Approval(required=False),
        result=AuditResult(
            success=True,
            duration_ms=max(0, round((closed.at - opened.at).total_seconds() * 1000)),
            actions_executed=0,
        ),
        run_id=opened.run_id,
    )
