"""The model checker over the real core, and over the core with each of its guards taken away.

`QNWIS_LEASES_MODEL=large` searches larger worlds as well, minutes each; `pytest -s` prints how many states a
search visited, and the counter-example of each mutant.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import pytest

from qnwis.continuity import leases, membership, promises
from qnwis.continuity.lease_messages import (
    Granted,
    LeaseTerms,
    Membership,
    Promised,
    PromiseRequest,
    Release,
)
from qnwis.continuity.leases import Grantor, GrantorRecord, Holder
from qnwis.continuity.membership import Adoption, Forced
from qnwis.continuity.refusal import Refusal
from tests.unit.continuity import leases_model
from tests.unit.continuity.leases_model import DRIFTING, World, explore

SHORT = LeaseTerms(duration_s=1, renew_every_s=0.5, drift_margin=0, reserve_s=0)
"""One tick: the fewest states, for what does not hang on leases that overlap."""
FIVE = Membership(version=1, members=("a", "b", "c", "d", "e"))


def members(version: int, names: str, **disks: str) -> Membership:
    return Membership(version=version, members=tuple(names), disks=tuple(disks.items()))


A_TO_B = World(asks={"a": 1, "b": 1}, orders=(("b", 2, "r"),))
"""The old primary renews once more; a run orders another node."""
A_RELEASES = replace(A_TO_B, releasing=frozenset("a"))
A_IS_SLOW = replace(A_TO_B, terms=DRIFTING, slow=frozenset("a"))
A_RETURNS = replace(A_TO_B, returns=(("a", 3),))
RIVALS = World(asks={"a": 1, "b": 1, "c": 1}, orders=(("b", 2, "r"), ("c", 2, "r")), alike=("b", "c"))
"""One epoch for two targets, as a run that lies might say."""
RIVAL_RUNS = replace(RIVALS, orders=(("b", 2, "r"), ("c", 2, "r"), ("c", 3, "s")), alike=())
TWO_CHANGES_AT_ONCE = World(
    asks={"b": 1}, orders=(("b", 2, "r"),), changes=(members(2, "ab"), members(2, "bc")), terms=SHORT
)
C_IS_BEHIND = World(
    membership=members(2, "ab"),
    behind={"c": members(1, "abc")},
    asks={"a": 1, "c": 1},
    orders=(("c", 2, "r"),),
    changes=(members(3, "a"),),
    terms=SHORT,
)
GIVEN_UP = Adoption(
    old=members(1, "abc"),
    new=members(1_001_000, "c"),
    acceptors=(),
    forced=Forced(run_id="r", lost=("a", "b"), reason="gone"),
)
B_MISSED_TWO = World(
    nodes=FIVE.members,
    membership=members(3, "abcde", d="", e=""),
    behind={"b": members(1, "abc")},
    renewed_ago={"b": 1, "c": 1},
    asks={"b": 1},
    orders=(("b", 2, "r"),),
)
"""Two nodes were added, unheard of by a member of then and now."""
A_STRANGER_ASKS = World(nodes=("a", "b", "c", "d"), asks={"a": 1, "d": 1}, orders=(("d", 2, "r"),))
A_STRANGER_RETURNS = replace(A_STRANGER_ASKS, orders=(), returns=(("d", 2),), terms=SHORT)
C_GOES_ON_ALONE = World(adoptions=(GIVEN_UP,), asks={"c": 2}, orders=(("c", 1000, "r"),), restarts=1)
"""An emergency override gives a and b up, and they do nothing any more; a still has its lease."""
C_LOSES_ITS_DISK = replace(A_TO_B, losing={"c": 1})
C_IS_ADDED_AGAIN = replace(C_IS_BEHIND, losing={"c": 2}, changes=(members(3, "abc", c="+"),))
TWO_CHANGES_IN_TURN = World(
    renewed_ago={"b": 1}, asks={"b": 1}, orders=(("b", 2, "r"),), changes=(members(2, "bc"), members(3, "b"))
)
B_IS_LOST = replace(
    A_RETURNS,
    renewed_ago=dict.fromkeys("abc", 1),
    releasing=frozenset("b"),
    lost=frozenset({("b", 2)}),
    terms=SHORT,
)
"""The promotion of b comes to nothing; the lease of a has run out."""
B_IS_LOST_TO_C = replace(
    RIVALS, asks={"b": 1, "c": 1}, releasing=frozenset("b"), lost=frozenset({("b", 2)}), alike=(), terms=SHORT
)
A_IS_LOST = replace(
    B_IS_LOST,
    before="b",
    orders=(("a", 2, "r"),),
    returns=(("b", 3),),
    releasing=frozenset("a"),
    lost=frozenset({("a", 2)}),
)
"""The primary under epoch 1 is ordered to the next, and nothing comes of that."""
C_IS_LOST_AFTER_B = replace(
    B_IS_LOST,
    asks={"a": 1, "b": 1, "c": 1},
    orders=(("b", 2, "r"), ("c", 3, "s")),
    returns=(("a", 4),),
    releasing=frozenset("c"),
    lost=frozenset({("c", 3)}),
)

WORLDS = {
    "two restarts, a release": replace(A_RELEASES, restarts=2),
    "rival targets, a restart": replace(RIVALS, asks={"b": 1, "c": 1}, restarts=1, releasing=frozenset("a")),
    "rival runs": replace(RIVAL_RUNS, asks={"b": 1, "c": 1}),
    "rival targets, and orders that bring the epoch first": replace(
        RIVALS, asks={"b": 1, "c": 1}, tells=(2,), restarts=1
    ),
    "orders that bring an epoch, and rival runs that are promised it": replace(
        A_RETURNS, tells=(2,), promises=((2, "r"), (2, "s")), terms=SHORT
    ),
    "the old primary comes back by itself": replace(A_RETURNS, promises=((2, "r"),), terms=SHORT),
    "the old primary is ordered back": replace(A_RELEASES, orders=(("b", 2, "r"), ("a", 3, "s"))),
    "a promotion is lost, and the old primary comes back by itself": B_IS_LOST,
    "a promotion is lost of one that was primary before": A_IS_LOST,
    "a promotion is lost under an epoch that a rival target wants": replace(B_IS_LOST_TO_C, restarts=1),
    "the old primary's clock is slow": A_IS_SLOW,
    "two changes of membership at once": TWO_CHANGES_AT_ONCE,
    "a change of membership unheard of": C_IS_BEHIND,
    "two additions unheard of": B_MISSED_TWO,
    "a stranger asks for the lease, and orders bring its epoch": replace(A_STRANGER_ASKS, tells=(2,)),
    "a stranger would take the lease up again": A_STRANGER_RETURNS,
    "a disk is lost": C_LOSES_ITS_DISK,
    "a removed node that lost its disk is added again": C_IS_ADDED_AGAIN,
    "nodes are given up that are gone": C_GOES_ON_ALONE,
    "five members": replace(A_TO_B, nodes=FIVE.members, membership=FIVE, alike=("c", "d", "e"), terms=SHORT),
}
LARGE_WORLDS = {
    "rival runs, a restart, releases": replace(RIVAL_RUNS, restarts=1, releasing=frozenset("ab")),
    "rival targets, two restarts, a release": replace(RIVALS, restarts=2, releasing=frozenset("a")),
    "rival targets that ask twice": replace(RIVALS, asks={"a": 2, "b": 2, "c": 2}),
    "the old primary releases and comes back by itself": replace(
        A_RETURNS, releasing=frozenset("a"), promises=((2, "r"),), terms=SHORT
    ),
    "the old primary comes back, a restart": replace(A_RETURNS, promises=((2, "r"),), restarts=1),
    "all clocks are slow at times": replace(A_IS_SLOW, slow=frozenset("abc")),
    "a promotion is lost after another": C_IS_LOST_AFTER_B,
    "a promotion is lost, and another one is not": replace(
        C_IS_LOST_AFTER_B, releasing=frozenset("b"), lost=frozenset({("b", 2)})
    ),
    "rivals with a slow clock": replace(RIVALS, terms=DRIFTING, slow=frozenset("a")),
    "two changes of membership in turn": TWO_CHANGES_IN_TURN,
    "a member is added": replace(A_TO_B, nodes=("a", "b", "c", "d"), changes=(members(2, "abcd", d=""),)),
    "five members, a release": replace(
        A_RELEASES, nodes=FIVE.members, membership=FIVE, alike=("c", "d", "e"), restarts=1
    ),
}
LARGE_LIMIT = 5_000_000
"""States; some gigabytes."""


@pytest.mark.parametrize("name", WORLDS)
def test_nothing_reachable_violates_the_invariant(name: str) -> None:
    found = explore(WORLDS[name])
    print(f"\n{name}: {found}")
    assert not found.violation, str(found)
    assert found.exhausted


if os.environ.get("QNWIS_LEASES_MODEL") == "large":

    @pytest.mark.timeout(1800)
    @pytest.mark.parametrize("name", LARGE_WORLDS)
    def test_nothing_reachable_in_a_large_world_violates_the_invariant(name: str) -> None:
        found = explore(LARGE_WORLDS[name], limit=LARGE_LIMIT)
        print(f"\n{name}: {found}")
        assert not found.violation, str(found)


def test_where_nodes_that_were_given_up_live_two_may_serve() -> None:
    """What "guarantee suspended" means: the one assumption of a forced membership, taken away."""
    found = explore(replace(C_GOES_ON_ALONE, asks={"a": 2, "c": 1}, restarts=0))
    print(f"\n{found}")
    assert found.violation == "a and c may acknowledge writes"


# --- the core without one of its guards ---


def still_a_member(lost: GrantorRecord) -> Grantor:
    record = GrantorRecord(node_id=lost.node_id, disk_id=lost.disk_id + "+", membership=lost.membership)
    return Grantor(record=record)


def nothing_to_refuse(*_: object) -> None:
    return None


def forgets_its_grant(record: GrantorRecord, now_s: float) -> Grantor:
    return Grantor(record=record)


real_answered, real_release, real_released = leases.answered, leases.release, leases.released
real_promise, real_seek = leases.promise, leases.seek


def counts_for_the_newest_ask(state: Holder, answer: Granted, terms: LeaseTerms, now_s: float) -> Holder:
    if state.asks:
        answer = answer.model_copy(update={"ask_id": state.asks[-1].ask_id})
    return real_answered(state, answer, terms, now_s)


def counts_from_the_answer(state: Holder, answer: Granted, terms: LeaseTerms, now_s: float) -> Holder:
    asks = tuple(
        sent.model_copy(update={"asked_at_s": now_s}) if sent.ask_id == answer.ask_id else sent
        for sent in state.asks
    )
    counted = real_answered(state.model_copy(update={"asks": asks}), answer, terms, now_s)
    return counted.model_copy(update={"asks": state.asks})


def releases_and_serves_on(state: Holder, processes_left: int) -> tuple[Holder, Release | Refusal]:
    return state, real_release(state, processes_left)[1]


def releases_and_asks_again(state: Holder, processes_left: int) -> tuple[Holder, Release | Refusal]:
    after, said = real_release(state, processes_left)
    return after.model_copy(update={"record": state.record}), said


def heeds_old_releases(state: Grantor, release: Release) -> Grantor:
    return real_released(state, release.model_copy(update={"epoch": 99}))


def takes_a_lost_epoch_for_all_below(state: Grantor, release: Release) -> Grantor:
    granted = state.record.granted
    if granted is not None and release.never_primary and granted.epoch < release.epoch:
        release = release.model_copy(update={"epoch": granted.epoch})
    return real_released(state, release)


def forgets_who_was_before(state: Grantor, release: Release) -> Grantor:
    after = real_released(state, release)
    if after.record.void == state.record.void:
        return after
    return after.model_copy(update={"record": after.record.model_copy(update={"granted": None})})


def forgets_the_lost_epoch(state: Grantor, release: Release) -> Grantor:
    after = real_released(state, release)
    return after.model_copy(update={"record": after.record.model_copy(update={"void": None})})


def promises_and_forgets(
    state: Grantor, request: PromiseRequest, terms: LeaseTerms, now_s: float
) -> tuple[Grantor, Promised | Refusal]:
    return state, real_promise(state, request, terms, now_s)[1]


def comes_back_regardless(
    state: Holder, request: PromiseRequest, answers: tuple[Promised, ...], terms: LeaseTerms
) -> Holder | Refusal:
    promised = promises.promises(state.membership, request, answers)
    if isinstance(promised, Refusal):
        return promised
    return real_seek(state, request.epoch, request.run_id, terms)


def takes_grants_along(state: Holder, epoch: int, run_id: str, terms: LeaseTerms) -> Holder | Refusal:
    sought = real_seek(state, epoch, run_id, terms)
    return sought.model_copy(update={"counted": state.counted}) if isinstance(sought, Holder) else sought


def own_change_only(state: Holder) -> Membership | None:
    own = state.record.proposed
    return own if own is not None and own.version > state.membership.version else None


def others_change_only(state: Holder) -> Membership | None:
    return state.pending.membership if state.pending is not None else None


@dataclass(frozen=True)
class Mutant:
    world: World
    where: object
    what: str
    instead: object


MUTANTS = {
    "no wait for another holder's grant": Mutant(A_TO_B, leases, "_bound_to_another", nothing_to_refuse),
    "a restarted grantor forgets its grant": Mutant(
        replace(A_TO_B, restarts=1), leases, "restarted", forgets_its_grant
    ),
    "a member that lost its disk takes part": Mutant(
        C_LOSES_ITS_DISK, leases_model, "blank_agent", still_a_member
    ),
    "a late word of a membership makes a blank agent a member": Mutant(
        C_IS_ADDED_AGAIN, membership, "_means_this_disk", lambda record, new: True
    ),
    "released, and served on": Mutant(A_RELEASES, leases, "release", releases_and_serves_on),
    "released, and asked again under that epoch": Mutant(
        A_RELEASES, leases, "release", releases_and_asks_again
    ),
    "the release of an older epoch heeded": Mutant(
        replace(A_RELEASES, orders=(("a", 2, "r"), ("b", 3, "s")), terms=SHORT),
        leases,
        "released",
        heeds_old_releases,
    ),
    "a lost epoch granted to another": Mutant(B_IS_LOST_TO_C, leases, "released", forgets_the_lost_epoch),
    "a lost epoch taken for all below it": Mutant(
        A_IS_LOST, leases, "released", takes_a_lost_epoch_for_all_below
    ),
    "who was granted before a lost epoch forgotten": Mutant(
        A_IS_LOST, leases, "released", forgets_who_was_before
    ),
    "answers not matched to their ask": Mutant(
        replace(A_TO_B, asks={"a": 2, "b": 1}, terms=SHORT, sweep=False),
        leases,
        "answered",
        counts_for_the_newest_ask,
    ),
    "the lease counted from the answer": Mutant(A_TO_B, leases, "answered", counts_from_the_answer),
    "no drift margin": Mutant(A_IS_SLOW, LeaseTerms, "held_s", property(lambda terms: terms.duration_s)),
    "grants below an epoch": Mutant(A_TO_B, leases, "_epoch_gone", nothing_to_refuse),
    "grants below a promise": Mutant(
        replace(A_RETURNS, asks={"a": 1, "b": 1}, terms=SHORT), leases, "promise", promises_and_forgets
    ),
    "one epoch to two holders": Mutant(
        replace(RIVALS, asks={"b": 1, "c": 1}), leases, "_epoch_taken", nothing_to_refuse
    ),
    "grants of one epoch counted for another": Mutant(
        replace(A_TO_B, orders=(("a", 2, "r"), ("b", 2, "r"))), leases, "seek", takes_grants_along
    ),
    "half is a majority": Mutant(
        A_TO_B, Membership, "majority", property(lambda value: len(value.members) // 2)
    ),
    "back by itself whoever held since": Mutant(
        replace(A_RETURNS, terms=SHORT), promises, "reacquire", comes_back_regardless
    ),
    "an epoch granted to a stranger": Mutant(A_STRANGER_ASKS, leases, "_no_member", nothing_to_refuse),
    "an epoch promised to a stranger": Mutant(A_STRANGER_RETURNS, leases, "_no_member", nothing_to_refuse),
    "grants across memberships": Mutant(B_MISSED_TWO, leases, "_other_membership", nothing_to_refuse),
    "the next change before the lease is confirmed": Mutant(
        TWO_CHANGES_IN_TURN, membership, "confirmed_until", leases.lease_until
    ),
    "a change from whoever was holder": Mutant(
        TWO_CHANGES_AT_ONCE, membership, "_not_its_holder", nothing_to_refuse
    ),
    "another's unfinished change passed over": Mutant(
        TWO_CHANGES_AT_ONCE, membership, "_unfinished", own_change_only
    ),
    "two changes under one epoch": Mutant(TWO_CHANGES_AT_ONCE, membership, "_unfinished", others_change_only),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_without_this_guard_there_is_a_counter_example(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[name]
    monkeypatch.setattr(mutant.where, mutant.what, mutant.instead)
    found = explore(mutant.world)
    print(f"\n{name}: {len(found.trace)} steps\n{found}")
    assert found.violation
    assert found.trace


def test_a_counter_example_reads_as_a_story(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_bound_to_another", nothing_to_refuse)
    head, *story = str(explore(A_TO_B)).splitlines()
    assert head.endswith("stopped")
    assert story[0] == "b: order 2, r"
    assert story[-2].startswith("b hears: Granted(ask_id=b1, member=b, holder=b, epoch=2")
    assert story[-1] == "=> a and b may acknowledge writes"
