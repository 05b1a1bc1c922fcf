"""The access review: the period, who holds what, what was used, and what people have to decide about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.testing import ActivityEnvironment

from activities.access_review import AccessReviews, ReviewAccess
from qnwis.config.access import AccessFiles
from qnwis.config.load import load_rbac
from qnwis.config.shipped import shipped
from qnwis.continuity.access import Access, Deed, People, Person
from qnwis.continuity.access_review import (
    RECORDED,
    VOTE,
    AccessReview,
    AccessReviewRequest,
    FindingCode,
    Period,
    draft_of_access_review,
    period_of,
    review,
)
from qnwis.continuity.audit import SERVICE, UNAUTHENTICATED, AuditRecord, chain
from qnwis.continuity.decisions import operation_of
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.service_tokens import ServiceToken, ServiceTokens
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.service_tokens import TokenFile

from .test_audit import AT, KEY, draft, tampered

RBAC = load_rbac(shipped("config") / "rbac" / "continuity.yaml")
PERIOD = Period(since=AT - timedelta(days=30), until=AT + timedelta(days=1))
TRIGGER = "continuity:trigger_manual_failover"
OVERRIDE = "continuity:emergency_override"
NO = Refusal(rule="no", message="No", remedy="None.")


def person(name: str, *roles: str) -> Person:
    return Person(name=name, roles=roles, issuers=("api",))


def record(
    who: str,
    operation: str,
    *,
    role: str = "continuity_admin",
    refusal: Refusal | None = None,
    at: datetime = AT,
) -> AuditRecord:
    told = {"initiated_by": who, "role": role, "refusal": refusal}
    return chain(None, draft(at=at, operation=operation).model_copy(update=told), {}, KEY.sign)


def decided(who: str, deed: Deed, **more: object) -> AuditRecord:
    return record(who, operation_of(deed), **more)  # type: ignore[arg-type]


def reviewed(
    *records: AuditRecord, people: tuple[Person, ...], tokens: tuple[ServiceToken, ...] = ()
) -> AccessReview:
    access = Access(rbac=RBAC, people=People(people=people))
    return review(access, ServiceTokens(tokens=tokens), records, PERIOD)


def token(name: str, *, days: int = 90, revoked: bool = False) -> ServiceToken:
    issued = AT - timedelta(days=60)
    return ServiceToken(
        token_id=sha256(name.encode()).hexdigest()[:12],
        name=name,
        roles=("service",),
        sha256="0" * 64,
        issued_at=issued,
        expires_at=issued + timedelta(days=days),
        revoked_at=AT if revoked else None,
    )


def codes(found: AccessReview) -> set[tuple[FindingCode, str]]:
    return {(one.code, one.message.split()[0]) for one in found.findings}


def test_a_right_that_was_used_is_not_called_unused_and_others_are() -> None:
    people = (person("ann", "continuity_admin"), person("bob", "continuity_operator"))
    start, later = decided("ann", Deed.START), decided("ann", Deed.ABORT, at=AT + timedelta(hours=1))
    found = reviewed(start, later, decided("ann", Deed.APPROVE), people=people)
    ann, bob = found.holders
    assert {right: use.times for right, use in ann.used.items()} == {TRIGGER: 2, VOTE: 1}
    assert ann.used[TRIGGER].last_at == AT + timedelta(hours=1)
    assert (ann.unused, bob.unused) == ((OVERRIDE,), (TRIGGER,))
    assert {one.message.split()[0] for one in found.findings} == {"ann", "bob"}


@pytest.mark.parametrize(
    "useless",
    [
        decided("bob", Deed.START, refusal=NO),
        decided("bob", Deed.START, role=UNAUTHENTICATED),
        record("bob", "failover_execute", role=SERVICE),
    ],
    ids=["refused", "nobody proved it", "by itself"],
)
def test_what_was_refused_or_not_proved_uses_no_right(useless: AuditRecord) -> None:
    (bob,) = reviewed(useless, people=(person("bob", "continuity_operator"),)).holders
    assert bob.used == {} and bob.unused == (TRIGGER,)


def test_reading_leaves_no_record_and_is_never_called_unused() -> None:
    found = reviewed(people=(person("eve", "continuity_viewer"),))
    assert "continuity:view_audit" in found.holders[0].rights
    assert found.holders[0].unused == () and found.findings == ()


def test_what_people_have_to_decide_about_is_named() -> None:
    found = reviewed(
        decided("gone", Deed.PAUSE),
        record("joe", "failover_execute", role=UNAUTHENTICATED),
        record("guardian-c1", "failover_execute", role=SERVICE),
        people=(person("ann", "no_such_role"),),
        tokens=(token("old", days=30), token("dropped", days=30, revoked=True), token("robot")),
    )
    assert codes(found) == {
        (FindingCode.UNKNOWN_ROLE, "ann"),
        (FindingCode.UNKNOWN_NAME, "gone"),
        (FindingCode.UNPROVED, "failover_execute"),
        (FindingCode.ENDED_TOKEN, "token"),
        (FindingCode.UNUSED_RIGHT, "robot"),
    }
    assert [holder.name for holder in found.holders] == ["ann", "robot"], "what is over gives nobody a right"
    assert found.by_itself == 1
    assert "1 people and 1 service tokens have access; 5 findings" in found.headline


def test_who_did_what_is_counted_with_what_was_refused() -> None:
    found = reviewed(
        decided("ann", Deed.START),
        decided("ann", Deed.START, refusal=NO, role=UNAUTHENTICATED),
        people=(person("ann", "continuity_admin"),),
    )
    (act,) = found.acts
    assert (act.person, act.done, act.refused, act.unproved) == ("ann", 1, 1, 0)


@given(st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)))
def test_quarters_follow_each_other_without_a_gap(naive: datetime) -> None:
    now = naive.replace(tzinfo=UTC)
    last = period_of(AccessReviewRequest(), now)
    assert last.since < last.until <= now
    assert 90 <= (last.until - last.since).days <= 92 and now - last.until <= timedelta(days=92)
    assert {last.since.month % 3, last.until.month % 3} == {1} and last.since.day == last.until.day == 1
    assert period_of(AccessReviewRequest(), last.until - timedelta(seconds=1)).until == last.since


def test_days_that_are_named_end_now() -> None:
    assert period_of(AccessReviewRequest(days=7), AT) == Period(since=AT - timedelta(days=7), until=AT)


@given(st.lists(st.sampled_from([*Deed]), max_size=12))
def test_used_and_unused_rights_are_all_that_leave_a_record(deeds: list[Deed]) -> None:
    found = reviewed(*(decided("ann", deed) for deed in deeds), people=(person("ann", "continuity_admin"),))
    (ann,) = found.holders
    assert {*ann.used} | {*ann.unused} == RECORDED and not {*ann.used} & {*ann.unused}


def test_a_scheduled_review_is_the_systems_and_a_persons_is_unproved() -> None:
    found = reviewed(people=())
    for by_schedule, role in ((True, SERVICE), (False, UNAUTHENTICATED)):
        request = AccessReviewRequest(by_schedule=by_schedule)
        made = draft_of_access_review(found, request, run_id="r", at=AT)
        assert (made.role, made.operation, made.reason) == (role, "access_review", found.headline)


async def test_a_record_that_cannot_be_read_is_named_and_hides_no_other(tmp_path: Path) -> None:
    store = SqliteAuditStore(tmp_path / "audit.sqlite", tmp_path / "signing.pem")
    for number, who in enumerate(("ann", "bob")):
        await store.append(draft(number).model_copy(update={"initiated_by": who}), {})
    tampered(tmp_path / "audit.sqlite", "UPDATE records SET record = '{}' WHERE sequence = 1")
    reviews = AccessReviews(AccessFiles(tmp_path), TokenFile(tmp_path / "tokens.yaml"), store)
    asked = ReviewAccess(request=AccessReviewRequest(), period=PERIOD)
    made = await ActivityEnvironment().run(reviews.review_access, asked)
    assert [act.person for act in made.review.acts] == ["bob"]
    (unread,) = [one for one in made.review.findings if one.code is FindingCode.UNREAD_RECORD]
    assert unread.message.startswith("record 1 is not counted: A stored audit record is not a record")
