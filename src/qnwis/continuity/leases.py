"""Leases: which node may acknowledge writes, decided by the cluster's agents among themselves.

The invariant: at no instant may two nodes acknowledge writes, and epochs only grow, each held by one node.
It rests on what agents do and remember alone; a run that lies, whose clock is wrong or that is told to go on
by a person can make a cluster wait, never make it write twice. (An emergency override that gives nodes up
suspends it until these have heard of it: `forced.py`.) In short:

- A *holder* asks every member and may serve while a majority's grants are younger than the lease, counted
  from before it asked, less the drift margin. Two majorities share a member.
- A *grantor* gives its grant to another holder only when its own last one has run out by its own clock or was
  released. It began to count after the holder did and counts longer. So the shared member never helps two.
  A renewal under shorter terms never shortens what an earlier grant binds it to.
- It grants and promises nothing to a holder that is no member of the membership that it knows.
- It grants nothing below an epoch it promised, granted or was told of, and no epoch to two holders. So a
  majority's promises end all epochs below: what they answer of earlier grants stays true, and so does a
  standby's flushed position.
- A holder *releases* an epoch when no process of its database is left, and never serves under it, or under
  one below it, again. So a release stays true however late, and however often, it arrives.
- A holder that never was a primary under the epoch that it released may say so: a grantor then counts what it
  had granted before, so that the primary of before, which has every write, may take its lease up again. The
  epoch stays taken.

What must outlive a restart is in the two records. The caller writes a changed record to disk before it sends
what came with it, and before its database serves. A restarted grantor counts its last grant as a full lease
from then on; a restarted holder has no lease until it is granted one.

All times are seconds of the caller's own monotonic clock, one that counts while the machine is suspended; no
time of one node is ever compared with another's. How the set of members changes is in `membership.py`.
"""

from __future__ import annotations

from .lease_messages import (
    Ask,
    Binding,
    Granted,
    LastGrant,
    LeaseTerms,
    Membership,
    Pending,
    Promised,
    PromiseRequest,
    Release,
)
from .model import Model
from .refusal import Refusal

# --- the grantor: every agent, the holder's own included ---


class GrantorRecord(Model):
    """What a grantor must not forget."""

    node_id: str
    disk_id: str = ""
    """Made anew whenever this record is begun: tells a node that forgot from the one that knew."""
    membership: Membership = Membership()
    epoch: int = 0
    """The highest it promised, granted or was told of by an order."""
    run_id: str = ""
    """To whom it promised that epoch; empty while it is open to any run, since only an order told of it."""
    granted: LastGrant | None = None
    before: LastGrant | None = None
    """What was granted before that one's epoch; it counts again where nothing comes of that."""
    void: LastGrant | None = None
    """Of an epoch of which nothing came; nobody is granted that again."""
    pending: Pending | None = None


class Grantor(Model):
    record: GrantorRecord
    granted_until_s: float | None = None
    """Until when the last grant binds; None when it does not."""
    reserved_until_s: float | None = None
    """Until when a former holder has to wait for the run that was promised the epoch."""


def grant(state: Grantor, ask: Ask, terms: LeaseTerms, now_s: float) -> tuple[Grantor, Granted | Refusal]:
    """Grant or renew the lease of an epoch to the holder that asks for it."""
    record = state.record
    refusal = (
        _other_membership(record, ask.membership_version)
        or _no_member(record, ask.holder)
        or _epoch_gone(record, ask.epoch, ask.run_id)
        or _epoch_taken(record, ask)
        or _bound_to_another(state, ask, now_s)
    )
    if refusal is not None:
        return state, refusal
    until_s, on_record_s = _bound_by(state, terms, now_s)
    if not _is_on_record(record.granted, ask, on_record_s):
        granted = LastGrant(epoch=ask.epoch, holder=ask.holder, duration_s=on_record_s)
        renewed = record.granted is not None and record.granted.epoch == ask.epoch
        before = record.before if renewed else record.granted
        record = record.model_copy(
            update={"epoch": ask.epoch, "run_id": ask.run_id, "granted": granted, "before": before}
        )
    return state.model_copy(update={"record": record, "granted_until_s": until_s}), Granted(
        ask_id=ask.ask_id,
        member=record.node_id,
        holder=ask.holder,
        epoch=ask.epoch,
        duration_s=terms.duration_s,
        pending=record.pending,
    )


def promise(
    state: Grantor, request: PromiseRequest, terms: LeaseTerms, now_s: float
) -> tuple[Grantor, Promised | Refusal]:
    """Promise an epoch. A lease already granted stays, but cannot be renewed here any more."""
    record = state.record
    refusal = (
        _other_membership(record, request.membership_version)
        or _no_member(record, request.former_holder)
        or _epoch_gone(record, request.epoch, request.run_id)
        or _reserved(state, request, now_s)
    )
    if refusal is not None:
        return state, refusal
    record = record.model_copy(update={"epoch": request.epoch, "run_id": request.run_id})
    reserved_until_s = now_s + terms.reserve_s if request.former_holder is None else None
    return state.model_copy(update={"record": record, "reserved_until_s": reserved_until_s}), Promised(
        member=record.node_id,
        epoch=request.epoch,
        run_id=request.run_id,
        membership_version=request.membership_version,
        granted=record.granted,
        remaining_s=_remaining_s(state, now_s),
    )


def told(state: Grantor, epoch: int, terms: LeaseTerms, now_s: float) -> Grantor:
    """Heed the epoch that an order brings: nothing below it is granted or promised any more.

    The order may be of another run than the one that made the epoch's primary (a person's rejoin, say), so it
    does not promise the epoch to anybody: the first ask or promise does.
    """
    if epoch <= state.record.epoch:
        return state
    record = state.record.model_copy(update={"epoch": epoch, "run_id": ""})
    return state.model_copy(update={"record": record, "reserved_until_s": now_s + terms.reserve_s})


def withdrawn(state: Grantor, epoch: int, run_id: str) -> Grantor:
    """The run gave up: the former holder may take the lease up again, under a higher epoch.

    A run withdraws only an epoch under which it ordered no promotion, or one that is known to have failed.
    """
    if (state.record.epoch, state.record.run_id) != (epoch, run_id):
        return state
    return state.model_copy(update={"reserved_until_s": None})


def released(state: Grantor, release: Release) -> Grantor:
    """Heed a release. One of an epoch below the last grant says nothing about that grant.

    A holder that never was a primary under that very epoch has written nothing: whoever may have written last
    is the one that was granted before. Where that was forgotten, the grant counts as any other.
    """
    record = state.record
    granted = record.granted
    if granted is None or granted.holder != release.holder or granted.epoch > release.epoch:
        return state
    granted = granted.model_copy(update={"released": True})
    if not release.never_primary or granted.epoch != release.epoch or record.before is None:
        record = record.model_copy(update={"granted": granted})
        return state.model_copy(update={"record": record, "granted_until_s": None})
    record = record.model_copy(update={"granted": record.before, "before": None, "void": granted})
    state = state.model_copy(update={"record": record, "granted_until_s": None})
    return released(state, release.model_copy(update={"never_primary": None}))  # of its own before


def restarted(record: GrantorRecord, now_s: float) -> Grantor:
    """A grantor after a restart: it cannot know when it gave its last grant, so that binds it anew."""
    granted = record.granted
    if granted is None or granted.released:
        return Grantor(record=record)
    return Grantor(record=record, granted_until_s=now_s + granted.duration_s)


def _bound_by(state: Grantor, terms: LeaseTerms, now_s: float) -> tuple[float, float]:
    """Until when one more grant binds, and the duration to have on record for a restart.

    The terms may have become shorter since the last grant. Its holder still counts that in full, so it binds
    to its end, and the record keeps its duration until a grant of these terms reaches as far.
    """
    granted, bound_until_s, until_s = state.record.granted, state.granted_until_s, now_s + terms.duration_s
    if granted is None or bound_until_s is None or bound_until_s <= until_s:
        return until_s, terms.duration_s
    return bound_until_s, granted.duration_s


def _is_on_record(granted: LastGrant | None, ask: Ask, duration_s: float) -> bool:
    """A renewal leaves nothing new to remember: for the same epoch the same run was promised it, too."""
    wanted = (ask.epoch, ask.holder, duration_s, False)
    return granted is not None and wanted == (
        granted.epoch,
        granted.holder,
        granted.duration_s,
        granted.released,
    )


def _other_membership(record: GrantorRecord, version: int) -> Refusal | None:
    if version == record.membership.version:
        return None
    return Refusal(
        rule="other_membership",
        message=f"{record.node_id} is at membership {record.membership.version}, not {version}.",
        values={"version": version, "own_version": record.membership.version},
        remedy="Whichever is behind must adopt the newer membership first.",
    )


def _no_member(record: GrantorRecord, holder: str | None) -> Refusal | None:
    """`holder`: None where a run asks. An epoch that went to a stranger would be lost to the members."""
    members = record.membership.members
    if holder is None or holder in members:
        return None
    return Refusal(
        rule="not_a_member",
        message=f"{holder} is none of {', '.join(members) or 'nobody'}, the members that {record.node_id}"
        " knows.",
        values={"holder": holder, "membership_version": record.membership.version, "members": [*members]},
        remedy=f"Add it (`qnwis-continuity member add {holder}`).",
    )


def _epoch_gone(record: GrantorRecord, epoch: int, run_id: str) -> Refusal | None:
    if epoch > record.epoch or (epoch == record.epoch and record.run_id in ("", run_id)):
        return None
    whose = f"promised {record.epoch} to {record.run_id}" if record.run_id else f"was told of {record.epoch}"
    return Refusal(
        rule="epoch_gone",
        message=f"Epoch {epoch} for {run_id}: {record.node_id} {whose}.",
        values={"epoch": epoch, "run_id": run_id, "promised": record.epoch, "promised_to": record.run_id},
        remedy="Take an epoch above the promised one.",
    )


def _epoch_taken(record: GrantorRecord, ask: Ask) -> Refusal | None:
    of_epoch = (g for g in (record.granted, record.void) if g is not None and g.epoch == ask.epoch)
    granted = next(of_epoch, None)
    if granted is None or (granted.holder == ask.holder and not granted.released):
        return None
    how = "released by" if granted.released else "granted to"
    return Refusal(
        rule="epoch_taken",
        message=f"Epoch {ask.epoch} was {how} {granted.holder}; {ask.holder} cannot hold it.",
        values={"epoch": ask.epoch, "holder": granted.holder, "released": granted.released},
        remedy="Take a new epoch.",
    )


def _bound_to_another(state: Grantor, ask: Ask, now_s: float) -> Refusal | None:
    granted, left_s = state.record.granted, _remaining_s(state, now_s)
    if granted is None or granted.holder == ask.holder or left_s == 0:
        return None
    return Refusal(
        rule="bound_to_another",
        message=f"{state.record.node_id} granted epoch {granted.epoch} to {granted.holder}"
        f" for another {left_s:.3f} s.",
        values={"holder": granted.holder, "epoch": granted.epoch, "remaining_s": left_s},
        remedy="Ask again when it has run out, or after its release.",
    )


def _reserved(state: Grantor, request: PromiseRequest, now_s: float) -> Refusal | None:
    until_s = state.reserved_until_s
    if request.former_holder is None or until_s is None or now_s >= until_s:
        return None
    return Refusal(
        rule="reserved",
        message=f"Run {state.record.run_id} was promised epoch {state.record.epoch} and may still promote.",
        values={"run_id": state.record.run_id, "epoch": state.record.epoch, "remaining_s": until_s - now_s},
        remedy="Try again when the run has withdrawn, or when the time has passed.",
    )


def binding(state: Grantor, now_s: float) -> Binding | None:
    """The last grant, as long as it binds."""
    granted, left_s = state.record.granted, _remaining_s(state, now_s)
    if granted is None or left_s == 0:
        return None
    return Binding(holder=granted.holder, epoch=granted.epoch, remaining_s=left_s)


def _remaining_s(state: Grantor, now_s: float) -> float:
    return 0.0 if state.granted_until_s is None else max(0.0, state.granted_until_s - now_s)


# --- the holder: an agent whose database would serve writes ---


ORDERED = -1
"""In place of the last epoch that was held."""


class HolderRecord(Model):
    """What a holder must not forget. Its membership is its own grantor's."""

    node_id: str
    epoch: int = 0
    """The one it asks for; 0 before the first."""
    run_id: str = ""
    served_epoch: int = 0
    """The last one it held; ORDERED from a run's order to another one until it holds that: the run may have
    passed over others' writes."""
    released_epoch: int = 0
    """It serves under none up to this one."""
    proposed: Membership | None = None
    """The change of membership that it last proposed under this epoch."""


class SentAsk(Model):
    ask_id: str
    asked_at_s: float


class CountedAsk(Model):
    member: str
    asked_at_s: float
    """When it sent the newest ask that this member granted."""


class Holder(Model):
    """After a restart only record and membership are left."""

    record: HolderRecord
    membership: Membership
    asks: tuple[SentAsk, ...] = ()
    counted: tuple[CountedAsk, ...] = ()
    """Under this epoch and membership, one a member."""
    kept_until_s: float | None = None
    """The lease under an earlier epoch or membership: its grantors are still bound."""
    pending: Pending | None = None
    """The newest one that its grantors told of."""


def seek(state: Holder, epoch: int, run_id: str, terms: LeaseTerms) -> Holder | Refusal:
    """Go for a new epoch on a run's order: the run answers for what this node's data lack."""
    record = state.record
    if (epoch, run_id) == (record.epoch, record.run_id) and epoch > record.released_epoch:
        return state
    if epoch <= max(record.epoch, record.released_epoch):
        return Refusal(
            rule="epoch_gone",
            message=f"{record.node_id} was ordered to epoch {epoch}; it already was at {record.epoch}.",
            values={"epoch": epoch, "own_epoch": record.epoch, "released_epoch": record.released_epoch},
            remedy="Take a new epoch.",
        )
    record = record.model_copy(
        update={"epoch": epoch, "run_id": run_id, "served_epoch": ORDERED, "proposed": None}
    )
    return Holder(record=record, membership=state.membership, kept_until_s=lease_until(state, terms))


def ask(state: Holder, ask_id: str, terms: LeaseTerms, now_s: float) -> tuple[Holder, Ask | Refusal]:
    """The next ask, to be sent to every member. It counts from `now_s`, so take the time before sending."""
    record = state.record
    if record.epoch <= record.released_epoch:
        return state, Refusal(
            rule="no_epoch",
            message=f"{record.node_id} has no epoch to ask for; it released {record.released_epoch}.",
            values={"epoch": record.epoch, "released_epoch": record.released_epoch},
            remedy="Take a new epoch.",
        )
    alive = tuple(sent for sent in state.asks if now_s < sent.asked_at_s + terms.held_s)
    state = state.model_copy(update={"asks": (*alive, SentAsk(ask_id=ask_id, asked_at_s=now_s))})
    return state, Ask(
        ask_id=ask_id,
        holder=record.node_id,
        epoch=record.epoch,
        run_id=record.run_id,
        membership_version=state.membership.version,
    )


def answered(state: Holder, answer: Granted, terms: LeaseTerms, now_s: float) -> Holder:
    """Count a grant, for the ask it answers and no other; one that comes too late is left out.

    The asks of an earlier epoch or membership were forgotten with it.
    """
    asked_at_s = next((sent.asked_at_s for sent in state.asks if sent.ask_id == answer.ask_id), None)
    if asked_at_s is None or now_s >= asked_at_s + terms.held_s:
        return state
    if answer.member not in state.membership.members or answer.duration_s < terms.duration_s:
        return state
    newest = {counted.member: counted for counted in state.counted}
    before = newest.get(answer.member)
    if before is None or before.asked_at_s < asked_at_s:
        newest[answer.member] = CountedAsk(member=answer.member, asked_at_s=asked_at_s)
    counted = tuple(newest[member] for member in sorted(newest))
    pending = state.pending
    if answer.pending is not None and (pending is None or answer.pending.epoch > pending.epoch):
        pending = answer.pending
    state = state.model_copy(update={"counted": counted, "pending": pending})
    record, until_s = state.record, confirmed_until(state, terms)
    if until_s is not None and now_s < until_s and record.served_epoch != record.epoch:
        record = record.model_copy(update={"served_epoch": record.epoch})
        state = state.model_copy(update={"record": record})
    return state


def confirmed_until(state: Holder, terms: LeaseTerms) -> float | None:
    """Until when a majority's grants of this very epoch and membership last; None without a majority."""
    need = state.membership.majority
    if len(state.counted) < need:
        return None
    newest_first = sorted([counted.asked_at_s for counted in state.counted], reverse=True)
    return newest_first[need - 1] + terms.held_s


def lease_until(state: Holder, terms: LeaseTerms) -> float | None:
    """Until when the database may acknowledge writes. Only a release takes back what was once answered."""
    ends = [until_s for until_s in (state.kept_until_s, confirmed_until(state, terms)) if until_s is not None]
    return max(ends, default=None)


def release(state: Holder, processes_left: int) -> tuple[Holder, Release | Refusal]:
    """Give up every epoch so far. `processes_left` counts the database's processes, after it was stopped."""
    record = state.record
    if processes_left:
        return state, Refusal(
            rule="database_still_runs",
            message=f"{processes_left} process(es) of the database of {record.node_id} are left.",
            values={"processes_left": processes_left},
            remedy="End all of them first.",
        )
    record = record.model_copy(update={"released_epoch": max(record.epoch, record.released_epoch)})
    return Holder(record=record, membership=state.membership), Release(
        holder=record.node_id, epoch=record.released_epoch
    )
