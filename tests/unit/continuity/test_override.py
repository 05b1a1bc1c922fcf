"""Emergency overrides that give nodes up: what is installed, what is refused, and how a review is closed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnwis.continuity.assessment import assess
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.executor import Do, Outcome, OutcomeStatus, Undo, advance
from qnwis.continuity.forced import (
    EPOCHS,
    GENERATION,
    force_refusal,
    forced_adoption,
    forced_epoch,
    is_forced,
    taken_back,
    undoing,
)
from qnwis.continuity.lease_messages import Membership
from qnwis.continuity.leases import Grantor, GrantorRecord
from qnwis.continuity.membership import Adoption, Forced, MembershipView, adopt, with_member, without_member
from qnwis.continuity.orders import FencingEvidence, FencingEvidenceType
from qnwis.continuity.override import GiveUp, Suspension
from qnwis.continuity.plan import ForceMembership, RepointStandbys
from qnwis.continuity.planner import Planning, make_plan
from qnwis.continuity.promotion import promotion_refusal
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.review import Closed, CloseRequest, Opened, Review, close_refusal, gave_way, stated
from qnwis.continuity.run import FailoverRequest, RunOutcome
from tests.unit.continuity.scenes import (
    NOON,
    SPEC_CLUSTER,
    SYNCHRONOUS,
    evidence,
    policy,
    primary,
    standby,
)

ALL = Membership(version=4, members=("node-1", "node-2", "node-3"))
FORCED = Forced(run_id="run", lost=("node-1", "node-3"), reason="the hall burnt down")
LOST = GiveUp(node_ids=("node-1", "node-3"))
CLUSTER = SPEC_CLUSTER.model_copy(update={"replication": SYNCHRONOUS})


def view(node_id: str, membership: Membership = ALL, adoption: Adoption | None = None) -> MembershipView:
    return MembershipView(node_id=node_id, disk_id=node_id, membership=membership, adoption=adoption)


def forced(*views: MembershipView, by: Forced = FORCED) -> Adoption:
    adoption = forced_adoption(views or (view("node-2"),), by)
    assert isinstance(adoption, Adoption)
    return adoption


# --- the membership ---


@given(st.integers(1, 100), st.integers(0, 400), st.integers(0, 5000))
def test_it_is_newer_than_whatever_the_lost_can_agree_on(version: int, changes: int, epoch: int) -> None:
    own = ALL.model_copy(update={"version": version})
    theirs = own
    for _ in range(changes):
        theirs = with_member(without_member(theirs, "node-2"), "node-2", "new")
    new = forced(view("node-2", own)).new
    assert new.members == ("node-2",)
    assert new.version > theirs.version
    assert forced_epoch(epoch) > epoch
    assert forced_epoch(epoch) % EPOCHS == 0


def test_it_is_the_same_again_for_its_run_and_newer_for_another() -> None:
    first = forced()
    again = forced(view("node-2", first.new, first))
    other = forced(view("node-2", first.new, first), by=FORCED.model_copy(update={"run_id": "rival"}))
    assert again == first
    assert other.new.version // GENERATION == first.new.version // GENERATION + 1


def test_of_rival_overrides_one_gives_way_when_they_meet() -> None:
    mine, theirs = forced(), forced(view("node-1"), by=Forced(run_id="rival", lost=("node-2",), reason="-"))
    assert mine.new.version != theirs.new.version
    lower, higher = sorted((mine, theirs), key=lambda adoption: adoption.new.version)
    for node_id in lower.new.members:
        record = GrantorRecord(node_id=node_id, membership=lower.new)
        assert adopt(Grantor(record=record), higher).record.membership == higher.new


def test_a_lost_node_that_hears_of_it_is_no_member_any_more_and_what_is_older_changes_nothing() -> None:
    adoption = forced()
    lost = Grantor(record=GrantorRecord(node_id="node-1", membership=ALL))
    after = adopt(lost, adoption)
    assert "node-1" not in after.record.membership.members
    assert is_forced(after.record.membership)
    old = Adoption(old=ALL, new=without_member(ALL, "node-2"), acceptors=("node-1", "node-3"))
    assert adopt(after, old) == after


def test_nobody_follows_what_is_neither_agreed_nor_forced() -> None:
    adoption = forced().model_copy(update={"forced": None})
    lost = Grantor(record=GrantorRecord(node_id="node-2", membership=ALL))
    assert adopt(lost, adoption) == lost


def test_taken_back_all_are_members_again_and_whoever_followed_hears_of_it() -> None:
    adoption = forced()
    back = taken_back(adoption, "run")
    assert back.new.members == ALL.members
    for node_id, known in (("node-2", adoption.new), ("node-1", ALL), ("node-3", adoption.new)):
        state = Grantor(record=GrantorRecord(node_id=node_id, membership=known))
        assert adopt(state, back).record.membership == back.new


def test_to_take_it_back_is_the_same_for_every_survivor_at_every_attempt() -> None:
    """One attempt may reach one of two; the next must not take what that has for another run's."""
    adoption = forced(view("node-2"), view("node-4"))
    behind = view("node-4", adoption.new, adoption)
    back = undoing([view("node-2", adoption.new, adoption), behind], FORCED)
    assert back is not None and back == taken_back(adoption, "run")
    assert undoing([view("node-2", back.new, back), behind], FORCED) == back
    assert undoing([view("node-2"), view("node-4")], FORCED) is None
    assert undoing([behind], FORCED.model_copy(update={"run_id": "another"})) is None


def test_who_serves_takes_no_part_and_who_is_further_on_neither() -> None:
    adoption = forced()
    assert force_refusal(view("node-2"), adoption, holds_lease=False) is None
    assert force_refusal(view("node-2", adoption.new), adoption, holds_lease=True) is None
    serving = force_refusal(view("node-2"), adoption, holds_lease=True)
    assert serving is not None and serving.rule == "member_serves"
    ahead = ALL.model_copy(update={"version": adoption.new.version + 1})
    older = force_refusal(view("node-2", ahead), adoption, holds_lease=False)
    assert older is not None and older.rule == "membership_older"


def test_a_membership_of_nobody_is_refused() -> None:
    adoption = forced_adoption([view("node-2")], FORCED.model_copy(update={"lost": ALL.members}))
    assert isinstance(adoption, Refusal) and adoption.rule == "nobody_left"


# --- the plan ---


def live(*silent: str) -> ClusterEvidence:
    """What all others answer."""
    states = (primary("node-1"), standby("node-2"), standby("node-3"))
    return evidence(CLUSTER, *(state for state in states if state.node_id not in silent))


def planned(seen: ClusterEvidence, give_up: GiveUp = LOST) -> Planning:
    return make_plan(CLUSTER, policy(), seen, trigger_reason="test", override=True, give_up=give_up)


def test_the_survivor_is_planned_and_what_it_costs_is_said() -> None:
    seen = live("node-1", "node-3")
    ordinary = make_plan(CLUSTER, policy(), seen, trigger_reason="test", override=True)
    assert ordinary.refusal is not None and ordinary.refusal.rule == "no_quorum"
    assert "--lost" in ordinary.refusal.remedy

    planning = planned(seen)
    assert planning.plan is not None, planning.refusal
    force = planning.plan.actions[0]
    assert isinstance(force, ForceMembership)
    assert (force.node_id, force.members, force.attested_by) == ("node-1", ("node-2",), None)
    assert planning.plan.failover_target_id == "node-2"
    assert [a.node_ids for a in planning.plan.actions if isinstance(a, RepointStandbys)] == [()]
    assert planning.predicted_loss_bytes is None, "what only node-3 had confirmed is not known"
    told = " ".join(planning.notes)
    for words in ("GUARANTEE SUSPENDED", "nobody states", "acknowledged_writes_uncertain", "waits for 0"):
        assert words in told


@pytest.mark.parametrize(
    ("give_up", "silent", "rule"),
    [
        (("node-1", "node-9"), ("node-1",), "lost_node_unknown"),
        (("node-3",), ("node-1", "node-3"), "primary_not_lost"),
        (("node-1", "node-3"), ("node-1",), "lost_node_answers"),
        (("node-1",), ("node-1", "node-3"), "survivor_silent"),
        (("node-1", "node-2", "node-3"), ("node-1", "node-2", "node-3"), "nobody_left"),
    ],
)
def test_only_what_nobody_hears_of_is_given_up(
    give_up: tuple[str, ...], silent: tuple[str, ...], rule: str
) -> None:
    refusal = planned(live(*silent), GiveUp(node_ids=give_up)).refusal
    assert refusal is not None and refusal.rule == rule


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"override": False}, "override_missing"),
        ({"give_up": GiveUp(node_ids=("node-1", "node-3"), attested_by="bob")}, "attested_by_another"),
    ],
)
def test_only_an_override_gives_up_and_nobody_states_for_another(fields: dict[str, Any], rule: str) -> None:
    request = FailoverRequest(
        cluster_id="prod-cluster", initiated_by="ann", reason="-", override=True, give_up=LOST
    )
    seen = live("node-1", "node-3")
    assert assess(request, CLUSTER, policy(), seen).plan is not None
    refusal = assess(request.model_copy(update=fields), CLUSTER, policy(), seen).refusal
    assert refusal is not None and refusal.rule == rule


def test_without_evidence_only_a_plan_that_gives_up_goes_on_to_promote() -> None:
    seen = live("node-1", "node-3")
    giving_up = planned(seen).plan
    fencing = make_plan(CLUSTER, policy(), live("node-1"), trigger_reason="test").plan
    assert giving_up is not None and fencing is not None
    for plan, expected in ((giving_up, Do), (fencing, Undo)):
        none = FencingEvidence(
            type=FencingEvidenceType.NONE, holder="node-1", epoch=1, source="-", detail="-", at=NOON
        )
        first = Outcome(action_id=plan.actions[0].action_id, status=OutcomeStatus.SUCCEEDED, fencing=none)
        assert isinstance(advance(plan, [first]), expected)
        missing = first.model_copy(update={"fencing": None})
        assert isinstance(advance(plan, [missing]), Undo)
    assert promotion_refusal(giving_up, CLUSTER, policy(), seen) is None
    uncovered = promotion_refusal(fencing, CLUSTER, policy(), seen)
    assert uncovered is not None and uncovered.rule == "acknowledged_writes_uncertain"


# --- the review ---


def review(*settled: tuple[str, str]) -> Review:
    suspension = Suspension(lost=FORCED.lost, since=NOON, settled=settled)
    opened = Opened(
        cluster_id="prod", run_id="run", audit_id="a", initiated_by="ann", reason="-",
        outcome=RunOutcome.COMPLETED, old_primary="node-1", new_primary="node-2", notes=(),
        suspension=suspension, at=NOON, remind_every_s=60,
    )  # fmt: skip
    return Review(opened=opened, suspension=suspension)


@pytest.mark.parametrize(
    ("by", "off", "settled", "rule"),
    [
        ("ann", ("node-1", "node-3"), (), "initiator_excluded"),
        ("dora", (), (), "lost_nodes_open"),
        ("dora", ("node-1",), (), "lost_nodes_open"),
        ("dora", ("node-2",), (), "not_open"),
        ("dora", ("node-1", "node-3"), (("node-1", "gave way"),), "not_open"),
        ("dora", ("node-3",), (("node-1", "gave way"),), None),
        ("dora", ("node-1", "node-3"), (), None),
    ],
)
def test_a_review_is_closed_by_another_person_once_every_lost_node_is_accounted_for(
    by: str, off: tuple[str, ...], settled: tuple[tuple[str, str], ...], rule: str | None
) -> None:
    refusal = close_refusal(review(*settled), CloseRequest(by=by, reason="-", off=off))
    assert (refusal.rule if refusal is not None else None) == rule


def test_a_closed_review_is_not_closed_again() -> None:
    closed = Closed(by="dora", roles=(), reason="-", at=NOON)
    refusal = close_refusal(
        review().model_copy(update={"closed": closed}), CloseRequest(by="fay", reason="-", off=FORCED.lost)
    )
    assert refusal is not None and refusal.rule == "review_closed"


def test_the_suspension_ends_with_the_last_lost_node_and_keeps_its_end() -> None:
    later = NOON + timedelta(minutes=5)
    one = review().found({"node-1": "gave way", "node-2": "is not lost"}, later)
    assert one.suspension is not None
    assert (one.suspension.open, one.suspension.until) == (("node-3",), None)
    both = one.found(stated(CloseRequest(by="dora", reason="-", off=("node-3",))), later)
    assert both.suspension is not None and both.suspension.until == later
    again = both.found({"node-1": "gave way"}, later + timedelta(hours=1))
    assert again == both


def test_only_what_a_lost_node_says_itself_shows_that_it_gave_way() -> None:
    adoption = forced()
    newest = view("node-2", adoption.new, adoption)
    assert gave_way([view("node-1")], newest) == {}, "it has not heard of it"
    assert set(gave_way([view("node-1", adoption.new)], newest)) == {"node-1"}
    added = with_member(adoption.new, "node-1", "disk")
    assert set(gave_way([view("node-1", added)], view("node-2", added))) == {"node-1"}
    assert gave_way([view("node-1", added)], newest) == {}
