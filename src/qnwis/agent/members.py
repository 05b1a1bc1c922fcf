"""Changes of membership: the holder's agent carries one through, the others accept and adopt it.

What may change is decided in `qnwis.continuity.membership`; here are the disk and the network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from pydantic import ValidationError

from qnwis.continuity import leases
from qnwis.continuity import membership as core
from qnwis.continuity.forced import force_refusal, is_forced
from qnwis.continuity.lease_messages import Binding, Membership
from qnwis.continuity.membership import (
    Accepted,
    AddMember,
    Adopted,
    Adoption,
    AnyChange,
    MembershipView,
    Peer,
    Proposal,
    Proposed,
)
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import Replication, ReplicationMode
from qnwis.logs import log

from .config import AgentConfig
from .files import StateError, read_kept, write_durably
from .guard import now
from .lease import Leases
from .peers import Peers
from .speaking import Speaker

WAITS_FOR_A_BINDING = 2
ADOPTION = "adoption.json"
"""How often what binds a new member is waited for; then it is bound anew each time."""
LOOK_EVERY_S = 2.0
"""How often peers are asked whether this agent missed a change."""


class Members:
    """This agent's part in the membership. `on_change` hears of the other members after each change."""

    def __init__(self, config: AgentConfig, leases: Leases, peers: Peers, speaker: Speaker) -> None:
        """Raises StateError for a damaged record."""
        self._config = config
        self._leases = leases
        self._peers = peers
        self._speaker = speaker
        self._file = config.state_dir / ADOPTION
        self._adoption = adoption_of(config)
        self._one_at_a_time = asyncio.Lock()
        self.on_change: Callable[[], None] = lambda: None

    @property
    def others(self) -> tuple[Peer, ...]:
        """The other members; those of the configuration as long as this agent is none itself."""
        membership = self._leases.membership
        return self._peers.among(membership.members) if membership.version else self._peers.all

    @property
    def standbys(self) -> tuple[str, ...]:
        """The other members that hold data."""
        return tuple(peer.node_id for peer in self.others if peer.database is not None)

    @property
    def required_acks(self) -> int:
        """How many standbys a commit waits for. After nodes were given up, no more than there are: with fewer
        no commit would ever return, and that was agreed to."""
        wanted = self._config.replication.required_acks
        return min(wanted, len(self.standbys)) if is_forced(self._leases.membership) else wanted

    def view(self) -> MembershipView:
        grantor, _ = self._leases.view
        return MembershipView(
            node_id=self._config.node_id,
            disk_id=grantor.record.disk_id,
            membership=grantor.record.membership,
            adoption=self._adoption,
            peers=self._peers.all,
            bound=leases.binding(grantor, now()),
        )

    # As one of the old members

    def accept(self, proposed: Proposed) -> Accepted | Refusal:
        grantor, holder = self._leases.view
        grantor, answer = core.accept(grantor, proposed.proposal)
        if isinstance(answer, Accepted):
            self._peers.learn(proposed.peers)
            self._leases.keep(grantor, holder)
        return answer

    def adopt(self, adopted: Adopted) -> MembershipView:
        """Follow an agreed change; one that says nothing new changes nothing."""
        grantor, holder = self._leases.view
        after = core.adopt(grantor, adopted.adoption)
        if after != grantor:
            self._peers.learn(adopted.peers)
            # Before the record: a member that is behind can be told again, one that is ahead must be able to.
            write_durably(self._file, adopted.adoption.model_dump_json() + "\n")
            self._adoption = adopted.adoption
            membership = after.record.membership
            self._leases.keep(after, core.moved(holder, membership, self._config.lease))
            log(
                "membership",
                version=membership.version,
                members=list(membership.members),
                forced=_why(adopted),
            )
            self.on_change()
        return self.view()

    # In an emergency

    def force(self, adopted: Adopted) -> MembershipView | Refusal:
        """Follow a membership that no majority agreed to, unless this node itself serves."""
        refusal = force_refusal(self.view(), adopted.adoption, holds_lease=self._leases.held)
        return refusal or self.adopt(adopted)

    # As the holder of the lease

    async def change(self, wanted: AnyChange) -> MembershipView | Refusal:
        """Carry a change through. Asked again it goes on where it was."""
        async with self._one_at_a_time:
            while True:
                old = self._leases.membership
                new = core.changed(old, wanted)
                if isinstance(new, Refusal):
                    return new
                if new == old:
                    return self.view()
                refusal = self._unwise(new, wanted) or await self._majority_missing(new, wanted)
                if refusal is None:
                    refusal = await self._propose(new, wanted)
                if refusal is not None:
                    return refusal

    async def _propose(self, new: Membership, wanted: AnyChange) -> Refusal | None:
        """One change, the wanted one or an unfinished one before it; why it is not agreed, or None."""
        if isinstance(wanted, AddMember):
            self._peers.learn([wanted.peer])
        grantor, holder = self._leases.view
        old = grantor.record.membership
        holder, proposal = core.propose(holder, new, self._config.lease, now())
        if isinstance(proposal, Refusal):
            return proposal
        if self._config.node_id not in proposal.membership.members:
            return _holder_stays(self._config.node_id)  # a change that an earlier holder left unfinished
        self._leases.keep(grantor, holder)
        proposed = Proposed(proposal=proposal, peers=self._peers.all)
        answers = await self._speaker.tell_all(self.others, "membership/accept", proposed, Accepted)
        answers.append(self.accept(proposed))
        accepted = [answer for answer in answers if isinstance(answer, Accepted)]
        adoption = core.agreed(old, proposal, accepted)
        if adoption is None:
            return _not_agreed(old, proposal, [a for a in answers if isinstance(a, Refusal)], len(accepted))
        adopted = Adopted(adoption=adoption, peers=self._peers.all)
        both = self._peers.among({*old.members, *proposal.membership.members})
        self.adopt(adopted)
        await self._speaker.tell_all(both, "membership/adopt", adopted, MembershipView)
        if not await self._leases.confirmed(self._config.lease.duration_s):
            return _not_confirmed(proposal.membership)
        return None

    def _unwise(self, new: Membership, wanted: AnyChange) -> Refusal | None:
        if isinstance(wanted, AddMember):
            return None
        if wanted.node_id == self._config.node_id:
            return _holder_stays(wanted.node_id)
        data = [peer for peer in self._peers.among(new.members) if peer.database is not None]
        return _too_few_standbys(self._config.replication, wanted.node_id, len(data))

    async def _majority_missing(self, new: Membership, wanted: AnyChange) -> Refusal | None:
        """A change that leaves the primary without a majority would end its database."""
        if isinstance(wanted, AddMember):
            self._peers.learn([wanted.peer])
        peers = self._peers.among(new.members)
        views = await asyncio.gather(
            *(self._speaker.ask(peer, "membership", MembershipView) for peer in peers)
        )
        present = {view.node_id: view for view in views if isinstance(view, MembershipView)}
        if isinstance(wanted, AddMember):
            refusal = self._unfit(wanted, present.get(wanted.peer.node_id)) or await self._let_go(wanted.peer)
            if refusal is not None:
                return refusal
        if len(present) + 1 >= new.majority:
            return None
        missing = sorted(set(new.members) - set(present) - {self._config.node_id})
        return Refusal(
            rule="majority_missing",
            message=f"Of the {len(new.members)} members that there would be only {len(present) + 1} answer;"
            f" a majority is {new.majority}",
            values={"answering": len(present) + 1, "majority": new.majority, "missing": [*missing]},
            remedy="Bring those nodes back first, or remove them",
        )

    def _unfit(self, wanted: AddMember, view: MembershipView | None) -> Refusal | None:
        """Why a new member could not take part, as it is now."""
        if view is None or view.disk_id != wanted.disk_id:
            return _not_the_disk(wanted, None if view is None else view.disk_id)
        if self._config.node_id not in {peer.node_id for peer in view.peers}:
            return _not_its_peer(wanted.peer, self._config.node_id)
        return None

    async def _let_go(self, peer: Peer) -> Refusal | None:
        """Wait until a new member can grant: one that itself held a lease, or granted one outside of this
        membership, is bound for that lease's length, and the primary's own may end before."""
        bound = await self._bound(peer)
        for _ in range(WAITS_FOR_A_BINDING):
            if bound is None:
                return None
            await asyncio.sleep(bound.remaining_s)
            bound = await self._bound(peer)
        return None if bound is None else _still_bound(peer, bound)

    async def _bound(self, peer: Peer) -> Binding | None:
        """What keeps a peer from granting here; one that is silent is found missing elsewhere."""
        view = await self._speaker.ask(peer, "membership", MembershipView)
        return view.bound_against(self._config.node_id) if isinstance(view, MembershipView) else None

    # Staying together

    async def keep_together(self) -> None:
        """Take in changes that this agent missed. Runs until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.catch_up(self.others)

    async def catch_up(self, peers: tuple[Peer, ...]) -> None:
        """Take in the newest change that these know of. A peer that is silent is waited for a second; what
        another node says where a peer was, one of another cluster by now, is of no account."""
        answers = await asyncio.gather(
            *(self._speaker.ask(peer, "membership", MembershipView) for peer in peers)
        )
        views = [
            answer
            for peer, answer in zip(peers, answers, strict=True)
            if isinstance(answer, MembershipView) and answer.node_id == peer.node_id
        ]
        newest = max(
            (view for view in views if view.adoption is not None),
            key=lambda view: view.membership.version,
            default=None,
        )
        if newest is not None and newest.adoption is not None:
            self.adopt(Adopted(adoption=newest.adoption, peers=newest.peers))
        self._find(views)

    def _find(self, views: Iterable[MembershipView]) -> None:
        """Learn where those members are that this agent does not know, from others that know them: it asks
        them nothing until then, and grants them nothing."""
        own = self._leases.membership
        missing = set(own.members) - {self._config.node_id, *(peer.node_id for peer in self._peers.all)}
        found = [
            peer for view in views if view.membership == own for peer in view.peers if peer.node_id in missing
        ]
        if found:
            self._peers.learn(found)
            self.on_change()


def _why(adopted: Adopted) -> str | None:
    forced = adopted.adoption.forced
    return None if forced is None else f"run {forced.run_id}: {forced.reason}"


def _holder_stays(node_id: str) -> Refusal:
    return Refusal(
        rule="holder_stays",
        message=f"{node_id} is the primary and cannot be removed",
        values={"node_id": node_id},
        remedy="Switch over to another node first",
    )


def _too_few_standbys(replication: Replication, leaving: str, data_members: int) -> Refusal | None:
    needed = replication.required_acks
    if replication.mode is ReplicationMode.ASYNCHRONOUS or data_members >= needed:
        return None
    return Refusal(
        rule="too_few_standbys",
        message=f"Without {leaving} {data_members} standbys would be left; a commit waits for {needed}",
        values={"standbys": data_members, "required_acks": needed},
        remedy="Add another node that holds data first",
    )


def _not_the_disk(wanted: AddMember, found: str | None) -> Refusal:
    node_id = wanted.peer.node_id
    return Refusal(
        rule="new_member_missing",
        message=f"The agent of {node_id} at {wanted.peer.agent_url} "
        + ("does not answer" if found is None else f"began its record as {found}, not {wanted.disk_id}"),
        values={"node_id": node_id, "disk_id": wanted.disk_id, "found": found},
        remedy="Start its agent, see that the others reach it, and ask again",
    )


def _not_its_peer(new: Peer, holder: str) -> Refusal:
    return Refusal(
        rule="new_member_lists_others",
        message=f"{new.node_id} does not have {holder} among its peers, and so would grant it nothing",
        values={"node_id": new.node_id, "holder": holder},
        remedy=f"List {holder} under `peers` in agent.yaml of {new.node_id}, send it SIGHUP, and ask again",
    )


def _still_bound(peer: Peer, bound: Binding) -> Refusal:
    return Refusal(
        rule="new_member_bound",
        message=f"{peer.node_id} keeps granting epoch {bound.epoch} to {bound.holder}",
        values={"node_id": peer.node_id, "holder": bound.holder, "epoch": bound.epoch},
        remedy="See why it takes part in another membership (`qnwis-continuity member list`), and ask again",
    )


def _not_agreed(old: Membership, proposal: Proposal, refusals: list[Refusal], accepted: int) -> Refusal:
    why = "; ".join(str(refusal) for refusal in refusals) or "the others did not answer"
    return Refusal(
        rule="change_not_agreed",
        message=f"{accepted} of {len(old.members)} members accepted membership {proposal.membership.version};"
        f" a majority is {old.majority} ({why})",
        values={"accepted": accepted, "majority": old.majority, "version": proposal.membership.version},
        remedy="Bring the members back, and ask again: the change goes on where it was",
    )


def _not_confirmed(new: Membership) -> Refusal:
    return Refusal(
        rule="change_not_confirmed",
        message=f"Membership {new.version} is agreed, but no majority of {', '.join(new.members)} has granted"
        " under it yet",
        values={"version": new.version, "members": [*new.members]},
        remedy="See that the members' agents run and reach each other",
    )


def adoption_of(config: AgentConfig) -> Adoption | None:
    """The change of membership that the agent last followed. Raises StateError for a damaged record."""
    path = config.state_dir / ADOPTION
    text = read_kept(path)
    if text is None:
        return None
    try:
        return Adoption.model_validate_json(text)
    except ValidationError as error:
        raise StateError(
            f"{path}: is not a change of membership ({error.errors()[0]['msg']}); remove it, it is only"
            " there to tell peers that are behind"
        ) from error
