"""The access review: who can do what, who did what in a period, and which rights nobody needed.

Source: specification, "Best Practices" (quarterly access audits). What was done is what the audit trail has.
Reading, planning and simulating leave no record, so of these rights nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from pydantic import AwareDatetime, Field

from .access import PERMISSIONS, Access, Deed, Rbac
from .audit import SERVICE, UNAUTHENTICATED, Approval, AuditDraft, AuditRecord, AuditResult
from .decisions import PREFIX
from .identity import Permission
from .model import Model
from .refusal import Refusal
from .service_tokens import ServiceTokens

OPERATION = "access_review"
VOTE = "vote"
"""The right that no permission gives, but an approval workflow (config/rbac/continuity.yaml)."""
VOTES = frozenset({Deed.APPROVE, Deed.REJECT})
RECORDED = frozenset({*PERMISSIONS.values(), VOTE})
"""Rights whose use leaves a record."""
QUARTER_MONTHS = 3


class AccessReviewRequest(Model):
    """From the Temporal UI, nothing is needed: the quarter that ended last."""

    days: float | None = Field(default=None, gt=0, le=3660)
    """The period up to now, instead of the quarter that ended last."""
    initiated_by: str = "a person"
    by_schedule: bool = False


class Period(Model):
    since: AwareDatetime
    until: AwareDatetime
    """Not part of it any more."""


class Use(Model):
    """How often a right was used in the period."""

    times: int
    last_at: AwareDatetime


class Holder(Model):
    """A person, or a service with a token, and their rights."""

    person: str | None = None
    service: str | None = None
    token_id: str | None = None
    roles: tuple[str, ...]
    rights: tuple[str, ...]
    """Permissions, and `vote` for who may vote in an approval workflow."""
    used: Mapping[str, Use] = {}
    unused: tuple[str, ...] = ()
    """Rights whose use would have left a record, and did not."""

    @property
    def name(self) -> str:
        return self.person or self.service or ""


class Act(Model):
    """What one name did, or tried, by one operation."""

    person: str
    operation: str
    done: int
    refused: int
    unproved: int
    """Under a name that was claimed and not proved."""


class FindingCode(StrEnum):
    UNUSED_RIGHT = "unused_right"
    UNKNOWN_ROLE = "unknown_role"  # a role that gives nothing, because the file does not define it
    UNKNOWN_NAME = "unknown_name"  # acted with a proof, and nobody of that name has access now
    UNPROVED = "unproved"  # acted under a name that nobody proved
    ENDED_TOKEN = "ended_token"  # is good for nothing any more and still listed as not revoked
    UNREAD_RECORD = "unread_record"  # may be of the period, and of anybody


class Finding(Model):
    """Something for people to decide about."""

    code: FindingCode
    message: str
    remedy: str


class AccessReview(Model):
    period: Period
    holders: tuple[Holder, ...]
    acts: tuple[Act, ...]
    by_itself: int
    """Operations that the system began by itself."""
    findings: tuple[Finding, ...]

    @property
    def headline(self) -> str:
        people = sum(holder.person is not None for holder in self.holders)
        return (
            f"{self.period.since:%F} to {self.period.until:%F}: {people} people and"
            f" {len(self.holders) - people} service tokens have access; {len(self.findings)} findings"
        )


def period_of(request: AccessReviewRequest, now: datetime) -> Period:
    """The days up to now where the request names some; else the calendar quarter that ended last, in UTC."""
    if request.days is not None:
        return Period(since=now - timedelta(days=request.days), until=now)
    end = _quarter_begin(now.astimezone(UTC))
    return Period(since=_quarter_begin(end - timedelta(days=1)), until=end)


def review(
    access: Access,
    tokens: ServiceTokens,
    records: Sequence[AuditRecord],
    period: Period,
    unread: Sequence[tuple[int, Refusal]] = (),
) -> AccessReview:
    """`records`: those of the period, and `unread` those of any, by their place in the log; `access` and
    `tokens` are as they are at its end."""
    uses = _uses(records)
    holders = tuple(_holders(access, tokens, uses, period.until))
    acts = _acts(records)
    return AccessReview(
        period=period,
        holders=holders,
        acts=acts,
        by_itself=sum(record.role == SERVICE for record in records),
        findings=(
            *_findings(access.rbac, tokens, holders, records, acts, period),
            *(
                Finding(
                    code=FindingCode.UNREAD_RECORD,
                    message=f"record {place} is not counted: {why.message}",
                    remedy=why.remedy,
                )
                for place, why in unread
            ),
        ),
    )


def draft_of_access_review(
    found: AccessReview, request: AccessReviewRequest, *, run_id: str, at: datetime
) -> AuditDraft:
    """The record of a review; the whole of it is its artefact."""
    return AuditDraft(
        timestamp=at,
        operation=OPERATION,
        cluster_id="access",
        initiated_by=request.initiated_by,
        role=SERVICE if request.by_schedule else UNAUTHENTICATED,
        source_node=None,
        target_node=None,
        reason=found.headline,
        approval=Approval(required=False),
        result=AuditResult(success=True, duration_ms=0, actions_executed=0),
        run_id=run_id,
    )


def right_used(record: AuditRecord) -> str | None:
    """The right by which a record's initiator did it; None where no right was used, or nobody proved to be
    them."""
    if record.role in {SERVICE, UNAUTHENTICATED}:
        return None
    if record.operation.startswith(PREFIX):
        if record.refusal is not None:
            return None
        deed = Deed(record.operation.removeprefix(PREFIX))
        return VOTE if deed in VOTES else PERMISSIONS.get(deed)
    return None  # a run, an evacuation or a review began with a decision that has a record of its own


def _uses(records: Sequence[AuditRecord]) -> dict[str, dict[str, Use]]:
    """By name and right."""
    found: dict[str, dict[str, Use]] = {}
    for record in records:
        right = right_used(record)
        if right is None:
            continue
        own = found.setdefault(record.initiated_by, {})
        before = own.get(right)
        own[right] = Use(
            times=1 + (before.times if before else 0),
            last_at=max(record.timestamp, before.last_at) if before else record.timestamp,
        )
    return found


def _holders(
    access: Access, tokens: ServiceTokens, uses: dict[str, dict[str, Use]], at: datetime
) -> Iterator[Holder]:
    for person in access.people.people:
        rights = [*_permissions(person.roles, access.rbac), *_votes(person.roles, access.rbac)]
        yield _holder(rights, uses.get(person.name, {}), person=person.name, roles=person.roles)
    for token in tokens.tokens:
        if token.revoked_at is None and token.issued_at <= at < token.expires_at:
            rights = list(_permissions(token.roles, access.rbac))
            used = uses.get(token.name, {})
            yield _holder(rights, used, service=token.name, token_id=token.token_id, roles=token.roles)


def _holder(rights: list[str], used: dict[str, Use], **who: str | tuple[str, ...]) -> Holder:
    unused = tuple(right for right in rights if right in RECORDED and right not in used)
    return Holder.model_validate({**who, "rights": tuple(rights), "used": used, "unused": unused})


def _permissions(roles: Sequence[str], rbac: Rbac) -> tuple[str, ...]:
    known = [role for name in roles if (role := rbac.role(name)) is not None]
    return tuple(one.value for one in Permission if any(role.allows(one.value) for role in known))


def _votes(roles: Sequence[str], rbac: Rbac) -> tuple[str, ...]:
    may = any(set(roles) & set(workflow.allowed_roles) for workflow in rbac.approval_workflows.values())
    return (VOTE,) if may else ()


def _acts(records: Sequence[AuditRecord]) -> tuple[Act, ...]:
    counted: dict[tuple[str, str], Act] = {}
    for record in records:
        if record.role == SERVICE:
            continue
        key = (record.initiated_by, record.operation)
        before = counted.get(key) or Act(person=key[0], operation=key[1], done=0, refused=0, unproved=0)
        refused = record.refusal is not None
        counted[key] = before.model_copy(
            update={
                "done": before.done + (not refused),
                "refused": before.refused + refused,
                "unproved": before.unproved + (record.role == UNAUTHENTICATED and not refused),
            }
        )
    return tuple(counted[key] for key in sorted(counted))


def _findings(
    rbac: Rbac,
    tokens: ServiceTokens,
    holders: Sequence[Holder],
    records: Sequence[AuditRecord],
    acts: Sequence[Act],
    period: Period,
) -> Iterator[Finding]:
    for holder in holders:
        whose = holder.name + (f" (token {holder.token_id})" if holder.token_id else "")
        for right in holder.unused:
            yield Finding(
                code=FindingCode.UNUSED_RIGHT,
                message=f"{whose} did not use {right} in the period; it comes by {', '.join(holder.roles)}",
                remedy="Take the role away, or keep it for the day on which it is needed.",
            )
        for role in holder.roles:
            if rbac.role(role) is None:
                yield Finding(
                    code=FindingCode.UNKNOWN_ROLE,
                    message=f"{whose} has the role {role}, which config/rbac/continuity.yaml does not define",
                    remedy=f"Define {role}, or take it away.",
                )
    known = {holder.name for holder in holders}
    proved = {one.initiated_by for one in records if right_used(one) is not None}
    for name in sorted(proved - known):
        yield Finding(
            code=FindingCode.UNKNOWN_NAME,
            message=f"{name} acted in the period and has no access now",
            remedy="Nothing to do where it was taken away on purpose; whoever was erased is a commitment.",
        )
    for act in acts:
        if act.unproved and act.operation != OPERATION:
            yield Finding(
                code=FindingCode.UNPROVED,
                message=f"{act.operation} was done {act.unproved} times as {act.person}, which nobody proved",
                remedy="Set approvals: true in policy.yaml, and sign with a key of people.yaml.",
            )
    for token in tokens.tokens:
        if token.revoked_at is None and token.expires_at <= period.until:
            yield Finding(
                code=FindingCode.ENDED_TOKEN,
                message=f"token {token.token_id} of {token.name} ended at {token.expires_at:%F}",
                remedy=f"qnwis-continuity tokens revoke {token.token_id}",
            )


def _quarter_begin(at: datetime) -> datetime:
    month = at.month - (at.month - 1) % QUARTER_MONTHS
    return datetime(at.year, month, 1, tzinfo=UTC)
