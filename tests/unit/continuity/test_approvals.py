"""Approval windows: who may say yes to what, and until when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.access import ApprovalWorkflow, Person
from qnwis.continuity.approvals import Standing, Window, cast, extended
from qnwis.continuity.refusal import Refusal

NOON = datetime(2025, 1, 11, 12, 0, tzinfo=UTC)
KEY = "ed25519:" + "A" * 43 + "="
OVERRIDE = ApprovalWorkflow(required_approvers=2, allowed_roles=("continuity_admin",), timeout_sec=300)
PLAN, OTHER = "sha256:plan", "sha256:other"


def person(name: str, role: str = "continuity_admin") -> Person:
    return Person(name=name, roles=(role,), public_key=KEY)


def opened(**changes: object) -> Window:
    fields = {
        "name": "emergency_override",
        "workflow": OVERRIDE,
        "digest": PLAN,
        "initiator": "ann",
        "opened_at": NOON,
    }
    return Window.model_validate({**fields, **changes})


def voted(
    window: Window,
    name: str,
    *,
    after_s: float = 1,
    approve: bool = True,
    digest: str = PLAN,
    role: str = "continuity_admin",
) -> Window | Refusal:
    now = NOON + timedelta(seconds=after_s)
    return cast(window, person(name, role), digest=digest, approve=approve, reason="", now=now)


def vote(window: Window, name: str, **how: Any) -> Window:
    after = voted(window, name, **how)
    assert isinstance(after, Window), after
    return after


def refused(window: Window, name: str, **how: Any) -> str:
    """The rule that refuses the vote."""
    after = voted(window, name, **how)
    assert isinstance(after, Refusal)
    return after.rule


@given(st.lists(st.tuples(st.sampled_from(["ann", "bob", "cid"]), st.floats(0.1, 90_000)), max_size=20))
def test_more_time_comes_from_others_than_the_initiator_and_never_makes_a_window_more_than_four_times_as_long(
    asked: list[tuple[str, float]],
) -> None:
    window = opened()
    for who, by_s in asked:
        after = extended(window, who, by_s=by_s, now=NOON)
        if isinstance(after, Refusal):
            fits = window.extended_s + by_s <= 3 * OVERRIDE.timeout_sec
            assert after.rule == ("initiator_excluded" if who == "ann" else "extended_too_far")
            assert who == "ann" or not fits
        else:
            assert who != "ann" and after.extended_s == window.extended_s + by_s
            window = after
    assert window.closes_at <= NOON + timedelta(seconds=4 * OVERRIDE.timeout_sec)


def test_a_window_that_is_over_is_not_extended() -> None:
    after = extended(opened(), "bob", by_s=1, now=NOON + timedelta(seconds=300))
    assert isinstance(after, Refusal) and after.rule == "window_closed"


def test_enough_distinct_approvers_approve() -> None:
    one = vote(opened(), "bob")
    assert one.standing(NOON) is Standing.OPEN
    both = vote(one, "cid")
    assert both.standing(NOON) is Standing.APPROVED
    assert both.standing(NOON + timedelta(days=1)) is Standing.APPROVED, "made in time, it stays made"


@pytest.mark.parametrize(
    ("name", "how", "rule"),
    [
        ("ann", {}, "initiator_excluded"),
        ("bob", {}, "voted_already"),
        ("cid", {"role": "continuity_operator"}, "role_not_allowed"),
        ("cid", {"digest": OTHER}, "another_digest"),
        ("cid", {"after_s": 300}, "window_closed"),
    ],
)
def test_a_vote_that_does_not_count_is_refused(name: str, how: dict[str, object], rule: str) -> None:
    assert refused(vote(opened(), "bob"), name, **how) == rule


def test_one_rejection_ends_it() -> None:
    window = vote(vote(opened(), "bob"), "cid", approve=False)
    assert window.standing(NOON) is Standing.REJECTED
    assert refused(window, "dan") == "window_closed"


def test_without_enough_votes_it_expires_at_its_time_and_not_before() -> None:
    window = vote(opened(), "bob", after_s=299)
    assert window.standing(NOON + timedelta(seconds=299.999)) is Standing.OPEN
    assert window.standing(NOON + timedelta(seconds=300)) is Standing.EXPIRED
    longer = window.model_copy(update={"extended_s": 60.0})
    assert longer.standing(NOON + timedelta(seconds=359)) is Standing.OPEN


names = st.sampled_from(["ann", "bob", "cid", "dan"])


@given(
    st.lists(st.tuples(names, st.booleans(), st.sampled_from([PLAN, OTHER]), st.floats(0, 400)), max_size=12),
    st.integers(1, 3),
)
def test_whatever_is_voted_only_distinct_others_in_time_on_this_plan_approve(
    votes: list[tuple[str, bool, str, float]], required: int
) -> None:
    workflow = OVERRIDE.model_copy(update={"required_approvers": required})
    window = opened(workflow=workflow)
    for name, approve, digest, at_s in sorted(votes, key=lambda v: v[3]):
        now = NOON + timedelta(seconds=at_s)
        after = cast(window, person(name), digest=digest, approve=approve, reason="", now=now)
        window = after if isinstance(after, Window) else window
    approvers = {v.person for v in window.votes if v.approve}
    assert "ann" not in approvers
    assert len(approvers) == window.approvals <= required
    in_time = {n for n, yes, d, at in votes if yes and d == PLAN and n != "ann" and at < 300}
    assert approvers <= in_time
    if window.standing(NOON) is Standing.APPROVED:
        assert len(in_time) >= required
