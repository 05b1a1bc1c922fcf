"""Forced membership: what an emergency override installs where no majority of the old one is left.

Everything else keeps the invariant of `leases.py` by itself. This does not: no majority of the old members
agrees to it, so if the lost nodes live on somewhere, they may let the old primary acknowledge writes until
they hear of it. From when it is installed the guarantee is suspended; who starts it says that those nodes are
gone, and two admins agree to exactly that. What it does keep:

- It is newer than every membership that the lost nodes can agree on among themselves, and its epoch is above
  those that they take (`GENERATION`, `EPOCHS`). So whoever hears of it gives way, and it gives way to none
  of them.
- Rival overrides of one cluster differ, and when they meet the lower one gives way (`TAG`).
- A lost node that comes back is no member of it, so it grants nothing and serves nothing until a person adds
  it again.
- A member that serves, or was granted the lease, is not forced: where there is a lease, nothing is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from hashlib import sha256

from pydantic import JsonValue

from .lease_messages import Membership
from .membership import Adoption, Forced, MembershipView
from .refusal import Refusal

GENERATION = 1_000_000
"""Each forced membership's version goes to the next multiple of this, so far above any agreed one."""
TAG = 1_000
"""Below it, the run's own number times this: two rival runs do not come to one version. What is left, 999, is
for the changes that members agree on until the next override."""
EPOCHS = 1_000
"""A forced epoch is the next multiple of this: the lost nodes had to fail over so often to reach it."""


def forced_epoch(highest: int) -> int:
    """The epoch of a run that forces a membership, where `highest` is the highest that survivors know."""
    return (highest // EPOCHS + 1) * EPOCHS


def is_forced(membership: Membership) -> bool:
    return membership.version >= GENERATION


def forced_adoption(views: Iterable[MembershipView], forced: Forced) -> Adoption | Refusal:
    """What the survivors adopt, from what they know; the same again for the run that it was made for."""
    views = tuple(views)
    newest = max(views, key=lambda view: view.membership.version)
    own = newest.adoption
    if own is not None and own.new == newest.membership and own.forced == forced:
        return own
    old = newest.membership
    members = tuple(member for member in old.members if member not in forced.lost)
    if not members:
        return _refused(
            "nobody_left",
            f"Without {', '.join(forced.lost)} membership {old.version} has no members",
            {"members": [*old.members], "lost": [*forced.lost]},
            "Name only nodes that are gone.",
        )
    return Adoption(old=old, new=_next(old, members, forced.run_id), acceptors=(), forced=forced)


def taken_back(adoption: Adoption, run_id: str) -> Adoption:
    """The old members again, as a forced membership of its own: newer than the one that is taken back."""
    assert adoption.forced is not None
    new = _next(adoption.new, adoption.old.members, f"{run_id}/undo", adoption.old.disks)
    forced = adoption.forced.model_copy(
        update={"lost": (), "reason": f"taken back: {adoption.forced.reason}"}
    )
    return Adoption(old=adoption.new, new=new, acceptors=(), forced=forced)


def undoing(views: Iterable[MembershipView], forced: Forced) -> Adoption | None:
    """What takes a run's forced membership back, for every survivor; for this run always the same. None where
    none of them has heard of the membership, or all follow a later one than that.

    An earlier attempt may have reached some of them only: the newest is the taken-back one then.
    """
    adoption = max(views, key=lambda view: view.membership.version).adoption
    if adoption is None or adoption.forced is None or adoption.forced.run_id != forced.run_id:
        return None
    return taken_back(adoption, forced.run_id) if adoption.forced.lost else adoption


def force_refusal(view: MembershipView, adoption: Adoption, *, holds_lease: bool) -> Refusal | None:
    """Why this member does not take part."""
    new = adoption.new
    if view.membership == new:
        return None
    if new.version <= view.membership.version:
        return _refused(
            "membership_older",
            f"{view.node_id} is at membership {view.membership.version}, which is newer than {new.version}",
            {"version": new.version, "own_version": view.membership.version},
            "Look at the members again, and start anew.",
        )
    if adoption.forced is not None and adoption.forced.lost and holds_lease:
        return _refused(
            "member_serves",
            f"{view.node_id} holds the lease of its cluster, so a majority grants it",
            {"node_id": view.node_id, "version": view.membership.version},
            "Nothing has to be forced: move the service by a switchover.",
        )
    return None


def old_majority_is_left(adoption: Adoption) -> bool:
    """Whether the members that are left could have agreed among themselves; then a fence proves as always."""
    return len(set(adoption.new.members) & set(adoption.old.members)) >= adoption.old.majority


def _next(
    old: Membership, members: Collection[str], run_id: str, disks: Iterable[tuple[str, str]] | None = None
) -> Membership:
    tag = 1 + int.from_bytes(sha256(run_id.encode()).digest()[:4]) % (GENERATION // TAG - 1)
    version = (old.version // GENERATION + 1) * GENERATION + tag * TAG
    kept = old.disks if disks is None else disks
    return Membership(
        version=version,
        members=tuple(members),
        disks=tuple(disk for disk in kept if disk[0] in set(members)),
    )


def _refused(rule: str, message: str, values: dict[str, JsonValue], remedy: str) -> Refusal:
    return Refusal(rule=rule, message=message, values=values, remedy=remedy)
