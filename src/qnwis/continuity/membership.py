"""Membership: how the set of agents whose grants count changes, one node at a time.

The invariant of `leases.py` needs any two majorities that grant at the same time to share a member. Those of
neighbouring memberships do. The invariant here: versions form one chain, and none is left behind by two while
its majority can still grant. In short:

- Only the holder of the lease proposes, with its epoch confirmed by a majority of the present membership,
  and one change under one epoch. An agent accepts only from the holder it granted its newest epoch to. So an
  epoch has one proposal, and a later holder hears with its grants what a majority may have accepted before:
  it must propose that again before anything of its own.
- The change is agreed when a majority of the *old* members accepted. An agent adopts it then, and refuses
  every request for another version. The holder is granted its lease by the new majority before it can
  propose the next change.

The one exception is a forced membership, which an emergency override installs (`forced.py`): nobody agrees to
it, and whoever hears of it follows.

A node that lost its disk has forgotten what it granted: it is removed, and added again with its new
`disk_id`. So a late or repeated word of an earlier membership does not make it a member.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from .lease_messages import Binding, LeaseTerms, Membership, Pending
from .leases import Grantor, GrantorRecord, Holder, confirmed_until, lease_until
from .model import Identifier, Model
from .refusal import Refusal
from .topology import Database


class Peer(Model):
    """Where a member is reached by the others."""

    node_id: Identifier
    agent_url: str
    """Base URL, for example `http://127.0.0.12:8443`."""
    database: Database | None = None
    """Where its PostgreSQL listens; None for a witness."""


class AddMember(Model):
    """Make a node a member."""

    kind: Literal["add"] = "add"
    peer: Peer
    disk_id: str
    """As its agent says: of the record that it began, so that one that forgot is not taken for it."""


class RemoveMember(Model):
    """Let a node be none any more."""

    kind: Literal["remove"] = "remove"
    node_id: Identifier


AnyChange = Annotated[AddMember | RemoveMember, Field(discriminator="kind")]


class Proposal(Model):
    """The holder proposes the next membership to every member of the present one."""

    holder: str
    epoch: int
    membership: Membership


class Proposed(Model):
    """A proposal, with where its members are reached."""

    proposal: Proposal
    peers: tuple[Peer, ...]


class Accepted(Model):
    member: str
    epoch: int
    membership: Membership


class Forced(Model):
    """By which run and why a membership was installed that no majority agreed to."""

    run_id: str
    lost: tuple[str, ...]
    """node_ids that are given up; empty where an override was taken back."""
    reason: str


class Adoption(Model):
    """A change that was agreed, or forced. Agents send it on to whoever is behind."""

    old: Membership
    new: Membership
    acceptors: tuple[str, ...]
    forced: Forced | None = None
    """None where a majority of the old members accepted it."""


class Adopted(Model):
    """A change that is to be followed, with where its members are reached."""

    adoption: Adoption
    peers: tuple[Peer, ...]


class MembershipView(Model):
    """What one agent knows of the membership."""

    node_id: str
    disk_id: str
    membership: Membership
    adoption: Adoption | None = None
    """The change that it last followed, for whoever is behind."""
    peers: tuple[Peer, ...] = ()
    bound: Binding | None = None
    """What it granted and cannot yet grant to another."""

    def bound_against(self, holder: str) -> Binding | None:
        """The grant, if it keeps this agent from granting to the holder."""
        return self.bound if self.bound is not None and self.bound.holder != holder else None


def changed(old: Membership, wanted: AnyChange) -> Membership | Refusal:
    """The membership that follows by this change; `old` itself where it is so already."""
    if isinstance(wanted, RemoveMember):
        return without_member(old, wanted.node_id) if wanted.node_id in old.members else old
    node_id = wanted.peer.node_id
    if node_id not in old.members:
        return with_member(old, node_id, wanted.disk_id)
    if dict(old.disks).get(node_id) == wanted.disk_id:
        return old
    return Refusal(
        rule="member_already",
        message=f"{node_id} is a member, with another record than the one begun as {wanted.disk_id}",
        values={"node_id": node_id, "disk_id": wanted.disk_id, "version": old.version},
        remedy="Remove it first, since what it granted may be forgotten; then add it (`member replace`)",
    )


def with_member(old: Membership, node_id: str, disk_id: str) -> Membership:
    """The next membership, with a node whose record was begun under this `disk_id`."""
    members, disks = (*old.members, node_id), (*old.disks, (node_id, disk_id))
    return Membership(version=old.version + 1, members=members, disks=disks)


def without_member(old: Membership, node_id: str) -> Membership:
    """The next membership, without this node."""
    members = tuple(member for member in old.members if member != node_id)
    disks = tuple(disk for disk in old.disks if disk[0] != node_id)
    return Membership(version=old.version + 1, members=members, disks=disks)


def membership_refusal(old: Membership, new: Membership) -> Refusal | None:
    """Why `new` cannot follow `old`."""
    removals = [without_member(old, member) for member in old.members]
    additions = [with_member(old, *disk) for disk in new.disks if disk[0] not in old.members]
    if new in removals + additions and new.members:
        return None
    return Refusal(
        rule="not_one_change",
        message=f"Membership {new.version} of {new.members} does not follow {old.version} of {old.members}.",
        values={"version": new.version, "own_version": old.version, "members": [*new.members]},
        remedy=f"Propose version {old.version + 1} with one node added, by its disk_id, or one removed.",
    )


def propose(
    state: Holder, wanted: Membership, terms: LeaseTerms, now_s: float
) -> tuple[Holder, Proposal | Refusal]:
    """Propose the wanted change, unless an earlier one must be finished first.

    The caller writes a changed record to disk before it sends the proposal, since of two under one epoch both
    could be agreed. To remove the holder itself is safe, but lets it serve from outside; switch over before.
    """
    record, until_s = state.record, confirmed_until(state, terms)
    if until_s is None or now_s >= until_s:
        return state, Refusal(
            rule="lease_not_confirmed",
            message=f"{record.node_id} has no majority of membership {state.membership.version}"
            f" for epoch {record.epoch}.",
            values={"version": state.membership.version, "epoch": record.epoch},
            remedy="Let the node that holds the lease propose, once it is confirmed.",
        )
    new = _unfinished(state) or wanted
    if (refusal := membership_refusal(state.membership, new)) is not None:
        return state, refusal
    state = state.model_copy(update={"record": record.model_copy(update={"proposed": new})})
    return state, Proposal(holder=record.node_id, epoch=record.epoch, membership=new)


def accept(state: Grantor, proposal: Proposal) -> tuple[Grantor, Accepted | Refusal]:
    """Accept a change from the holder of the newest epoch. The caller writes it to disk, then answers."""
    record, new = state.record, proposal.membership
    refusal = membership_refusal(record.membership, new) or _not_its_holder(state, proposal)
    if refusal is not None:
        return state, refusal
    pending = Pending(epoch=proposal.epoch, membership=new)
    record = record.model_copy(update={"pending": pending})
    return state.model_copy(update={"record": record}), Accepted(
        member=record.node_id, epoch=proposal.epoch, membership=new
    )


def agreed(old: Membership, proposal: Proposal, answers: Iterable[Accepted]) -> Adoption | None:
    """The change as agreed, once a majority of the old members accepted this very proposal."""
    wanted = (proposal.epoch, proposal.membership)
    acceptors = {answer.member for answer in answers if (answer.epoch, answer.membership) == wanted}
    found = tuple(member for member in old.members if member in acceptors)
    if len(found) < old.majority:
        return None
    return Adoption(old=old, new=proposal.membership, acceptors=found)


def adopt(state: Grantor, adoption: Adoption) -> Grantor:
    """Follow a change that was agreed or forced, unless it is older than what this agent knows or means
    another disk.

    The caller writes it to disk before anything else is answered, and moves its holder side. What this agent
    granted, promised and is bound to stays as it is.
    """
    record, new = state.record, adoption.new
    agreed_by = set(adoption.acceptors) & set(adoption.old.members)
    binds = adoption.forced is not None or len(agreed_by) >= adoption.old.majority
    if new.version <= record.membership.version or not binds:
        return state
    if not _means_this_disk(record, new):
        return state
    record = record.model_copy(update={"membership": new, "pending": None})
    return state.model_copy(update={"record": record})


def moved(state: Holder, membership: Membership, terms: LeaseTerms) -> Holder:
    """The holder side of an agent that adopted: its lease lasts, and has to be confirmed anew."""
    return Holder(record=state.record, membership=membership, kept_until_s=lease_until(state, terms))


def _unfinished(state: Holder) -> Membership | None:
    """The change that this holder, or one before it, may have got accepted by a majority."""
    own = state.record.proposed
    if own is not None and own.version > state.membership.version:
        return own
    return state.pending.membership if state.pending is not None else None


def _not_its_holder(state: Grantor, proposal: Proposal) -> Refusal | None:
    record, granted = state.record, state.record.granted
    held = granted is not None and (granted.epoch, granted.holder) == (record.epoch, proposal.holder)
    if proposal.epoch == record.epoch and held:
        return None
    return Refusal(
        rule="not_the_holder",
        message=f"{record.node_id} granted nothing to {proposal.holder} for epoch {proposal.epoch},"
        f" or promised epoch {record.epoch} since.",
        values={"holder": proposal.holder, "epoch": proposal.epoch, "own_epoch": record.epoch},
        remedy="Let the node that holds the lease propose.",
    )


def _means_this_disk(record: GrantorRecord, new: Membership) -> bool:
    """A member that forgot what it granted must not pass for the member it was."""
    added = dict(new.disks).get(record.node_id)
    if added is None:
        return record.membership.version > 0
    return added == record.disk_id
