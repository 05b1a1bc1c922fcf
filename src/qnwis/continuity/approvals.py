"""Approvals: a window in which the right people say yes to one plan, named by its digest.

The initiator never counts, each person counts once, one rejection ends it, and a vote for another digest is
none. When the window is over without enough votes it has expired, and nothing is changed. Others than the
initiator may give it more time, within a bound: who may ask again for ever decides alone.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import AwareDatetime

from .access import ApprovalWorkflow, Person
from .model import Model
from .plan import Plan
from .refusal import Refusal
from .region_plan import RegionPlan
from .targets import Candidate
from .tokens import Token

LONGEST_BY_EXTENSION = 4
"""A window that is given more time is at most so many times as long as its workflow has it."""


class Standing(StrEnum):
    """How a window stands."""

    OPEN = "open"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"


class Vote(Model):
    """One person's word on one plan."""

    person: str
    roles: tuple[str, ...]
    """Those that allowed it, when it was cast."""
    approve: bool
    reason: str = ""
    at: AwareDatetime


class VoteRequest(Model):
    """A vote as it is sent: the signed token says who, on which plan of which run, and why."""

    token: Token

    @property
    def digest(self) -> str:
        return self.token.claim.digest or ""


class Window(Model):
    """One approval window, from its opening to its end."""

    name: str
    """Of the approval workflow, for example `manual_failover`."""
    workflow: ApprovalWorkflow
    digest: str
    """The plan that is voted on; no other."""
    initiator: str
    opened_at: AwareDatetime
    extended_s: float = 0.0
    votes: tuple[Vote, ...] = ()

    @property
    def closes_at(self) -> datetime:
        return self.opened_at + timedelta(seconds=self.workflow.timeout_sec + self.extended_s)

    @property
    def most_extended_s(self) -> float:
        """What all extensions together may add."""
        return (LONGEST_BY_EXTENSION - 1) * self.workflow.timeout_sec

    @property
    def approvals(self) -> int:
        return sum(vote.approve for vote in self.votes)

    def standing(self, now: datetime) -> Standing:
        """A decision that was made in time stays made."""
        if any(not vote.approve for vote in self.votes):
            return Standing.REJECTED
        if self.approvals >= self.workflow.required_approvers:
            return Standing.APPROVED
        return Standing.OPEN if now < self.closes_at else Standing.EXPIRED


class PendingApproval(Model):
    """What people look at before they vote."""

    run_id: str
    """Temporal's, which the token names."""
    window: Window
    voters: tuple[str, ...]
    plan: Plan | RegionPlan
    """What is agreed to: the plan of a cluster, or of all clusters of a region."""
    predicted_loss_bytes: int | None
    """Log that the plan is known to lose, bytes; None where nothing is known of it."""
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...] = ()
    """What an override passes and suspends, a sentence each."""


def closed_refusal(window: Window | None, now: datetime) -> Refusal | None:
    """Why nobody can vote now."""
    if window is None:
        return _refused("no_window", "Nothing waits for an approval", {}, "Wait until the run asks for it.")
    standing = window.standing(now)
    if standing is Standing.OPEN:
        return None
    return _refused(
        "window_closed",
        f"The window {window.name} is {standing}",
        {"closes_at": window.closes_at.isoformat(), "standing": standing.value},
        "Start the run again.",
    )


def digest_refusal(window: Window | None, digest: str) -> Refusal | None:
    """A vote is for one plan, the one that waits."""
    if window is None or digest == window.digest:
        return None
    return _refused(
        "another_digest",
        f"The vote is for {digest or 'no plan'}, and the plan that waits is {window.digest}",
        {"voted": digest, "digest": window.digest},
        "Look at the plan that waits, and vote on its digest.",
    )


def voters_refusal(name: str | None, workflow: ApprovalWorkflow | None, voters: list[str]) -> Refusal | None:
    """A window that nobody can bring to its end is not opened."""
    if workflow is None:
        return _refused(
            "approval_workflow_unknown",
            f"No approval workflow is named {name or '(none)'}",
            {"name": name or ""},
            "Define it under approval_workflows in config/rbac/continuity.yaml.",
        )
    if len(voters) >= workflow.required_approvers:
        return None
    return _refused(
        "too_few_voters",
        f"{name} needs {workflow.required_approvers} approvals, and besides the initiator"
        f" {', '.join(voters) or 'nobody'} may vote",
        {"voters": voters, "allowed_roles": [*workflow.allowed_roles]},
        "Add people with these roles to people.yaml (`qnwis-continuity people key`).",
    )


def cast(
    window: Window, person: Person, *, digest: str, approve: bool, reason: str, now: datetime
) -> Window | Refusal:
    """The window with this person's vote. The rules, in the order in which they refuse."""
    refusal = closed_refusal(window, now) or digest_refusal(window, digest)
    if refusal is not None:
        return refusal
    if person.name == window.initiator:
        return _refused(
            "initiator_excluded",
            f"{person.name} started this run, and cannot approve or reject it",
            {"initiator": window.initiator},
            "Let somebody else vote; the initiator can abort the run.",
        )
    allowed = tuple(role for role in person.roles if role in window.workflow.allowed_roles)
    if not allowed:
        return _refused(
            "role_not_allowed",
            f"{person.name} ({', '.join(person.roles)}) may not vote in {window.name}",
            {"roles": [*person.roles], "allowed_roles": [*window.workflow.allowed_roles]},
            f"Let somebody with one of the roles {', '.join(window.workflow.allowed_roles)} vote.",
        )
    if any(vote.person == person.name for vote in window.votes):
        return _refused(
            "voted_already",
            f"{person.name} has voted already; each person counts once",
            {"person": person.name},
            "Let another person vote.",
        )
    vote = Vote(person=person.name, roles=allowed, approve=approve, reason=reason, at=now)
    return window.model_copy(update={"votes": (*window.votes, vote)})


def extended(window: Window, person: str, *, by_s: float, now: datetime) -> Window | Refusal:
    """The window with so much more time as this person gives it."""
    refusal = closed_refusal(window, now)
    if refusal is not None:
        return refusal
    if person == window.initiator:
        return _refused(
            "initiator_excluded",
            f"{person} started this run, and cannot give others more time to approve it",
            {"initiator": window.initiator},
            "Let somebody else extend the window; or let it end, and start the run again.",
        )
    if window.extended_s + by_s > window.most_extended_s:
        left_s = window.most_extended_s - window.extended_s
        return _refused(
            "extended_too_far",
            f"{window.name} is {window.workflow.timeout_sec:g} s, extended by {window.extended_s:g} s;"
            f" another {by_s:g} s make it more than {LONGEST_BY_EXTENSION} times as long",
            {
                "timeout_sec": window.workflow.timeout_sec,
                "extended_s": window.extended_s,
                "by_s": by_s,
                "most_extended_s": window.most_extended_s,
            },
            (f"Ask for at most {left_s:g} s; or let" if left_s else "Let")
            + " the window end, and start the run again.",
        )
    return window.model_copy(update={"extended_s": window.extended_s + by_s})


def _refused(rule: str, message: str, values: dict[str, str | float | list[str]], remedy: str) -> Refusal:
    return Refusal(rule=rule, message=message, values={**values}, remedy=remedy)
