"""The agent's part in the leases, as `qnwis.agent.lease` has it, with modelled disk, clock and network.

Every decision is the one of `qnwis.continuity.leases` and `promises`; here is only who is asked when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from qnwis.continuity import leases as core
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
from qnwis.continuity.promises import another_holds, reacquire
from qnwis.continuity.refusal import Refusal

from .kernel import Flow, Future, Process
from .machine import Disk
from .network import Network

ANSWER_WITHIN_S = 1.0
ASK_AGAIN_S = 0.1
ACQUIRE_WITHIN_S = 10.0
TELL_AGAIN_S, TELL_TIMES = 0.5, 8


class AgentLeases:
    """Of one life of an agent: what it grants, and the lease that it holds or seeks."""

    def __init__(
        self,
        process: Process,
        disk: Disk,
        clock: Callable[[], float],
        terms: LeaseTerms,
        network: Network,
        peers: Mapping[str, Callable[[], AgentLeases]],
    ) -> None:
        self._process = process
        self._disk = disk
        self._now = clock
        self._terms = terms
        self._network = network
        self._peers = peers
        """By node_id; the present life of each peer's agent."""
        self._grantor = core.restarted(disk.grantor, clock())
        self._hold(Holder(record=disk.holder, membership=disk.grantor.membership))
        self._heard = Future()
        self._renewing = False
        self._seen_epoch = 0
        self.last_refusal: Refusal | None = None
        self.on_until: Callable[[float], None] = lambda until: None

    @property
    def process(self) -> Process:
        return self._process

    @property
    def epoch(self) -> int:
        return self._grantor.record.epoch

    @property
    def membership(self) -> Membership:
        return self._grantor.record.membership

    @property
    def sought(self) -> int:
        return self._holder.record.epoch

    @property
    def released_epoch(self) -> int:
        return self._holder.record.released_epoch

    def _hold(self, holder: Holder) -> None:
        """Whatever changes the holder's side does it here."""
        self._holder = holder
        until = core.lease_until(holder, self._terms)
        self.serves_until = float("-inf") if until is None else until - self._terms.stop_margin_s
        """When to begin to end the database, by the node's clock; in the past without a lease."""

    @property
    def held(self) -> bool:
        return self._now() < self.serves_until

    # As a grantor. None: the record could not be written, so nothing is answered.

    def grant(self, ask: Ask) -> Granted | Refusal | None:
        state, answer = core.grant(self._grantor, ask, self._terms, self._now())
        return answer if self._keep_grantor(state) else None

    def promise(self, request: PromiseRequest) -> Promised | Refusal | None:
        if (refusal := another_holds(self._grantor.record, request)) is not None:
            return refusal
        state, answer = core.promise(self._grantor, request, self._terms, self._now())
        return answer if self._keep_grantor(state) else None

    def obey(self, epoch: int) -> bool:
        return self._keep_grantor(core.told(self._grantor, epoch, self._terms, self._now()))

    def withdrawn(self, epoch: int, run_id: str) -> bool:
        return self._keep_grantor(core.withdrawn(self._grantor, epoch, run_id))

    def released(self, release: Release) -> bool:
        return self._keep_grantor(core.released(self._grantor, release))

    def _keep_grantor(self, state: Grantor) -> bool:
        if state.record is not self._grantor.record and state.record != self._grantor.record:
            if self._disk.full:
                return False
            self._disk.grantor = state.record
        self._grantor = state
        return True

    # As a holder

    def acquire(self, epoch: int, run_id: str) -> Flow:
        """Returns None when the lease is there, or the refusal."""
        holder = core.seek(self._holder, epoch, run_id, self._terms)
        if isinstance(holder, Refusal):
            return holder
        if not self._keep_holder(holder):
            return DISK_FULL
        return (yield from self._until_held(ACQUIRE_WITHIN_S))

    def take_up(self) -> Flow:
        """Have a lease without a run's order. Returns None when it is there, or the refusal."""
        record = self._holder.record
        if record.epoch > record.released_epoch and record.epoch >= self.epoch:
            refusal = yield from self._until_held(self._terms.duration_s)
            if refusal is None:
                return None
        request = PromiseRequest(
            epoch=max(self.epoch, record.epoch, record.released_epoch, self._seen_epoch) + 1,
            run_id=self._disk.unused(record.node_id),
            membership_version=self.membership.version,
            former_holder=record.node_id,
            served_epoch=record.served_epoch,
        )
        answers = yield from self._peers_answer(lambda peer: peer.promise(request))
        promised = [answer for answer in answers if isinstance(answer, Promised)]
        if len(promised) + 1 >= self.membership.majority:
            own = self.promise(request)
            promised += [own] if isinstance(own, Promised) else []
        holder = reacquire(self._holder, request, promised, self._terms)
        if isinstance(holder, Refusal):
            others = [answer for answer in answers if isinstance(answer, Refusal)]
            seen = [epoch for other in others if isinstance(epoch := other.values.get("promised"), int)]
            self._seen_epoch = max(self._seen_epoch, *seen, 0)
            return holder
        if not self._keep_holder(holder):
            return DISK_FULL
        return (yield from self._until_held(ACQUIRE_WITHIN_S))

    def renew(self) -> Flow:
        while True:
            if self._renewing:
                self._ask()
            yield self._terms.renew_every_s

    def give_up(self) -> bool:
        """Release what is held, once the database has ended, and begin to tell the peers."""
        self._renewing = False
        holder, release = core.release(self._holder, 0)
        assert isinstance(release, Release)
        return self._keep_holder(holder) and self._tell(release)

    def never_primary(self, epoch: int) -> bool:
        """Say of a released epoch that nothing came of it."""
        return self._tell(Release(holder=self._holder.record.node_id, epoch=epoch, never_primary=True))

    def _tell(self, release: Release) -> bool:
        if not self.released(release):
            return False
        for peer in self._peers.values():
            self._process.spawn(self._tell_released(peer, release))
        return True

    def take_nothing_up(self) -> None:
        record = self._holder.record.model_copy(update={"served_epoch": 0})
        self._keep_holder(self._holder.model_copy(update={"record": record}))

    def _tell_released(self, peer: Callable[[], AgentLeases], release: Release) -> Flow:
        for _ in range(TELL_TIMES):
            told = yield self._network.call(
                self._process.party, peer().process, lambda: peer().released(release), ANSWER_WITHIN_S
            )
            if told:
                return
            yield TELL_AGAIN_S

    def _until_held(self, within_s: float) -> Flow:
        self._renewing = False
        deadline = self._now() + within_s
        while self._now() < deadline:
            self._heard = Future()
            self._ask()
            self._process.after(ASK_AGAIN_S, self._heard.resolve)
            while not self._heard.done:
                yield self._heard
            if self.held:
                self._renewing = True
                return None
        return self.last_refusal or NO_LEASE

    def _ask(self) -> None:
        holder, asked = core.ask(self._holder, self._disk.unused("ask"), self._terms, self._now())
        if isinstance(asked, Refusal):
            self.last_refusal = asked
            return
        self._hold(holder)
        self._hear(self.grant(asked))
        life = self._process.life
        for peer in self._peers.values():
            self._ask_peer(peer, asked, life)

    def _ask_peer(self, peer: Callable[[], AgentLeases], asked: Ask, life: int) -> None:
        """As a message each way; an answer counts however late it comes, if the same life still waits."""
        own, theirs = self._process, peer().process

        def granted() -> None:
            answer = peer().grant(asked)
            if answer is not None:
                self._network.send(theirs.party, own.party, own._due, life, self._hear, (answer,))

        self._network.send(own.party, theirs.party, theirs.do, granted)

    def _hear(self, answer: Granted | Refusal | None) -> None:
        if answer is None or isinstance(answer, Refusal):
            self.last_refusal = answer
            return
        before = self.serves_until
        self._keep_holder(core.answered(self._holder, answer, self._terms, self._now()))
        if self.serves_until != before and self.held:
            self.on_until(self.serves_until)
            self._heard.resolve()

    def _keep_holder(self, state: Holder) -> bool:
        if state.record is not self._holder.record and state.record != self._holder.record:
            if self._disk.full:
                return False
            self._disk.holder = state.record
        self._hold(state)
        return True

    def _peers_answer(self, ask: Callable[[AgentLeases], Any]) -> Flow:
        """What the peers say that answer in time."""
        own = self._process.party
        calls = [
            self._network.call(own, peer().process, partial(_asked, ask, peer), ANSWER_WITHIN_S)
            for peer in self._peers.values()
        ]
        answers = []
        for call in calls:
            answers.append((yield call))
        return [answer for answer in answers if answer is not None]


def _asked(ask: Callable[[AgentLeases], Any], peer: Callable[[], AgentLeases]) -> Any:
    return ask(peer())


DISK_FULL = Refusal(
    rule="disk_full", message="The agent's state cannot be written.", remedy="Free space on its disk."
)
NO_LEASE = Refusal(
    rule="no_lease", message="No majority granted the epoch.", remedy="Check the other members' agents."
)


def first_records(node_id: str, members: tuple[str, ...]) -> tuple[GrantorRecord, HolderRecord]:
    """Of a first member of a new cluster."""
    membership = Membership(version=1, members=members)
    return (
        GrantorRecord(node_id=node_id, disk_id=f"disk-{node_id}", membership=membership),
        HolderRecord(node_id=node_id),
    )
