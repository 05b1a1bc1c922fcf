"""The agent's part in the leases: grants to its peers, and the lease of its own database.

What may be granted is decided in `qnwis.continuity.leases`; here are the disk, the clock and the network.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from qnwis.continuity import leases as core
from qnwis.continuity.lease_messages import Ask, Granted, Membership, Promised, PromiseRequest, Release
from qnwis.continuity.leases import Grantor, GrantorRecord, Holder, HolderRecord
from qnwis.continuity.membership import Peer
from qnwis.continuity.model import Model
from qnwis.continuity.promises import another_holds, older_grant_refused, reacquire
from qnwis.continuity.refusal import Refusal
from qnwis.logs import log

from .config import AgentConfig
from .files import StateError
from .guard import now
from .peers import Peers
from .speaking import ANSWER_WITHIN_S, Speaker
from .two_copies import TwoCopies, read_copies

ASK_AGAIN_S = 0.05
"""Between two asks while a lease is first sought: a former holder's grants are about to run out."""
ACQUIRE_WITHIN_S = 10.0
TELL_WITHIN_S = 10.0
"""For so long a release is told to peers that do not answer; they wait no longer for the lease's end."""
TELL_AGAIN_S = 0.2
GRANTOR, HOLDER = "grantor.json", "holder.json"

M = TypeVar("M", bound=Model)


class Leases:
    """Grants and promises of this agent, and the lease that it holds or seeks."""

    def __init__(self, config: AgentConfig, peers: Peers, speaker: Speaker) -> None:
        """Raises StateError for a record of which no copy is whole: an agent that forgot its grants must not
        give any."""
        self._terms = config.lease
        self._peers = peers
        self._speaker = speaker
        self._grantor_file = TwoCopies(config.state_dir / GRANTOR)
        self._holder_file = TwoCopies(config.state_dir / HOLDER)
        record, held = records_of(config)
        if record is None:
            # A new agent or one that lost its disk: the two look alike, so neither grants anything.
            record = GrantorRecord(node_id=config.node_id, disk_id=uuid.uuid4().hex)
            self._grantor_file.write(record.model_dump_json())
        self._grantor = core.restarted(record, now())
        held = held or HolderRecord(node_id=config.node_id)
        self._holder = Holder(record=held, membership=record.membership)
        self._asking: set[asyncio.Task[None]] = set()
        self._telling: set[asyncio.Task[None]] = set()
        self._heard = asyncio.Event()
        self._renewing = False
        self._seen_epoch = 0
        """The highest epoch that a peer's refusal told of; the next attempt goes above it."""
        self.last_refusal: Refusal | None = None
        """The newest refusal of an ask; why a lease that is sought is not there yet."""
        self.on_epoch: Callable[[], None] = lambda: None
        self.on_until: Callable[[float], None] = lambda until: None
        """Called with each later `serves_until`."""
        self._least_left_s = self._terms.held_s

    def close(self) -> None:
        for task in self._asking | self._telling:
            task.cancel()

    @property
    def epoch(self) -> int:
        """The highest epoch this agent has promised or granted; on disk."""
        return self._grantor.record.epoch

    @property
    def membership(self) -> Membership:
        return self._grantor.record.membership

    @property
    def member(self) -> bool:
        return self._outside() is None

    @property
    def sought(self) -> int:
        """The epoch that the own database serves under, or would."""
        return self._holder.record.epoch

    @property
    def released_epoch(self) -> int:
        """The own database serves under none up to this one; on disk."""
        return self._holder.record.released_epoch

    @property
    def held(self) -> bool:
        """Whether the own database may acknowledge writes now."""
        until = self.serves_until
        return until is not None and now() < until

    @property
    def serves_until(self) -> float | None:
        """When to begin to end the database, in the guard's clock: earlier than the lease's end by what that
        takes. None without a lease."""
        until = core.lease_until(self._holder, self._terms)
        return None if until is None else until - self._terms.stop_margin_s

    # As a grantor

    def grant(self, ask: Ask) -> Granted | Refusal:
        state, answer = core.grant(self._grantor, ask, self._terms, now())
        self._keep_grantor(state)
        return answer

    def promise(self, request: PromiseRequest) -> Promised | Refusal:
        refusal = another_holds(self._grantor.record, request)
        if refusal is not None:
            return refusal
        state, answer = core.promise(self._grantor, request, self._terms, now())
        self._keep_grantor(state)
        return answer

    def obey(self, epoch: int) -> Refusal | None:
        """Heed an epoch that an order brings."""
        if (refusal := self._outside()) is not None:
            return refusal
        self._keep_grantor(core.told(self._grantor, epoch, self._terms, now()))
        return None

    def withdrawn(self, epoch: int, run_id: str) -> bool:
        """Whether it is the promise that this agent gave last."""
        self._keep_grantor(core.withdrawn(self._grantor, epoch, run_id))
        return (self._grantor.record.epoch, self._grantor.record.run_id) == (epoch, run_id)

    def released(self, release: Release) -> None:
        self._keep_grantor(core.released(self._grantor, release))

    def _keep_grantor(self, state: Grantor) -> None:
        grown = state.record.epoch > self._grantor.record.epoch
        if state.record != self._grantor.record:
            self._grantor_file.write(state.record.model_dump_json())
        self._grantor = state
        if grown:
            self.on_epoch()

    # As a holder

    async def acquire(self, epoch: int, run_id: str) -> Refusal | None:
        """Go for an epoch on a run's order; returns when the lease is there, or why it did not come."""
        holder = core.seek(self._holder, epoch, run_id, self._terms)
        if isinstance(holder, Refusal):
            return holder
        self._keep_holder(holder)
        return await self._until_held(ACQUIRE_WITHIN_S)

    async def take_up(self) -> Refusal | None:
        """Have a lease without a run's order: the own epoch again, or a new one where nobody held since."""
        record = self._holder.record
        if (refusal := self._outside()) is not None:
            return refusal
        if record.epoch > record.released_epoch and record.epoch >= self.epoch:
            refusal = await self._until_held(self._terms.duration_s)
            if refusal is None:
                return None
        run_id = f"{record.node_id}-{uuid.uuid4().hex}"
        request = PromiseRequest(
            epoch=max(self.epoch, record.epoch, record.released_epoch, self._seen_epoch) + 1,
            run_id=run_id,
            membership_version=self.membership.version,
            former_holder=record.node_id,
        )
        served = request.model_copy(update={"served_epoch": record.served_epoch})
        asking = [self._promise_of(peer, request, served) for peer in self._others]
        answers = [answer for answer in await asyncio.gather(*asking) if answer is not None]
        promised = [answer for answer in answers if isinstance(answer, Promised)]
        if len(promised) + 1 >= self.membership.majority:
            # Last: an own promise that comes to nothing would set this node apart from the cluster's epoch.
            own = self.promise(served)
            promised += [own] if isinstance(own, Promised) else []
        holder = reacquire(self._holder, request, promised, self._terms)
        if isinstance(holder, Refusal):
            others = [answer for answer in answers if isinstance(answer, Refusal)]
            self._seen_epoch = max(self._seen_epoch, *(_promised_epoch(other) for other in others), 0)
            return others[0] if others and holder.rule == "promises_missing" else holder
        self._keep_holder(holder)
        return await self._until_held(ACQUIRE_WITHIN_S)

    async def _promise_of(
        self, peer: Peer, request: PromiseRequest, served: PromiseRequest
    ) -> Promised | Refusal | None:
        # Without the epoch first: an agent from before that field takes only this.
        answer = await self._speaker.tell(peer, "lease/promise", request, Promised)
        if older_grant_refused(answer, self._holder.record.served_epoch):
            return await self._speaker.tell(peer, "lease/promise", served, Promised) or answer
        return answer

    async def hand_on(self) -> float | None:
        """Until when the lease lasts that is renewed here, after one more renewal; None without one."""
        if not self._renewing:
            return None
        self._heard.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._heard.wait(), self._terms.duration_s)
        return core.lease_until(self._holder, self._terms)

    def go_on(self, until_s: float | None) -> None:
        """Have the lease that an earlier program of this process had, and renew it."""
        self._holder = self._holder.model_copy(update={"kept_until_s": until_s})
        self._renewing = until_s is not None

    async def renew(self) -> None:
        """Renew for as long as the lease is wanted. Runs until cancelled."""
        while True:
            if self._renewing:
                self._ask()
            await asyncio.sleep(self._terms.renew_every_s)

    def give_up(self, processes_left: int) -> bool:
        """Release what is held, once no process of the database is left, and begin to tell the peers."""
        self._renewing = False
        holder, release = core.release(self._holder, processes_left)
        if isinstance(release, Refusal):
            log("lease_not_released", message=release.message)
            return False
        self._keep_holder(holder)
        self._tell(release)
        return True

    def never_primary(self, epoch: int) -> None:
        """Say of an epoch that was released that the own database never was a primary under it, and begin to
        tell the peers."""
        self._tell(Release(holder=self._holder.record.node_id, epoch=epoch, never_primary=True))

    def _tell(self, release: Release) -> None:
        self.released(release)
        for peer in self._others:
            self._spawn(self._telling, self._tell_released(peer, release))

    def take_nothing_up(self) -> None:
        """From now on no lease is taken up without a run's order."""
        record = self._holder.record.model_copy(update={"served_epoch": 0})
        self._keep_holder(self._holder.model_copy(update={"record": record}))

    async def told(self) -> None:
        """Wait until every peer that can be reached knows of the release."""
        if self._telling:
            await asyncio.wait(self._telling, timeout=ANSWER_WITHIN_S)

    async def _tell_released(self, peer: Peer, release: Release) -> None:
        deadline = now() + TELL_WITHIN_S
        while now() < deadline:
            if await self._speaker.tell(peer, "lease/release", release, Release) is not None:
                return
            await asyncio.sleep(TELL_AGAIN_S)

    async def _until_held(self, within_s: float) -> Refusal | None:
        self._renewing = False
        deadline = now() + within_s
        while now() < deadline:
            self._heard.clear()
            self._ask()
            with_s = min(ASK_AGAIN_S, deadline - now())
            try:
                async with asyncio.timeout(with_s):
                    while not self.held:
                        await self._heard.wait()
                        self._heard.clear()
            except TimeoutError:
                continue
            self._renewing = True
            log("lease_held", epoch=self._holder.record.epoch)
            return None
        return self.last_refusal or Refusal(
            rule="no_lease",
            message=f"No majority granted epoch {self._holder.record.epoch} within {within_s:g} s",
            values={"epoch": self._holder.record.epoch},
            remedy="Check the other members' agents and the network",
        )

    def _ask(self) -> None:
        """One ask to every member, itself included; the answers are counted as they come."""
        self._holder, asked = core.ask(self._holder, uuid.uuid4().hex, self._terms, now())
        if isinstance(asked, Refusal):
            self.last_refusal = asked
            return
        self._hear(self.grant(asked))
        for peer in self._others:
            self._spawn(self._asking, self._ask_peer(peer, asked))

    async def _ask_peer(self, peer: Peer, asked: Ask) -> None:
        answer = await self._speaker.tell(peer, "lease/ask", asked, Granted)
        if answer is not None:
            self._hear(answer)

    def _hear(self, answer: Granted | Refusal) -> None:
        if isinstance(answer, Refusal):
            self.last_refusal = answer
            return
        before = self.serves_until
        self._keep_holder(core.answered(self._holder, answer, self._terms, now()))
        until = self.serves_until
        if until is not None and until != before and now() < until:
            self._note_what_was_left(before)
            self.on_until(until)
            self._heard.set()

    def _note_what_was_left(self, until: float | None) -> None:
        """Say how near a renewal ever came to being too late."""
        left_s = 0.0 if until is None else until - now()
        if self._renewing and 0 < left_s < self._least_left_s:
            self._least_left_s = left_s
            log("lease_renewed_with_least_left", left_s=round(left_s, 3))

    def _keep_holder(self, state: Holder) -> None:
        if state.record != self._holder.record:
            self._holder_file.write(state.record.model_dump_json())
        self._holder = state

    def _spawn(self, kept: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        kept.add(task)
        task.add_done_callback(kept.discard)

    # As a member

    @property
    def view(self) -> tuple[Grantor, Holder]:
        """For changes of membership: both sides as they are."""
        return self._grantor, self._holder

    def keep(self, grantor: Grantor, holder: Holder) -> None:
        """Take both sides from a change of membership, on disk before anything is answered."""
        self._keep_grantor(grantor)
        self._keep_holder(holder)

    async def confirmed(self, within_s: float) -> bool:
        """Wait until a majority of the present membership has granted; whether it came in time."""
        deadline = now() + within_s
        while (until := core.confirmed_until(self._holder, self._terms)) is None or now() >= until:
            if now() > deadline:
                return False
            self._ask()
            await asyncio.sleep(ASK_AGAIN_S)
        return True

    def _outside(self) -> Refusal | None:
        """Why this agent takes no part."""
        node_id, membership = self._grantor.record.node_id, self.membership
        if node_id in membership.members:
            return None
        known = "its record of it is blank, so it is new or lost what it granted"
        if membership.version:
            known = f"of membership {membership.version} are {', '.join(membership.members)}"
        return Refusal(
            rule="not_a_member",
            message=f"{node_id} is no member of the cluster: {known}",
            values={"membership_version": membership.version, "members": [*membership.members]},
            remedy=f"Add it (`qnwis-continuity member add {node_id}`); run every agent of a new cluster once"
            " with --new-cluster",
        )

    @property
    def _others(self) -> tuple[Peer, ...]:
        return self._peers.among(self.membership.members)


def records_of(config: AgentConfig) -> tuple[GrantorRecord | None, HolderRecord | None]:
    """What the agent has on disk as a grantor and as a holder. Raises StateError for a damaged record."""
    return _read(config.state_dir / GRANTOR, GrantorRecord), _read(config.state_dir / HOLDER, HolderRecord)


def found_cluster(config: AgentConfig) -> None:
    """Make the agent a first member of a new cluster, before it is ever started.

    Raises StateError where it has a record already: one that lost its memory must not be taken for a new one.
    And where its state_dir cannot be made or written to.
    """
    path = config.state_dir / GRANTOR
    members = tuple(sorted([config.node_id, *(peer.node_id for peer in config.peers)]))
    record = GrantorRecord(
        node_id=config.node_id,
        disk_id=uuid.uuid4().hex,
        membership=Membership(version=1, members=members),
    )
    try:
        if path.exists():
            raise StateError(
                f"{path}: exists; only an agent that never ran can be a first member of a new cluster"
            )
        config.state_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        TwoCopies(path).write(record.model_dump_json())
    except OSError as error:
        raise StateError(
            f"{path}: cannot be made ({error.strerror}); make {config.state_dir} for the user that the agent"
            " runs as: install -d -o USER -g GROUP"
        ) from error


def _promised_epoch(refusal: Refusal) -> int:
    promised = refusal.values.get("promised", 0)
    return promised if isinstance(promised, int) else 0


def _read(path: Path, kind: type[M]) -> M | None:
    text = read_copies(path).text
    if text == "":
        return None
    try:
        return kind.model_validate_json(text or "")
    except ValidationError as error:
        why = "no copy in it is whole" if text is None else error.errors()[0]["msg"]
        raise StateError(
            f"{path}: is not a lease record ({why}); what this agent granted is not"
            " known. Restore the file, or rebuild this node as a new member"
        ) from error
