"""Leases beyond what can be searched through: up to five members, real clocks that drift, long histories.

The same invariants as in `leases_model.py`, and three more: whoever holds the lease is a member; when a run
has a majority's promises and waits as long as the gate says, its target gets the lease, if nobody interferes;
and what they say was granted is not older than the last primary's epoch: nobody's writes are passed over.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from qnwis.continuity import leases, membership, promises
from qnwis.continuity.lease_messages import (
    Ask,
    Granted,
    LeaseTerms,
    Membership,
    Promised,
    PromiseRequest,
    Release,
)
from qnwis.continuity.leases import Grantor, GrantorRecord, Holder, HolderRecord
from qnwis.continuity.membership import Accepted, Adoption, Proposal
from qnwis.continuity.model import Model
from qnwis.continuity.promises import Gate
from qnwis.continuity.refusal import Refusal

TERMS = LeaseTerms(duration_s=3, renew_every_s=0.5, drift_margin=0.1, reserve_s=0)
LONG = LeaseTerms(duration_s=9, renew_every_s=0.5, drift_margin=0.1, reserve_s=0)
RATES = st.sampled_from([0.95, 1.0, 1.05])
"""Of clocks; the slowest still shows more than 90 % of what the fastest does."""
NAMES = "abcdef"
NODES = st.sampled_from(NAMES)
SOME = st.sets(NODES, max_size=3).map(set(NAMES).difference)
"""Who is reached: all but a few."""
PICKS = st.integers(0, 10_000)


class Leases(RuleBasedStateMachine):
    @initialize(size=st.sampled_from([1, 2, 3, 3, 4, 5, 5]), rates=st.lists(RATES, min_size=6, max_size=6))
    def begin(self, size: int, rates: list[float]) -> None:
        first = Membership(version=1, members=tuple(NAMES[:size]))
        self.true_s = 0.0
        self.rates = dict(zip(NAMES, rates, strict=True))
        self.grantors = {
            n: Grantor(
                record=GrantorRecord(node_id=n, membership=first if n in NAMES[:size] else Membership())
            )
            for n in NAMES
        }
        self.holders = {
            n: Holder(record=HolderRecord(node_id=n), membership=g.record.membership)
            for n, g in self.grantors.items()
        }
        self.terms = dict.fromkeys(NAMES, TERMS)
        self.sent: list[Model] = []
        self.held = (0, "")
        self.primary = (0, "")
        """The newest epoch that was held but for the lost ones, and by whom."""
        self.lost: set[tuple[int, str]] = set()
        """Epochs under which the holder's database never becomes a primary."""
        self.agreed: dict[int, Membership] = {1: first}
        self.count = 0

    def now_s(self, name: str) -> float:
        return 1000 * ord(name) + self.rates[name] * self.true_s

    def serves(self, name: str) -> bool:
        until_s = leases.lease_until(self.holders[name], self.terms[name])
        return until_s is not None and self.now_s(name) < until_s

    def unused(self) -> str:
        self.count += 1
        return f"number {self.count}"

    def hear(self, name: str, message: Model) -> Model | None:
        """Hand a message to a node; what it sends back."""
        terms, now_s = self.terms[name], self.now_s(name)
        answer: Model | None = None
        match message:
            case Ask():
                self.grantors[name], answer = leases.grant(self.grantors[name], message, terms, now_s)
            case PromiseRequest():
                self.grantors[name], answer = leases.promise(self.grantors[name], message, terms, now_s)
            case Proposal():
                self.grantors[name], answer = membership.accept(self.grantors[name], message)
            case Release():
                self.grantors[name] = leases.released(self.grantors[name], message)
            case Granted() if message.holder == name:
                self.holders[name] = leases.answered(self.holders[name], message, terms, now_s)
                self.judge(name)
            case Adoption():
                self.grantors[name] = membership.adopt(self.grantors[name], message)
                known = self.grantors[name].record.membership
                if known != self.holders[name].membership:
                    self.holders[name] = membership.moved(self.holders[name], known, terms)
        if answer is not None:
            self.sent.append(answer)
        return answer

    def judge(self, name: str) -> None:
        until_s, record = (
            leases.confirmed_until(self.holders[name], self.terms[name]),
            self.holders[name].record,
        )
        if until_s is None or self.now_s(name) >= until_s:
            return
        assert name in self.holders[name].membership.members, f"{name} holds the lease and is no member"
        epoch, last = self.held
        assert record.epoch >= epoch, f"{name} holds epoch {record.epoch} after {last} held {epoch}"
        assert record.epoch > epoch or name == last, f"epoch {epoch} is held by {last} and {name}"
        by_itself, (_, primary) = record.run_id.startswith("itself"), self.primary
        assert not by_itself or primary in ("", name), f"{name} came back by itself after {primary}"
        self.held = (record.epoch, name)
        if self.held not in self.lost:
            self.primary = self.held

    @invariant()
    def one_node_serves_at_most(self) -> None:
        if hasattr(self, "holders"):
            assert len([name for name in NAMES if self.serves(name)]) <= 1

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.4, 2.7, 2.86, 3.0, 3.2]))
    def time_passes(self, seconds: float) -> None:
        self.true_s += seconds

    @rule(name=NODES, reached=SOME)
    def renew(self, name: str, reached: set[str]) -> None:
        self.holders[name], asked = leases.ask(
            self.holders[name], self.unused(), self.terms[name], self.now_s(name)
        )
        if isinstance(asked, Ask):
            self.sent.append(asked)
            for member in sorted(reached):
                answer = self.hear(member, asked)
                if isinstance(answer, Granted) and name in reached:
                    self.hear(name, answer)

    @precondition(lambda self: self.sent)
    @rule(pick=PICKS, name=NODES)
    def an_old_message_arrives(self, pick: int, name: str) -> None:
        self.hear(name, self.sent[pick % len(self.sent)])

    @rule(name=NODES)
    def restart(self, name: str) -> None:
        record = self.grantors[name].record
        self.grantors[name] = leases.restarted(record, self.now_s(name))
        self.holders[name] = Holder(record=self.holders[name].record, membership=record.membership)

    @rule(name=NODES, terms=st.sampled_from([TERMS, LONG]))
    def go_on_under(self, name: str, terms: LeaseTerms) -> None:
        """The agent executes itself anew with other terms, and has the lease that it had."""
        kept_until_s = leases.lease_until(self.holders[name], self.terms[name])
        self.restart(name)
        self.holders[name] = self.holders[name].model_copy(update={"kept_until_s": kept_until_s})
        self.terms[name] = terms

    @rule(name=NODES, heard_by=SOME)
    def release(self, name: str, heard_by: set[str]) -> None:
        self.holders[name], said = leases.release(self.holders[name], processes_left=0)
        self.sent.append(said)
        for member in sorted(heard_by):
            self.hear(member, said)

    @rule(name=NODES, heard_by=SOME)
    def say_that_nothing_came_of_it(self, name: str, heard_by: set[str]) -> None:
        released_epoch = self.holders[name].record.released_epoch
        if (released_epoch, name) in self.lost:
            said = Release(holder=name, epoch=released_epoch, never_primary=True)
            self.sent.append(said)
            for member in sorted(heard_by):
                self.hear(member, said)

    @rule(
        name=NODES,
        more=st.integers(0, 2),
        run_id=st.sampled_from(["liar", "other liar"]),
        reached=SOME,
        lost=st.booleans(),
    )
    def a_run_lies(self, name: str, more: int, run_id: str, reached: set[str], lost: bool = False) -> None:
        sought = leases.seek(self.holders[name], max(1, self.held[0] + more), run_id, self.terms[name])
        if isinstance(sought, Holder):
            self.sought(name, sought, lost)
            self.renew(name, reached)

    def sought(self, name: str, holder: Holder, lost: bool) -> None:
        if lost and holder.record.epoch > self.holders[name].record.epoch:
            self.lost.add((holder.record.epoch, name))
        self.holders[name] = holder

    @rule(name=NODES, more=st.integers(0, 2))
    def an_order_brings_an_epoch(self, name: str, more: int) -> None:
        self.grantors[name] = leases.told(
            self.grantors[name], self.held[0] + more, self.terms[name], self.now_s(name)
        )

    @rule(name=NODES, reached=SOME)
    def come_back(self, name: str, reached: set[str]) -> None:
        if (self.holders[name].record.epoch, name) in self.lost:
            return  # its data directory is a standby's
        request = self.request(name, f"itself {self.unused()}", former_holder=name)
        answers = [
            answer for member in sorted(reached) if isinstance(answer := self.hear(member, request), Promised)
        ]
        back = promises.reacquire(self.holders[name], request, answers, self.terms[name])
        if isinstance(back, Holder):
            self.holders[name] = back
            self.renew(name, reached)

    @rule(name=NODES, more=st.integers(0, 99), served_epoch=st.sampled_from([None, 0, 10**6]))
    def a_stranger_asks(self, name: str, more: int, served_epoch: int | None) -> None:
        """An agent of another cluster, with whatever numbers it likes."""
        before = self.grantors[name]
        request = self.request(name, "stranger", former_holder="stranger")
        asked = Ask(
            ask_id=self.unused(),
            holder="stranger",
            epoch=request.epoch + more,
            run_id=request.run_id,
            membership_version=before.record.membership.version,
        )
        said = {"membership_version": asked.membership_version, "served_epoch": served_epoch}
        for message in (request.model_copy(update=said), asked):
            assert isinstance(self.hear(name, message), Refusal)
        assert self.grantors[name] == before

    @rule(node=NODES, reached=SOME, lost=st.booleans())
    def fail_over(self, node: str, reached: set[str], lost: bool) -> None:
        request = self.request(node, f"run {self.unused()}")
        known = self.holders[node].membership
        if node not in known.members:
            return  # its agent refuses such an order
        answers = [
            answer for member in sorted(reached) if isinstance(answer := self.hear(member, request), Promised)
        ]
        gate = promises.promotion_gate(known, request, answers, node)
        sought = leases.seek(self.holders[node], request.epoch, request.run_id, self.terms[node])
        if not isinstance(gate, Gate) or not isinstance(sought, Holder):
            return
        assert set(gate.members) <= reached & set(known.members)
        granted = [a.granted.epoch for a in answers if a.member in gate.members and a.granted is not None]
        assert max(granted, default=0) >= self.primary[0]
        self.sought(node, sought, lost)
        self.true_s += gate.wait_s / 0.95 + 0.001
        self.renew(node, reached | {node})
        # It counts on no grant that is shorter than its own terms.
        longest_s = self.terms[node].duration_s
        assert self.serves(node) or any(self.terms[m].duration_s < longest_s for m in gate.members)

    @rule(name=NODES, node=NODES, reached=SOME)
    def change_members(self, name: str, node: str, reached: set[str]) -> None:
        old = self.holders[name].membership
        wanted = (
            membership.with_member(old, node, "")
            if node not in old.members
            else membership.without_member(old, node)
        )
        self.holders[name], proposal = membership.propose(
            self.holders[name], wanted, self.terms[name], self.now_s(name)
        )
        if not isinstance(proposal, Proposal):
            return
        self.sent.append(proposal)
        answers = [
            answer
            for member in sorted(reached)
            if isinstance(answer := self.hear(member, proposal), Accepted)
        ]
        adoption = membership.agreed(old, proposal, answers)
        if adoption is not None:
            self.sent.append(adoption)
            new = adoption.new
            assert self.agreed.setdefault(new.version, new) == new
            for member in sorted(reached):
                self.hear(member, adoption)

    def request(self, name: str, run_id: str, former_holder: str | None = None) -> PromiseRequest:
        return PromiseRequest(
            epoch=max(grantor.record.epoch for grantor in self.grantors.values()) + 1,
            run_id=run_id,
            membership_version=self.holders[name].membership.version,
            former_holder=former_holder,
        )


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def test_a_node_that_a_run_ordered_to_an_epoch_in_vain_does_not_come_back_by_itself() -> None:
    """Its own grant for that epoch took the place of the one that it gave another."""
    state = Leases()
    state.begin(size=3, rates=[1.0] * 6)
    state.a_run_lies("b", 0, "liar", set(NAMES))
    state.time_passes(4.0)
    state.a_run_lies("a", 1, "liar", {"a", "b"})
    assert state.held == (2, "a")
    state.time_passes(4.0)
    state.a_run_lies("b", 1, "other liar", {"b"})
    assert state.held == (2, "a")
    state.come_back("b", {"b", "c"})
    assert state.held == (2, "a")


def test_a_primary_under_longer_terms_is_alone_though_its_grantors_have_shorter_ones_since() -> None:
    state = Leases()
    state.begin(size=3, rates=[1.0] * 6)
    for name in "abc":
        state.go_on_under(name, LONG)
    state.a_run_lies("a", 0, "liar", set(NAMES))
    for name in "abc":
        state.go_on_under(name, TERMS)
    state.renew("a", set(NAMES))
    state.time_passes(3.2)
    assert state.serves("a")
    state.a_run_lies("b", 1, "liar", {"b", "c"})
    assert not state.serves("b")
