"""An explicit-state model checker for leases: every reachable state of a small cluster, breadth first.

What agents do is decided by the functions of `leases.py`, `membership.py` and `promises.py` themselves. This
file adds only a world around them, as hostile as the bounds of a `World` allow:

- Time passes in whole ticks, without limit: what agents remember of times is kept relative to now, so that
  the search ends by itself. A slow clock loses a tick at any moment, but at most one in four.
- A message once sent may arrive at any later time, any number of times, or never: loss, delay, reordering,
  duplication. Nothing leaves the network but what can have no effect any more.
- An agent restarts at any moment (`restarts` in all): it keeps its records and loses the rest. One that
  crashed for good, is frozen, or is cut off, is one to which nothing happens any more; every state has such
  futures. A frozen one goes on serving for as long as its lease lasts.
- Nodes that no membership ever had (`World.strangers`) say whatever members may say.
- There is no run, only what one might say, to anybody, in any order, at any time: `orders` to take an epoch,
  with or without promises before, requests to `promise`, and orders that bring an epoch (`tells`). Whatever
  rival runs, a run that lies or one with a wrong clock could do is among it. Nodes that were the holder may
  come back by themselves (`returns`).

What must hold: no two nodes may serve. When a lease is confirmed, its epoch was held by no other node, no
higher one was held before, and a node that came back by itself was the last to hold one, but for epochs under
which nobody ever was a primary (`lost`). No two memberships of one version are agreed. Nobody grants or
promises anything to a stranger.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from qnwis.continuity import leases, membership, promises
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
from qnwis.continuity.leases import CountedAsk, Grantor, GrantorRecord, Holder, HolderRecord
from qnwis.continuity.membership import Accepted, Adoption, Proposal
from qnwis.continuity.model import Model
from qnwis.continuity.refusal import Refusal

EXACT = LeaseTerms(duration_s=2, renew_every_s=1, drift_margin=0, reserve_s=0)
"""For clocks that agree. Nothing is reserved, since that only delays what may happen."""
DRIFTING = LeaseTerms(duration_s=4, renew_every_s=1, drift_margin=0.25, reserve_s=0)
"""For clocks of which some lose a tick in four."""
THREE = Membership(version=1, members=("a", "b", "c"))
NOW = 0.0
NAME = re.compile(r"[a-e](\d+|'s own \d+)?")
"""Of a node, its asks and its own runs."""


@dataclass(frozen=True)
class World:
    """The bounds of a search. In the beginning the first node holds epoch 1, granted by every node that knows
    itself to be a member."""

    nodes: tuple[str, ...] = ("a", "b", "c")
    membership: Membership = THREE
    behind: Mapping[str, Membership] = field(default_factory=dict)
    """Nodes that have not heard of that membership yet, and the one they know."""
    renewed_ago: Mapping[str, int] = field(default_factory=dict)
    """Ticks since a node granted epoch 1 for the last time, where not 0."""
    before: str | None = None
    """Who was granted an epoch before that, where agents remember one."""
    terms: LeaseTerms = EXACT
    slow: frozenset[str] = frozenset()
    asks: Mapping[str, int] = field(default_factory=dict)
    """How often each node may ask; the others never do."""
    orders: tuple[tuple[str, int, str], ...] = ()
    """node, epoch, run: orders that may be given."""
    promises: tuple[tuple[int, str], ...] = ()
    """epoch, run: requests that may be made of any agent."""
    tells: tuple[int, ...] = ()
    """Epochs that an order, of whatever run, may bring to any agent."""
    returns: tuple[tuple[str, int], ...] = ()
    """node, epoch: attempts to take the lease up again without a run."""
    adoptions: tuple[Adoption, ...] = ()
    """Sent before the search begins: forced ones, which nobody of this world agreed to."""
    changes: tuple[Membership, ...] = ()
    """Memberships that a holder may be asked to propose."""
    restarts: int = 0
    losing: Mapping[str, int] = field(default_factory=dict)
    """How often each node may lose its disk. The `disk_id` of its first is empty, of its second +."""
    releasing: frozenset[str] = frozenset()
    """Nodes that may release."""
    lost: frozenset[tuple[str, int]] = frozenset()
    """node, epoch: where its database never becomes a primary, and its release says so."""
    alike: tuple[str, ...] = ()
    """Nodes that differ by name only in all of the above; states that differ by their order count once."""
    sweep: bool = True
    """Whether answers to asks that their holder has forgotten are taken from the network; they change nothing
    as long as answers count only for the ask they belong to."""

    @property
    def strangers(self) -> frozenset[str]:
        known = [self.membership, *self.behind.values(), *self.changes, *(a.new for a in self.adoptions)]
        return frozenset(self.nodes).difference(*(membership.members for membership in known))


@dataclass(frozen=True)
class Node:
    grantor: Grantor
    holder: Holder
    asked: int = 0
    calm: int = 3
    """Ticks since its clock lost one, up to three."""


@dataclass(frozen=True)
class Found:
    """How a search ended."""

    states: int
    seconds: float
    exhausted: bool
    violation: str = ""
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        how = "exhausted" if self.exhausted else "stopped"
        head = f"{self.states} states in {self.seconds:.1f} s, {how}"
        return "\n".join((head, *self.trace, f"=> {self.violation}")) if self.violation else head


State = tuple[tuple[int, ...], int, tuple[int, str, str], int]
"""Numbers of the nodes' states, the set of messages sent (as bits), the highest epoch held, by whom and who
was the last primary, restarts left."""
Action = tuple[object, ...]
Step = tuple[int, int, Action]
"""The node's next state, messages sent (as bits), what it was."""


def explore(world: World, limit: int | None = None) -> Found:
    """Visit every state within the world's bounds, or `limit` of them, until one violates what must hold."""
    return _Search(world).run(limit)


class _Search:
    def __init__(self, world: World) -> None:
        self.world = world
        self.nodes: list[Node] = []
        self.node_ids: dict[Node, int] = {}
        self.serves: list[bool] = []
        self.confirmed: list[int] = []
        self.heeding: list[str] = []
        self.messages: list[Model] = []
        self.message_ids: dict[Model, int] = {}
        self.inbox = [0] * len(world.nodes)
        self.answers = [0] * len(world.nodes)
        self.collected = 0
        self.adoptions = 0
        self.step_cache: dict[tuple[int, int, int], list[Step]] = {}
        self.hear_cache: dict[tuple[int, int], tuple[Step, ...]] = {}
        self.gather_cache: dict[tuple[int, int, int], list[Step]] = {}
        self.tick_cache: dict[tuple[int, int], tuple[int, ...]] = {}
        self.restart_cache: dict[int, int] = {}
        self.seen: dict[State, tuple[State, int, Action] | None] = {}
        self.spent_cache: dict[tuple[int, int], int] = {}
        others = list(itertools.permutations(world.alike))[1:]
        self.names = [dict(zip(other, world.alike, strict=True)) for other in others]
        self.places = [
            [world.nodes.index(dict(zip(world.alike, other, strict=True)).get(n, n)) for n in world.nodes]
            for other in others
        ]
        self.renamed_nodes: dict[tuple[int, int], int] = {}
        self.renamed_nets: dict[tuple[int, int], int] = {}

    def run(self, limit: int | None) -> Found:
        began = time.perf_counter()
        first = self.first()
        self.seen[first] = None
        layer = [first]
        while layer:
            following: list[State] = []
            for state in layer:
                for node, action, after, violation in self.successors(state):
                    if violation:
                        trace = (*self.trace(state), self.told(node, action))
                        spent = time.perf_counter() - began
                        return Found(len(self.seen), spent, False, violation, trace)
                    after = self.least(self.swept(after))
                    if after not in self.seen:
                        self.seen[after] = (state, node, action)
                        following.append(after)
                if limit is not None and len(self.seen) >= limit:
                    return Found(len(self.seen), time.perf_counter() - began, False)
            layer = following
        return Found(len(self.seen), time.perf_counter() - began, True)

    # --- the world ---

    def first(self) -> State:
        world = self.world
        numbers = []
        for name in world.nodes:
            known = world.behind.get(name, world.membership)
            holder = Holder(record=HolderRecord(node_id=name), membership=known)
            if name == world.nodes[0]:
                holder = Holder(
                    record=HolderRecord(node_id=name, epoch=1, run_id="r", served_epoch=1),
                    membership=known,
                    counted=tuple(
                        CountedAsk(member=member, asked_at_s=NOW - world.renewed_ago.get(member, 0))
                        for member in known.members
                    ),
                )
            granted = LastGrant(epoch=1, holder=world.nodes[0], duration_s=world.terms.duration_s)
            before = None if world.before is None else LastGrant(epoch=0, holder=world.before, duration_s=1)
            record = GrantorRecord(
                node_id=name, membership=known, epoch=1, run_id="r", granted=granted, before=before
            )
            until_s = world.terms.duration_s - world.renewed_ago.get(name, 0)
            grantor = Grantor(record=record, granted_until_s=until_s)
            if name not in known.members:
                grantor = Grantor(record=GrantorRecord(node_id=name))
            numbers.append(self.node(Node(grantor, holder)))
        sent = sum(1 << self.message(adoption) for adoption in world.adoptions)
        return tuple(numbers), sent, (1, world.nodes[0], world.nodes[0]), world.restarts

    def successors(self, state: State) -> Iterator[tuple[int, Action, State, str]]:
        """Every step from here: which node, what, the state after it, and what that violates if anything."""
        numbers, net, held, restarts = state
        for i, number in enumerate(numbers):
            steps = itertools.chain(
                self.steps(i, number, net & self.inbox[i]), self.gathered(i, number, net & self.collected)
            )
            for after, sent, action in steps:
                if after != number or sent & ~net:
                    changed = (*numbers[:i], after, *numbers[i + 1 :])
                    now_held, violation = self.judged(i, number, changed, held)
                    violation = violation or self.split(net, sent)
                    yield i, action, (changed, net | sent, now_held, restarts), violation
            if restarts:
                after = self.restarted(number)
                yield i, ("restart",), ((*numbers[:i], after, *numbers[i + 1 :]), net, held, restarts - 1), ""
        for changed in itertools.product(*(self.ticked(i, number) for i, number in enumerate(numbers))):
            if changed != numbers:
                yield -1, ("tick", changed), (changed, net, held, restarts), self.two_serve(changed)

    def judged(
        self, i: int, before: int, numbers: tuple[int, ...], held: tuple[int, str, str]
    ) -> tuple[tuple[int, str, str], str]:
        number, name = numbers[i], self.world.nodes[i]
        epoch, (newest, holder, primary) = self.confirmed[number], held
        if self.heeding[number]:
            return held, self.heeding[number]
        if number == before or not epoch or (newest, holder) == (epoch, name):
            return held, self.two_serve(numbers)
        if epoch < newest:
            return held, f"{name} holds epoch {epoch} after {holder} held epoch {newest}"
        if epoch == newest:
            return held, f"epoch {epoch} is held by {holder} and by {name}"
        if self.nodes[number].holder.record.run_id == _own_run(name, epoch) and primary != name:
            return held, f"{name} took up epoch {epoch} by itself after {primary} was the primary"
        now_primary = primary if (name, epoch) in self.world.lost else name
        return (epoch, name, now_primary), self.two_serve(numbers)

    def two_serve(self, numbers: tuple[int, ...]) -> str:
        if sum([self.serves[n] for n in numbers]) < 2:
            return ""
        serving = [name for name, n in zip(self.world.nodes, numbers, strict=True) if self.serves[n]]
        return f"{' and '.join(serving)} may acknowledge writes"

    def heeds_a_stranger(self, record: GrantorRecord) -> str:
        for name in self.world.strangers:
            if record.granted is not None and record.granted.holder == name:
                return f"{record.node_id} granted epoch {record.granted.epoch} to {name}, a stranger"
            if record.run_id == _own_run(name, record.epoch):
                return f"{record.node_id} promised epoch {record.epoch} to {name}, a stranger"
        return ""

    def split(self, net: int, sent: int) -> str:
        """Whether a second membership of one version is agreed."""
        if not sent & self.adoptions:
            return ""
        agreed = [self.messages[bit] for bit in _bits((net | sent) & self.adoptions)]
        by_version: dict[int, Membership] = {}
        for adoption in agreed:
            assert isinstance(adoption, Adoption)
            new = adoption.new
            other = by_version.setdefault(new.version, new)
            if other != new:
                return f"membership {new.version} is agreed as {other.members} and as {new.members}"
        return ""

    # --- what may happen at one node ---

    def steps(self, i: int, number: int, inbox: int) -> list[Step]:
        """What this node may do by itself, on an order, or on hearing one of the messages."""
        key = (i, number, inbox)
        if key not in self.step_cache:
            found = list(self.steps(i, number, 0)) if inbox else list(self.alone(i, number))
            for bit in _bits(inbox):
                found += self.hearing(number, bit)
            self.step_cache[key] = found
        return self.step_cache[key]

    def hearing(self, number: int, bit: int) -> tuple[Step, ...]:
        key = (number, bit)
        if key not in self.hear_cache:
            after, answers = self.heard(self.nodes[number], self.messages[bit])
            self.hear_cache[key] = tuple(self.step(number, after, answers, ("hear", bit)))
        return self.hear_cache[key]

    def alone(self, i: int, number: int) -> Iterator[Step]:
        world, node, name = self.world, self.nodes[number], self.world.nodes[i]
        if node.asked < world.asks.get(name, 0):
            holder, ask = leases.ask(node.holder, f"{name}{node.asked + 1}", world.terms, NOW)
            if isinstance(ask, Ask):
                yield from self.step(
                    number, replace(node, holder=holder, asked=node.asked + 1), [ask], ("ask", ask)
                )
        if name in world.releasing and node.holder.record.epoch:
            holder, release = leases.release(node.holder, 0)
            if isinstance(release, Release):
                if (name, release.epoch) in world.lost:
                    release = release.model_copy(update={"never_primary": True})
                yield from self.step(number, replace(node, holder=holder), [release], ("release", release))
        if len(node.grantor.record.disk_id) < world.losing.get(name, 0):
            blank = blank_agent(node.grantor.record)
            holder = Holder(record=HolderRecord(node_id=name), membership=blank.record.membership)
            yield from self.step(number, replace(node, grantor=blank, holder=holder), [], ("lose its disk",))
        for to, epoch, run_id in world.orders:
            if to == name:
                sought = leases.seek(node.holder, epoch, run_id, world.terms)
                if isinstance(sought, Holder):
                    yield from self.step(number, replace(node, holder=sought), [], ("order", epoch, run_id))
        for epoch, run_id in world.promises:
            request = PromiseRequest(
                epoch=epoch, run_id=run_id, membership_version=node.grantor.record.membership.version
            )
            grantor, _ = leases.promise(node.grantor, request, world.terms, NOW)
            yield from self.step(number, replace(node, grantor=grantor), [], ("promise", epoch, run_id))
        for epoch in world.tells:
            grantor = leases.told(node.grantor, epoch, world.terms, NOW)
            yield from self.step(number, replace(node, grantor=grantor), [], ("tell", epoch))
        for to, epoch in world.returns:
            if to == name and epoch > node.holder.record.epoch:
                request = PromiseRequest(
                    epoch=epoch,
                    run_id=_own_run(name, epoch),
                    membership_version=node.holder.membership.version,
                    former_holder=name,
                )
                yield from self.step(number, node, [request], ("call", request))
        for wanted in world.changes:
            holder, proposal = membership.propose(node.holder, wanted, world.terms, NOW)
            if isinstance(proposal, Proposal):
                yield from self.step(number, replace(node, holder=holder), [proposal], ("propose", proposal))

    def heard(self, node: Node, message: Model) -> tuple[Node, list[Model]]:
        terms = self.world.terms
        answer: Model | None = None
        grantor, holder = node.grantor, node.holder
        match message:
            case Ask():
                grantor, answer = leases.grant(grantor, message, terms, NOW)
            case PromiseRequest():
                grantor, answer = _patient(leases.promise(grantor, message, terms, NOW))
            case Proposal():
                grantor, answer = membership.accept(grantor, message)
            case Granted():
                holder = leases.answered(holder, message, terms, NOW)
            case Release():
                grantor = leases.released(grantor, message)
            case Adoption():
                grantor = membership.adopt(grantor, message)
                if grantor.record.membership != holder.membership:
                    holder = membership.moved(holder, grantor.record.membership, terms)
        answers = [] if answer is None or isinstance(answer, Refusal) else [answer]
        return replace(node, grantor=grantor, holder=holder), answers

    def gathered(self, i: int, number: int, net: int) -> list[Step]:
        """What a node may do once a majority answered: any majority's answers, since the rest may be lost."""
        if not net:
            return []
        key = (i, number, net)
        if key not in self.gather_cache:
            self.gather_cache[key] = list(self.gather(self.world.nodes[i], number, net))
        return self.gather_cache[key]

    def gather(self, name: str, number: int, net: int) -> Iterator[Step]:
        node = self.nodes[number]
        sent = [self.messages[bit] for bit in _bits(net)]
        size = node.holder.membership.majority
        for message in sent:
            if isinstance(message, PromiseRequest) and message.former_holder == name:
                own = [m for m in sent if isinstance(m, Promised) and m.run_id == message.run_id]
                for some in itertools.combinations(own, size):
                    holder = promises.reacquire(node.holder, message, some, self.world.terms)
                    if isinstance(holder, Holder):
                        who = ", ".join(promised.member for promised in some)
                        yield from self.step(
                            number, replace(node, holder=holder), [], ("return", message, who)
                        )
            if isinstance(message, Proposal) and message.holder == name:
                accepted = [m for m in sent if isinstance(m, Accepted)]
                adoption = membership.agreed(node.holder.membership, message, accepted)
                if adoption is not None:
                    # Who accepted makes no difference to anybody, so one text stands for all.
                    adoption = adoption.model_copy(update={"acceptors": adoption.old.members})
                    yield from self.step(number, node, [adoption], ("agree", adoption))

    def restarted(self, number: int) -> int:
        if number not in self.restart_cache:
            node = self.nodes[number]
            record = node.grantor.record
            self.restart_cache[number] = self.node(
                replace(
                    node,
                    grantor=leases.restarted(record, NOW),
                    holder=Holder(record=node.holder.record, membership=record.membership),
                )
            )
        return self.restart_cache[number]

    def ticked(self, i: int, number: int) -> tuple[int, ...]:
        """The node a tick later: its clock advanced, or lost the tick."""
        key = (i, number)
        if key not in self.tick_cache:
            node, slow = self.nodes[number], self.world.nodes[i] in self.world.slow
            later = self.node(replace(_later(node, self.world.terms), calm=min(3, node.calm + slow)))
            if slow and node.calm == 3:
                self.tick_cache[key] = (later, self.node(replace(node, calm=0)))
            else:
                self.tick_cache[key] = (later,)
        return self.tick_cache[key]

    # --- numbers for states and messages ---

    def step(self, number: int, after: Node, messages: Iterable[Model], action: Action) -> Iterator[Step]:
        sent = 0
        for message in messages:
            sent |= 1 << self.message(message)
        reached = self.node(after)
        if reached != number or sent:
            yield reached, sent, action

    def node(self, node: Node) -> int:
        if node not in self.node_ids:
            self.node_ids[node] = len(self.nodes)
            self.nodes.append(node)
            until_s = leases.lease_until(node.holder, self.world.terms)
            self.serves.append(until_s is not None and until_s > NOW)
            sure_s = leases.confirmed_until(node.holder, self.world.terms)
            self.confirmed.append(node.holder.record.epoch if sure_s is not None and sure_s > NOW else 0)
            self.heeding.append(self.heeds_a_stranger(node.grantor.record))
        return self.node_ids[node]

    def message(self, message: Model) -> int:
        if message not in self.message_ids:
            bit = self.message_ids[message] = len(self.messages)
            self.messages.append(message)
            if isinstance(message, Promised | Accepted | PromiseRequest | Proposal):
                self.collected |= 1 << bit
            self.adoptions |= isinstance(message, Adoption) << bit
            for i, name in enumerate(self.world.nodes):
                to_all = isinstance(message, Ask | PromiseRequest | Proposal | Release | Adoption)
                to_one = isinstance(message, Granted) and message.holder == name
                self.inbox[i] |= (to_all or to_one) << bit
                self.answers[i] |= to_one << bit
        return self.message_ids[message]

    # --- fewer states ---

    def least(self, state: State) -> State:
        """Stands for all states that differ from it by the order of the nodes that are alike."""
        if not self.names:
            return state
        return min([state, *(self.reordered(state, order) for order in range(len(self.names)))])

    def reordered(self, state: State, order: int) -> State:
        numbers, net, (epoch, *people), restarts = state
        places = self.places[order]
        moved = tuple(self.renamed_node(numbers[place], order) for place in places)
        holder, primary = (self.names[order].get(name, name) for name in people)
        return moved, self.renamed_net(net, order), (epoch, holder, primary), restarts

    def renamed_node(self, number: int, order: int) -> int:
        key = (number, order)
        if key not in self.renamed_nodes:
            node, names = self.nodes[number], self.names[order]
            self.renamed_nodes[key] = self.node(
                replace(node, grantor=_renamed(node.grantor, names), holder=_renamed(node.holder, names))
            )
        return self.renamed_nodes[key]

    def renamed_net(self, net: int, order: int) -> int:
        key = (net, order)
        if key not in self.renamed_nets:
            renamed = 0
            for bit in _bits(net):
                renamed |= 1 << self.message(_renamed(self.messages[bit], self.names[order]))
            self.renamed_nets[key] = renamed
        return self.renamed_nets[key]

    def swept(self, state: State) -> State:
        """Without the answers whose ask the holder has forgotten."""
        numbers, net, held, restarts = state
        if self.world.sweep:
            for i, number in enumerate(numbers):
                if net & self.answers[i]:
                    net &= ~self.spent(number, net & self.answers[i])
        return numbers, net, held, restarts

    def spent(self, number: int, net: int) -> int:
        key = (number, net)
        if key not in self.spent_cache:
            asks = {sent.ask_id for sent in self.nodes[number].holder.asks}
            answers = ((bit, self.messages[bit]) for bit in _bits(net))
            self.spent_cache[key] = sum(
                1 << bit
                for bit, answer in answers
                if isinstance(answer, Granted) and answer.ask_id not in asks
            )
        return self.spent_cache[key]

    # --- for people ---

    def trace(self, state: State) -> list[str]:
        lines: list[str] = []
        came = self.seen[state]
        while came is not None:
            state, node, action = came
            lines.append(self.told(node, action))
            came = self.seen[state]
        return lines[::-1]

    def told(self, i: int, action: Action) -> str:
        name = self.world.nodes[i]
        match action:
            case ("tick", _):
                return "a tick passes"
            case ("hear", int(bit)):
                return f"{name} hears: {_said(self.messages[bit])}"
            case (str(verb), *rest):
                return f"{name}: {verb} " + ", ".join(
                    _said(r) if isinstance(r, Model) else str(r) for r in rest
                )
        raise AssertionError(action)


def blank_agent(lost: GrantorRecord) -> Grantor:
    """An agent that starts without its records, on a new disk."""
    return Grantor(record=GrantorRecord(node_id=lost.node_id, disk_id=lost.disk_id + "+"))


def _patient(promised: tuple[Grantor, Promised | Refusal]) -> tuple[Grantor, Promised | Refusal]:
    """Without the time that remains: it only tells a run how long to wait, and here runs do as they like."""
    grantor, answer = promised
    if isinstance(answer, Promised):
        answer = answer.model_copy(update={"remaining_s": 0.0})
    return grantor, answer


def _later(node: Node, terms: LeaseTerms) -> Node:
    """The node when its clock shows one second more. What has run out has no effect and is dropped."""

    def left(until_s: float | None) -> float | None:
        return until_s - 1 if until_s is not None and until_s > 1 else None

    grantor, holder = node.grantor, node.holder
    young = 1 - terms.held_s
    return replace(
        node,
        grantor=grantor.model_copy(
            update={
                "granted_until_s": left(grantor.granted_until_s),
                "reserved_until_s": left(grantor.reserved_until_s),
            }
        ),
        holder=holder.model_copy(
            update={
                "asks": tuple(
                    a.model_copy(update={"asked_at_s": a.asked_at_s - 1})
                    for a in holder.asks
                    if a.asked_at_s > young
                ),
                "counted": tuple(
                    c.model_copy(update={"asked_at_s": c.asked_at_s - 1})
                    for c in holder.counted
                    if c.asked_at_s > young
                ),
                "kept_until_s": left(holder.kept_until_s),
            }
        ),
    )


M = TypeVar("M", bound=Model)


def _renamed(model: M, names: Mapping[str, str]) -> M:
    """The same with other names for nodes, in ask ids too; lists of names are kept in order."""

    def renamed(value: object) -> object:
        if isinstance(value, str):
            return names.get(value[:1], value[:1]) + value[1:] if NAME.fullmatch(value) else value
        if isinstance(value, dict):
            return {key: renamed(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return tuple(sorted((renamed(item) for item in value), key=_place))
        return value

    return type(model).model_validate(renamed(model.model_dump()))


def _place(item: object) -> str:
    return str(item.get("member", item.get("ask_id")) if isinstance(item, dict) else item)


def _own_run(name: str, epoch: int) -> str:
    return f"{name}'s own {epoch}"


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _said(value: object) -> str:
    match value:
        case Membership():
            return f"membership {value.version} of {', '.join(value.members) or 'nobody'}"
        case Model():
            fields = (f"{name}={_said(field)}" for name, field in value if field is not None)
            return f"{type(value).__name__}({', '.join(fields)})"
        case _:
            return str(value)
