"""Leases without faults, each refusal, what a majority's promises allow, and changes of membership."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from qnwis.continuity.lease_messages import (
    Ask,
    Granted,
    LastGrant,
    LeaseTerms,
    Membership,
    Promised,
    PromiseRequest,
    Release,
)
from qnwis.continuity.leases import (
    ORDERED,
    Grantor,
    GrantorRecord,
    Holder,
    HolderRecord,
    answered,
    ask,
    confirmed_until,
    grant,
    lease_until,
    promise,
    release,
    released,
    restarted,
    seek,
    told,
    withdrawn,
)
from qnwis.continuity.membership import (
    Accepted,
    Adoption,
    Proposal,
    accept,
    adopt,
    agreed,
    membership_refusal,
    moved,
    propose,
    with_member,
    without_member,
)
from qnwis.continuity.orders import FencingEvidenceType
from qnwis.continuity.promises import (
    Gate,
    another_holds,
    lease_evidence,
    older_grant_refused,
    promises,
    promotion_gate,
    reacquire,
)
from qnwis.continuity.refusal import Refusal

TERMS = LeaseTerms(duration_s=3, renew_every_s=0.5, drift_margin=0.01, reserve_s=10)
LONG = LeaseTerms(duration_s=30, renew_every_s=0.5, drift_margin=0.01, reserve_s=10)
THREE = Membership(version=1, members=("a", "b", "w"))


class Agents:
    """Agents whose messages arrive at once, unless their receiver is down; one clock for all."""

    def __init__(self, names: Iterable[str] = THREE.members, membership: Membership = THREE) -> None:
        self.now_s = 0.0
        self.down: set[str] = set()
        self.sent = 0
        self.grantors = {n: Grantor(record=GrantorRecord(node_id=n, disk_id=f"{n}-disk-1")) for n in names}
        for name in membership.members:
            record = self.grantors[name].record.model_copy(update={"membership": membership})
            self.grantors[name] = Grantor(record=record)
        self.holders = {
            n: Holder(record=HolderRecord(node_id=n), membership=g.record.membership)
            for n, g in self.grantors.items()
        }

    def order(self, name: str, epoch: int, run_id: str) -> None:
        self.holders[name] = accepted(seek(self.holders[name], epoch, run_id, TERMS))

    def renew(self, name: str) -> dict[str, Granted | Refusal]:
        """One round of asks; what each member that is up answered."""
        self.sent += 1
        self.holders[name], asked = ask(self.holders[name], f"{name}-{self.sent}", TERMS, self.now_s)
        answers: dict[str, Granted | Refusal] = {}
        for member in self.holders[name].membership.members:
            if isinstance(asked, Ask) and member not in self.down:
                self.grantors[member], answer = grant(self.grantors[member], asked, TERMS, self.now_s)
                answers[member] = answer
                if isinstance(answer, Granted):
                    self.holders[name] = answered(self.holders[name], answer, TERMS, self.now_s)
        return answers

    def promise(self, request: PromiseRequest) -> list[Promised]:
        """The promises of the members that are up."""
        given = []
        for member in self.up():
            self.grantors[member], answer = promise(self.grantors[member], request, TERMS, self.now_s)
            if isinstance(answer, Promised):
                given.append(answer)
        return given

    def up(self) -> list[str]:
        return [name for name in self.grantors if name not in self.down]

    def serving(self) -> set[str]:
        ends = {name: lease_until(holder, TERMS) for name, holder in self.holders.items()}
        return {name for name, until_s in ends.items() if until_s is not None and self.now_s < until_s}

    def release(self, name: str, heard_by: Iterable[str]) -> Release:
        self.holders[name], said = release(self.holders[name], processes_left=0)
        assert isinstance(said, Release)
        for member in heard_by:
            self.grantors[member] = released(self.grantors[member], said)
        return said

    def hear(self, said: Release) -> None:
        """Every member that is up hears of it."""
        for member in self.up():
            self.grantors[member] = released(self.grantors[member], said)


def accepted(found: Holder | Refusal) -> Holder:
    assert isinstance(found, Holder), found
    return found


def request(
    epoch: int, run_id: str = "run-2", former_holder: str | None = None, version: int = 1
) -> PromiseRequest:
    return PromiseRequest(epoch=epoch, run_id=run_id, membership_version=version, former_holder=former_holder)


def rule(found: object) -> str:
    assert isinstance(found, Refusal), found
    return found.rule


@pytest.fixture
def agents() -> Agents:
    """`a` has just been granted epoch 1."""
    agents = Agents()
    agents.order("a", 1, "run-1")
    agents.renew("a")
    assert agents.serving() == {"a"}
    return agents


# --- what must go on, or come about ---


def test_a_healthy_holder_renews_for_ever_with_any_one_member_down(agents: Agents) -> None:
    for round_ in range(2000):
        agents.now_s += TERMS.renew_every_s
        agents.down = {("b", "w")[round_ // 7 % 2]}
        assert agents.serving() == {"a"}
        agents.renew("a")
    assert agents.holders["a"].record.epoch == 1
    assert len(agents.holders["a"].asks) < 10  # old ones are forgotten


def test_a_holder_without_a_majority_stops_before_its_grantors_are_free(agents: Agents) -> None:
    agents.down = {"b", "w"}
    agents.now_s = 2.9
    agents.renew("a")
    agents.now_s = 2.97  # 3 s less the margin of 1 %
    assert agents.serving() == set()
    assert agents.grantors["b"].granted_until_s == 3.0


def test_after_a_crash_the_target_gets_its_lease_when_the_grants_have_run_out(agents: Agents) -> None:
    agents.down = {"a"}
    agents.now_s = 1.0
    gate = promotion_gate(THREE, request(2), agents.promise(request(2)), target="b")
    assert gate == Gate(
        members=("b", "w"), holder="a", evidence=FencingEvidenceType.LEASE_EXPIRED, wait_s=2.0
    )
    agents.order("b", 2, "run-2")
    assert {rule(answer) for answer in agents.renew("b").values()} == {"bound_to_another"}
    agents.now_s += gate.wait_s
    agents.renew("b")
    assert agents.serving() == {"b"}
    assert agents.holders["b"].record.served_epoch == 2


def test_after_a_release_the_target_gets_its_lease_at_once(agents: Agents) -> None:
    agents.release("a", heard_by=("a", "b", "w"))
    gate = promotion_gate(THREE, request(2), agents.promise(request(2)), target="b")
    assert isinstance(gate, Gate)
    assert (gate.holder, gate.evidence, gate.wait_s) == ("a", FencingEvidenceType.RELEASED, 0.0)
    agents.order("b", 2, "run-2")
    agents.renew("b")
    assert agents.serving() == {"b"}


def test_a_release_that_one_member_heard_spares_the_wait_once_it_is_passed_on(agents: Agents) -> None:
    said = agents.release("a", heard_by=("a",))
    gate = promotion_gate(THREE, request(2), agents.promise(request(2)), target="b")
    assert isinstance(gate, Gate)
    assert (gate.evidence, gate.wait_s) == (FencingEvidenceType.RELEASED, 3.0)
    for member in ("b", "w"):
        agents.grantors[member] = released(agents.grantors[member], said)
    gate = promotion_gate(THREE, request(2), agents.promise(request(2)), target="b")
    assert isinstance(gate, Gate) and gate.wait_s == 0.0


def test_after_a_run_gave_up_the_old_primary_goes_on_without_a_gap(agents: Agents) -> None:
    agents.now_s = 0.5
    agents.promise(request(2))
    assert {rule(answer) for answer in agents.renew("a").values()} == {"epoch_gone"}
    mine = request(3, "a again", former_holder="a")
    assert agents.promise(mine) == []  # the run may still promote
    agents.grantors = {n: withdrawn(g, 2, "run-2") for n, g in agents.grantors.items()}
    agents.holders["a"] = accepted(reacquire(agents.holders["a"], mine, agents.promise(mine), TERMS))
    assert agents.serving() == {"a"}  # still under epoch 1
    agents.renew("a")
    agents.now_s = 3.0
    assert agents.serving() == {"a"}
    assert agents.holders["a"].record.served_epoch == 3


def test_after_a_run_vanished_the_old_primary_takes_the_lease_up_when_the_reserve_is_over(
    agents: Agents,
) -> None:
    agents.promise(request(2))
    mine = request(3, "a again", former_holder="a")
    agents.now_s = 9.9
    assert agents.promise(mine) == []
    agents.now_s = 10.0
    agents.holders["a"] = accepted(reacquire(agents.holders["a"], mine, agents.promise(mine), TERMS))
    agents.renew("a")
    assert agents.serving() == {"a"}


def test_a_primary_that_released_for_a_run_that_failed_takes_the_lease_up_again(agents: Agents) -> None:
    agents.promise(request(2))
    agents.release("a", heard_by=("a", "b", "w"))
    agents.grantors = {n: withdrawn(g, 2, "run-2") for n, g in agents.grantors.items()}
    mine = request(3, "a again", former_holder="a")
    agents.holders["a"] = accepted(reacquire(agents.holders["a"], mine, agents.promise(mine), TERMS))
    agents.renew("a")
    assert agents.serving() == {"a"}


def test_a_restarted_holder_asks_again_under_its_epoch(agents: Agents) -> None:
    agents.holders["a"] = Holder(record=agents.holders["a"].record, membership=THREE)
    assert agents.serving() == set()
    agents.renew("a")
    assert agents.serving() == {"a"}


def test_the_first_holder_of_a_new_cluster_needs_nobody_s_order() -> None:
    agents = Agents()
    mine = request(1, "a first", former_holder="a")
    agents.holders["a"] = accepted(reacquire(agents.holders["a"], mine, agents.promise(mine), TERMS))
    agents.renew("a")
    assert agents.serving() == {"a"}


# --- the grantor ---


def test_a_renewal_changes_no_record(agents: Agents) -> None:
    before = agents.grantors["b"]
    agents.now_s = 0.5
    agents.renew("a")
    assert agents.grantors["b"].record == before.record
    assert agents.grantors["b"] != before


def test_a_renewal_under_shorter_terms_shortens_nothing_that_its_holder_counts(agents: Agents) -> None:
    """Long terms gave a lease of 30 s; the grantor was told of shorter ones since, and restarts once more."""
    asked = Ask(ask_id="x", holder="a", epoch=1, run_id="run-1", membership_version=1)
    rival = asked.model_copy(update={"holder": "b", "epoch": 2, "run_id": "run-2"})
    state, _ = grant(agents.grantors["w"], asked, LONG, 0.0)
    assert state.record.granted == LastGrant(epoch=1, holder="a", duration_s=30.0)
    state, answer = grant(state, asked, TERMS, 1.0)
    assert isinstance(answer, Granted) and answer.duration_s == TERMS.duration_s
    assert state.granted_until_s == 30.0
    assert rule(grant(state, rival, TERMS, 29.9)[1]) == "bound_to_another"
    assert restarted(state.record, 20.0).granted_until_s == 50.0
    state, _ = grant(state, asked, TERMS, 27.0)  # reaches as far, so the shorter ones are enough from now on
    assert state.granted_until_s == 30.0
    assert state.record.granted == LastGrant(epoch=1, holder="a", duration_s=3.0)
    assert isinstance(grant(state, rival, TERMS, 30.0)[1], Granted)


def test_shorter_terms_shorten_nothing_under_the_same_holder_s_next_epoch(agents: Agents) -> None:
    asked = Ask(ask_id="x", holder="a", epoch=1, run_id="run-1", membership_version=1)
    state, _ = grant(agents.grantors["w"], asked, LONG, 0.0)
    state, _ = grant(state, asked.model_copy(update={"epoch": 2, "run_id": "run-2"}), TERMS, 1.0)
    assert state.granted_until_s == 30.0
    assert state.record.granted == LastGrant(epoch=2, holder="a", duration_s=30.0)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"membership_version": 2}, "other_membership"),
        ({"holder": "d"}, "not_a_member"),
        ({"epoch": 1}, "epoch_gone"),
        ({"run_id": "run-3"}, "epoch_gone"),
        ({}, "bound_to_another"),
    ],
)
def test_what_a_grantor_refuses_after_a_promise(agents: Agents, asked: dict[str, object], why: str) -> None:
    agents.promise(request(2))
    fields = {"ask_id": "x", "holder": "b", "epoch": 2, "run_id": "run-2", "membership_version": 1} | asked
    before = agents.grantors["w"]
    after, answer = grant(before, Ask.model_validate(fields), TERMS, 1.0)
    assert rule(answer) == why
    assert after == before


def test_an_epoch_granted_or_released_is_nobody_else_s(agents: Agents) -> None:
    other = Ask(ask_id="x", holder="b", epoch=1, run_id="run-1", membership_version=1)
    assert rule(grant(agents.grantors["w"], other, TERMS, 100.0)[1]) == "epoch_taken"
    agents.release("a", heard_by=("w",))
    again = other.model_copy(update={"holder": "a"})
    assert rule(grant(agents.grantors["w"], again, TERMS, 100.0)[1]) == "epoch_taken"


def test_who_is_no_member_takes_no_epoch_whatever_it_says_of_itself(agents: Agents) -> None:
    """As with the certificate of another cluster's node: the members' primary keeps its lease."""
    boast = request(99, "mine", former_holder="d").model_copy(update={"served_epoch": 10**6})
    assert another_holds(agents.grantors["w"].record, boast) is None, "this rule believes it"
    for name in THREE.members:
        before = agents.grantors[name]
        after, answer = promise(before, boast, TERMS, 0.0)
        assert (rule(answer), after) == ("not_a_member", before)
    agents.renew("a")
    assert confirmed_until(agents.holders["a"], TERMS) is not None


def test_who_is_removed_or_not_added_yet_is_granted_nothing_and_who_was_added_is(agents: Agents) -> None:
    agents.grantors["d"] = Grantor(record=GrantorRecord(node_id="d", disk_id="d-disk-1"))
    agents.holders["d"] = Holder(record=HolderRecord(node_id="d"), membership=FOUR)
    adoption = change(agents, "a", FOUR)
    asks = Ask(ask_id="x", holder="d", epoch=2, run_id="run-2", membership_version=1)
    assert rule(grant(agents.grantors["w"], asks, TERMS, 100.0)[1]) == "not_a_member"
    assert rule(grant(agents.grantors["d"], asks, TERMS, 100.0)[1]) == "other_membership"
    assert adoption is not None
    follow(agents, adoption)
    asks = asks.model_copy(update={"membership_version": 2})
    assert isinstance(grant(agents.grantors["w"], asks, TERMS, 100.0)[1], Granted)
    agents.renew("a")
    removal = change(agents, "a", without_member(FOUR, "d"))
    assert removal is not None
    follow(agents, removal)
    asks = asks.model_copy(update={"membership_version": 3})
    assert rule(grant(agents.grantors["w"], asks, TERMS, 100.0)[1]) == "not_a_member"


def test_a_promise_is_repeated_to_the_same_run_and_refused_to_another(agents: Agents) -> None:
    assert len(agents.promise(request(2))) == 3
    assert agents.promise(request(2, "run-3")) == []
    assert agents.promise(request(1, "run-1", version=2)) == []
    agents.now_s = 1.0
    assert {answer.remaining_s for answer in agents.promise(request(2))} == {2.0}
    assert len(agents.promise(request(3, "run-3"))) == 3


def test_an_epoch_that_only_an_order_told_of_is_open_to_whichever_run_it_was_made_for(agents: Agents) -> None:
    """A person's rejoin under the primary's epoch reaches a member before the primary's next ask does."""
    agents.grantors["w"] = told(agents.grantors["w"], 2, TERMS, 0.0)
    state = agents.grantors["w"]
    assert rule(promise(state, request(1, "run-1"), TERMS, 0.0)[1]) == "epoch_gone"
    mine = Ask(ask_id="x", holder="a", epoch=2, run_id="run-2", membership_version=1)
    bound, answer = grant(state, mine, TERMS, 0.0)
    assert isinstance(answer, Granted)
    assert rule(promise(bound, request(2, "run-3"), TERMS, 0.0)[1]) == "epoch_gone"
    assert told(bound, 2, TERMS, 1.0) == bound


def test_who_held_the_lease_waits_where_an_order_told_of_a_newer_epoch(agents: Agents) -> None:
    state = told(agents.grantors["w"], 2, TERMS, 0.0)
    back = request(3, "a's own").model_copy(update={"former_holder": "a"})
    assert rule(promise(state, back, TERMS, TERMS.reserve_s - 0.1)[1]) == "reserved"
    assert isinstance(promise(state, back, TERMS, TERMS.reserve_s)[1], Promised)


def test_a_rival_s_withdrawal_changes_nothing(agents: Agents) -> None:
    agents.promise(request(2))
    state = agents.grantors["w"]
    assert withdrawn(state, 2, "run-3") == state
    assert withdrawn(state, 1, "run-2") == state


def test_a_release_is_heeded_for_its_holder_and_for_epochs_up_to_its_own(agents: Agents) -> None:
    state = agents.grantors["w"]
    assert released(state, Release(holder="b", epoch=5)) == state
    assert released(state, Release(holder="a", epoch=0)) == state
    later = released(state, Release(holder="a", epoch=2))
    assert later.granted_until_s is None
    assert later.record.granted == LastGrant(epoch=1, holder="a", duration_s=3.0, released=True)


@pytest.fixture
def lost(agents: Agents) -> Agents:
    """`a` released epoch 1 for a run that ordered `b` to epoch 2; that got the lease, and released it."""
    agents.release("a", heard_by=agents.up())
    agents.promise(request(2))
    agents.order("b", 2, "run-2")
    agents.renew("b")
    assert agents.serving() == {"b"}
    agents.release("b", heard_by=agents.up())
    agents.grantors = {n: withdrawn(g, 2, "run-2") for n, g in agents.grantors.items()}
    return agents


NOTHING_CAME = Release(holder="b", epoch=2, never_primary=True)
AGAIN = request(3, "a again", former_holder="a").model_copy(update={"served_epoch": 1})


def test_after_a_promotion_that_was_lost_the_old_primary_takes_its_lease_up_again(lost: Agents) -> None:
    for grantor in lost.grantors.values():
        assert rule(another_holds(grantor.record, AGAIN)) == "another_held_since"
    lost.hear(NOTHING_CAME)
    lost.hear(NOTHING_CAME)  # as often as it is told
    for grantor in lost.grantors.values():
        assert another_holds(grantor.record, AGAIN) is None
    lost.holders["a"] = accepted(reacquire(lost.holders["a"], AGAIN, lost.promise(AGAIN), TERMS))
    lost.renew("a")
    assert lost.serving() == {"a"}


@pytest.mark.parametrize("target", ["b", "w"])
def test_after_a_promotion_that_was_lost_the_evidence_is_of_the_old_primary(
    lost: Agents, target: str
) -> None:
    at = datetime(2025, 1, 1, tzinfo=UTC)
    gate = promotion_gate(THREE, request(3), lost.promise(request(3)), target)
    assert isinstance(gate, Gate)
    assert lease_evidence(gate, "a", epoch=3, at=at) is None
    lost.hear(NOTHING_CAME)
    gate = promotion_gate(THREE, request(3), lost.promise(request(3)), target)
    assert isinstance(gate, Gate)
    evidence = lease_evidence(gate, "a", epoch=3, at=at)
    assert evidence is not None
    assert (evidence.type, evidence.holder) == (FencingEvidenceType.RELEASED, "a")
    assert lease_evidence(gate, "b", epoch=3, at=at) is None


def test_the_epoch_of_a_promotion_that_was_lost_stays_taken(lost: Agents) -> None:
    lost.hear(NOTHING_CAME)
    for name in ("b", "w"):
        late = Ask(ask_id="late", holder=name, epoch=2, run_id="run-2", membership_version=1)
        state, answer = grant(lost.grantors["w"], late, TERMS, lost.now_s)
        assert rule(answer) == "epoch_taken" and state == lost.grantors["w"]


def test_a_lost_promotion_after_another_one_leaves_the_primary_of_before_both(lost: Agents) -> None:
    lost.hear(NOTHING_CAME)
    lost.order("w", 3, "run-3")
    lost.renew("w")
    assert lost.serving() == {"w"}
    lost.release("w", heard_by=lost.up())
    lost.hear(Release(holder="w", epoch=3, never_primary=True))
    assert {g.record.granted for g in lost.grantors.values()} == {to("a", 1, released=True)}


def test_that_nothing_came_of_one_epoch_says_nothing_of_another(agents: Agents) -> None:
    agents.order("b", 2, "run-2")
    agents.now_s = 3.0
    agents.renew("b")
    for epoch in (1, 3):
        agents.hear(Release(holder="b", epoch=epoch, never_primary=True))
        assert {g.record.granted and g.record.granted.holder for g in agents.grantors.values()} == {"b"}
    agents.hear(Release(holder="w", epoch=2, never_primary=True))
    assert agents.grantors["w"].record.granted == to("b", 2, released=True)


def test_who_was_granted_before_and_was_forgotten_is_not_taken_for_nobody(lost: Agents) -> None:
    """An agent of an earlier version wrote that down."""
    record = lost.grantors["w"].record.model_copy(update={"before": None})
    assert released(Grantor(record=record), NOTHING_CAME).record.granted == to("b", 2, released=True)


def test_a_restart_binds_for_the_whole_of_the_last_grant_and_not_after_a_release(agents: Agents) -> None:
    record = agents.grantors["w"].record
    assert restarted(record, 50.0).granted_until_s == 53.0
    agents.release("a", heard_by=("w",))
    assert restarted(agents.grantors["w"].record, 50.0).granted_until_s is None
    assert restarted(GrantorRecord(node_id="w"), 50.0).granted_until_s is None


def test_a_record_survives_its_file(agents: Agents) -> None:
    agents.promise(request(2))
    for record in (agents.grantors["a"].record, agents.holders["a"].record):
        assert type(record).model_validate_json(record.model_dump_json()) == record


# --- the holder ---


def test_a_late_an_old_or_a_strange_answer_does_not_count(agents: Agents) -> None:
    holder, asked = ask(agents.holders["b"], "none", TERMS, 0.0)
    assert rule(asked) == "no_epoch"
    holder = accepted(seek(holder, 2, "run-2", TERMS))
    holder, asked = ask(holder, "b-1", TERMS, 5.0)
    assert isinstance(asked, Ask)
    good = Granted(ask_id="b-1", member="w", holder="b", epoch=2, duration_s=3.0)
    assert answered(holder, good, TERMS, 5.1).counted != ()
    assert answered(holder, good, TERMS, 7.97) == holder
    for wrong in ({"ask_id": "b-0"}, {"member": "stranger"}, {"duration_s": 2.0}):
        assert answered(holder, good.model_copy(update=wrong), TERMS, 5.1) == holder
    assert answered(accepted(seek(holder, 3, "run-3", TERMS)), good, TERMS, 5.1).counted == ()


@given(
    st.dictionaries(st.sampled_from("abcde"), st.floats(0, 100), max_size=5),
    st.integers(1, 5),
)
def test_the_lease_lasts_as_long_as_a_majority_is_bound(asked: dict[str, float], size: int) -> None:
    members = tuple("abcde"[:size])
    holder = accepted(
        seek(
            Holder(record=HolderRecord(node_id="a"), membership=Membership(version=1, members=members)),
            1,
            "run-1",
            TERMS,
        )
    )
    for member, at_s in asked.items():
        holder, _ = ask(holder, member, TERMS, at_s)
        answer = Granted(ask_id=member, member=member, holder="a", epoch=1, duration_s=3.0)
        holder = answered(holder, answer, TERMS, at_s)
    until_s = lease_until(holder, TERMS)
    bound = [at_s + TERMS.held_s for member, at_s in asked.items() if member in members]
    if 2 * len(bound) <= size:
        assert until_s is None
    else:
        assert until_s is not None
        assert 2 * sum(end_s >= until_s for end_s in bound) > size
        assert 2 * sum(end_s > until_s for end_s in bound) <= size


def test_a_holder_never_goes_back_to_an_epoch(agents: Agents) -> None:
    agents.order("a", 4, "run-4")
    assert rule(seek(agents.holders["a"], 3, "run-3", TERMS)) == "epoch_gone"
    assert rule(seek(agents.holders["a"], 4, "run-3", TERMS)) == "epoch_gone"
    assert seek(agents.holders["a"], 4, "run-4", TERMS) == agents.holders["a"]
    agents.release("a", heard_by=())
    assert rule(seek(agents.holders["a"], 4, "run-4", TERMS)) == "epoch_gone"


def test_nothing_is_released_while_a_process_is_left(agents: Agents) -> None:
    state, answer = release(agents.holders["a"], processes_left=1)
    assert rule(answer) == "database_still_runs"
    assert state == agents.holders["a"]


def test_after_a_release_no_earlier_answer_counts_any_more(agents: Agents) -> None:
    holder, _ = ask(agents.holders["a"], "late", TERMS, 0.0)
    holder, said = release(holder, processes_left=0)
    assert said == Release(holder="a", epoch=1)
    late = Granted(ask_id="late", member="b", holder="a", epoch=1, duration_s=3.0)
    assert answered(holder, late, TERMS, 0.1) == holder
    assert lease_until(holder, TERMS) is None
    assert rule(ask(holder, "again", TERMS, 0.1)[1]) == "no_epoch"


# --- what a majority's promises allow ---


def promised(
    member: str, granted: LastGrant | None = None, remaining_s: float = 0.0, epoch: int = 9
) -> Promised:
    return Promised(
        member=member,
        epoch=epoch,
        run_id="run-2",
        membership_version=1,
        granted=granted,
        remaining_s=remaining_s,
    )


def to(holder: str, epoch: int, released: bool = False) -> LastGrant:
    return LastGrant(epoch=epoch, holder=holder, duration_s=3.0, released=released)


def test_answers_to_another_request_are_no_promises() -> None:
    answers = [promised("a"), promised("a"), promised("b", epoch=8), promised("stranger")]
    found = promises(THREE, request(9), answers)
    assert isinstance(found, Refusal)
    assert (found.rule, found.values["missing"]) == ("promises_missing", ["b", "w"])
    newer = THREE.model_copy(update={"version": 2})
    assert rule(promises(newer, request(9), [promised("a"), promised("b")])) == "promises_missing"
    assert rule(promotion_gate(THREE, request(9), answers, target="b")) == "promises_missing"


def test_the_gate_opens_when_a_majority_is_free_for_the_target() -> None:
    answers = [promised("a", to("a", 1), 2.5), promised("b", to("a", 1), 0.5), promised("w", to("b", 2), 1.5)]
    gate = promotion_gate(THREE, request(9), answers, target="b")
    assert isinstance(gate, Gate)
    assert (gate.holder, gate.evidence, gate.wait_s) == ("a", FencingEvidenceType.LEASE_EXPIRED, 0.5)
    gate = promotion_gate(THREE, request(9), answers, target="w")
    assert isinstance(gate, Gate)
    assert (gate.holder, gate.wait_s) == ("b", 1.5)


def test_the_release_that_counts_is_of_the_newest_grant() -> None:
    answers = [promised("a", to("a", 1, released=True)), promised("b", to("a", 3), 1.0)]
    gate = promotion_gate(THREE, request(9), answers, target="w")
    assert isinstance(gate, Gate) and gate.evidence is FencingEvidenceType.LEASE_EXPIRED
    answers = [promised("a", to("a", 3, released=True)), promised("b", to("a", 3), 1.0)]
    gate = promotion_gate(THREE, request(9), answers, target="w")
    assert isinstance(gate, Gate) and gate.evidence is FencingEvidenceType.RELEASED


def test_a_cluster_that_was_never_held_has_nobody_to_fence() -> None:
    gate = promotion_gate(THREE, request(9), [promised("a"), promised("w")], target="a")
    assert gate == Gate(members=("a", "w"), holder=None, evidence=None, wait_s=0.0)


def test_a_former_holder_stays_back_when_another_was_granted_since(agents: Agents) -> None:
    agents.order("b", 2, "run-2")
    agents.now_s = 3.0
    agents.renew("b")
    mine = request(3, "a again", former_holder="a")
    assert rule(reacquire(agents.holders["a"], mine, agents.promise(mine), TERMS)) == "another_held_since"
    assert rule(reacquire(agents.holders["a"], mine, [], TERMS)) == "promises_missing"


def test_who_was_primary_last_is_promised_by_one_that_was_primary_before(agents: Agents) -> None:
    """`b` was promoted by `b` and `w`; `a`, away since, has its own grant as the last."""
    agents.down = {"a"}
    agents.order("b", 2, "run-2")
    agents.now_s = 3.0
    agents.renew("b")
    agents.release("b", heard_by=("b", "w"))
    agents.down, agents.now_s = {"w"}, 6.0
    silent = request(3, "b again", former_holder="b")
    said = silent.model_copy(update={"served_epoch": agents.holders["b"].record.served_epoch})
    refusal = another_holds(agents.grantors["a"].record, silent)
    assert rule(refusal) == "another_held_since"
    assert older_grant_refused(refusal, 2) and not older_grant_refused(refusal, 0)
    assert not older_grant_refused(agents.promise(said)[0], 2)
    assert another_holds(agents.grantors["a"].record, said) is None
    before = request(3, "a again", former_holder="a").model_copy(update={"served_epoch": 1})
    assert rule(another_holds(agents.grantors["b"].record, before)) == "another_held_since"
    agents.holders["b"] = accepted(reacquire(agents.holders["b"], said, agents.promise(said), TERMS))
    agents.renew("b")
    assert agents.serving() == {"b"}


@pytest.mark.parametrize("served_epoch", [ORDERED, 0])
def test_who_was_ordered_on_or_passed_it_on_is_promised_nothing_that_another_was_granted(
    agents: Agents, served_epoch: int
) -> None:
    mine = request(2, "b", former_holder="b").model_copy(update={"served_epoch": served_epoch})
    assert rule(another_holds(agents.grantors["w"].record, mine)) == "another_held_since"


def test_a_former_holder_that_a_run_ordered_on_waits_for_a_run(agents: Agents) -> None:
    agents.order("b", 2, "run-2")
    agents.now_s = 3.0
    agents.renew("b")
    agents.order("a", 3, "run-3")  # with older data, on a person's word
    assert agents.holders["a"].record.served_epoch == ORDERED
    mine = request(4, "a again", former_holder="a")
    promised = agents.promise(mine)
    assert rule(reacquire(agents.holders["a"], mine, promised, TERMS)) == "another_held_since"
    forgotten = [answer.model_copy(update={"granted": None}) for answer in promised]
    assert rule(reacquire(agents.holders["a"], mine, forgotten, TERMS)) == "ordered_by_a_run"


# --- membership ---

FOUR = with_member(THREE, "d", "d-disk-1")


def change(agents: Agents, name: str, wanted: Membership) -> Adoption | None:
    """The holder proposes, whoever is up accepts; the change once agreed."""
    agents.holders[name], proposal = propose(agents.holders[name], wanted, TERMS, agents.now_s)
    assert isinstance(proposal, Proposal), proposal
    answers = []
    for member in agents.up():
        agents.grantors[member], answer = accept(agents.grantors[member], proposal)
        if isinstance(answer, Accepted):
            answers.append(answer)
    return agreed(agents.holders[name].membership, proposal, answers)


def follow(agents: Agents, adoption: Adoption) -> None:
    for member in agents.up():
        agents.grantors[member] = adopt(agents.grantors[member], adoption)
        known = agents.grantors[member].record.membership
        if known != agents.holders[member].membership:
            agents.holders[member] = moved(agents.holders[member], known, TERMS)


def test_a_change_adds_one_node_or_removes_one() -> None:
    assert membership_refusal(THREE, FOUR) is None
    assert membership_refusal(FOUR, without_member(FOUR, "d")) is None
    assert without_member(FOUR, "d").disks == ()


@pytest.mark.parametrize(
    "new",
    [
        THREE,
        THREE.model_copy(update={"version": 2}),
        without_member(THREE, "w").model_copy(update={"version": 3}),
        with_member(FOUR, "e", "e-disk-1").model_copy(update={"version": 2}),
        with_member(without_member(THREE, "w"), "d", "d-disk-1").model_copy(update={"version": 2}),
        FOUR.model_copy(update={"disks": ()}),
        FOUR.model_copy(update={"members": (*FOUR.members, "d")}),
        with_member(THREE, "w", "w-disk-2"),
    ],
)
def test_nothing_else_is_a_change(new: Membership) -> None:
    assert rule(membership_refusal(THREE, new)) == "not_one_change"


def test_a_node_that_lost_its_disk_becomes_a_member_only_when_it_is_added_again() -> None:
    without_w = Adoption(old=THREE, new=without_member(THREE, "w"), acceptors=("a", "b"))
    again = with_member(without_w.new, "w", "w-disk-2")
    added = Adoption(old=without_w.new, new=again, acceptors=("a", "b"))
    blank = Grantor(record=GrantorRecord(node_id="w", disk_id="w-disk-2"))
    assert adopt(blank, without_w) == blank
    assert adopt(blank, added).record.membership == again
    newer = Grantor(record=GrantorRecord(node_id="w", disk_id="w-disk-3"))
    assert adopt(newer, added) == newer
    older = Grantor(record=GrantorRecord(node_id="w", disk_id="w-disk-1", membership=THREE))
    assert adopt(older, added) == older


def test_the_last_member_stays() -> None:
    alone = Membership(version=1, members=("a",))
    assert rule(membership_refusal(alone, Membership(version=2))) == "not_one_change"


def test_a_node_is_added_while_the_holder_serves_on() -> None:
    agents = Agents(names="abwd")
    agents.order("a", 1, "run-1")
    agents.renew("a")
    agents.down = {"b"}
    adoption = change(agents, "a", FOUR)
    assert adoption is not None and adoption.acceptors == ("a", "w")
    follow(agents, adoption)
    assert agents.serving() == {"a"}
    assert confirmed_until(agents.holders["a"], TERMS) is None
    assert rule(propose(agents.holders["a"], THREE, TERMS, 0.0)[1]) == "lease_not_confirmed"
    assert set(agents.renew("a")) == {"a", "w", "d"}
    assert confirmed_until(agents.holders["a"], TERMS) is not None
    agents.down = set()
    assert rule(agents.renew("a")["b"]) == "other_membership"
    follow(agents, adoption)
    assert isinstance(agents.renew("a")["b"], Granted)


def test_a_minority_agrees_nothing(agents: Agents) -> None:
    agents.down = {"b", "w"}
    assert change(agents, "a", FOUR) is None
    forged = Adoption(old=THREE, new=FOUR, acceptors=("a", "stranger"))
    assert adopt(agents.grantors["b"], forged) == agents.grantors["b"]


def test_an_unfinished_change_is_finished_by_the_next_holder(agents: Agents) -> None:
    agents.down = {"b"}
    assert change(agents, "a", FOUR) is not None  # agreed, but nobody heard of it
    agents.down = {"a"}
    agents.now_s = 3.0
    agents.order("b", 2, "run-2")
    agents.renew("b")
    adoption = change(agents, "b", Membership(version=2, members=("a", "b")))
    assert adoption is not None and adoption.new == FOUR


def test_a_holder_proposes_one_change_under_one_epoch(agents: Agents) -> None:
    agents.down = {"b", "w"}
    assert change(agents, "a", FOUR) is None
    agents.holders["a"], proposal = propose(
        agents.holders["a"], Membership(version=2, members=("a", "b")), TERMS, 0.0
    )
    assert isinstance(proposal, Proposal) and proposal.membership == FOUR
    agents.order("a", 5, "run-5")
    assert agents.holders["a"].record.proposed is None


def test_a_change_is_accepted_from_the_holder_of_the_newest_epoch_alone(agents: Agents) -> None:
    proposal = Proposal(holder="a", epoch=1, membership=FOUR)
    stranger = proposal.model_copy(update={"holder": "b"})
    assert rule(accept(agents.grantors["w"], stranger)[1]) == "not_the_holder"
    agents.promise(request(2))
    assert rule(accept(agents.grantors["w"], proposal)[1]) == "not_the_holder"


# --- the settings ---


def test_the_renewal_is_faster_than_the_lease() -> None:
    with pytest.raises(ValidationError, match="expected renew_every_s"):
        LeaseTerms(duration_s=1, renew_every_s=1)
    assert LeaseTerms().held_s == pytest.approx(2.97)


@given(st.integers(1, 9))
def test_two_majorities_share_a_member(size: int) -> None:
    majority = Membership(version=1, members=tuple(f"n{i}" for i in range(size))).majority
    assert 2 * majority > size >= majority
