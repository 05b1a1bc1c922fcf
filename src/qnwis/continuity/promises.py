"""What a majority's promises allow: a run to promote, or the former holder to take the lease up again.

That no two nodes write rests on the agents; a run's wait only spares the cluster a promotion that cannot
succeed yet. What does rest on this is that the writes of a holder between are not passed over: a target is
chosen among those that promised, and a former holder comes back by itself only if a majority that promised
granted nobody else since.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pydantic import JsonValue

from .lease_messages import LeaseTerms, Membership, Promised, PromiseRequest
from .leases import ORDERED, GrantorRecord, Holder, seek
from .model import Model
from .orders import FencingEvidence, FencingEvidenceType
from .refusal import Refusal


class Gate(Model):
    """What a majority's promises say about whoever held the lease before the target."""

    members: tuple[str, ...]
    """Who promised; the target is chosen among them."""
    holder: str | None
    """node_id of the last other holder any of them granted; None if there was none."""
    evidence: FencingEvidenceType | None
    """`released`, or `lease_expired` once `wait_s` has passed; None without a holder."""
    wait_s: float
    """From the last answer on, until a majority is free to grant the target. A release that some members have
    not heard of shortens it: pass it on to them and let them promise again."""


def promises(
    membership: Membership, request: PromiseRequest, answers: Iterable[Promised]
) -> tuple[Promised, ...] | Refusal:
    """The promises that belong to this request, one a member, if they are a majority."""
    wanted = (request.epoch, request.run_id, request.membership_version)
    by_member = {a.member: a for a in answers if (a.epoch, a.run_id, a.membership_version) == wanted}
    found = tuple(by_member[member] for member in membership.members if member in by_member)
    if request.membership_version == membership.version and len(found) >= membership.majority:
        return found
    missing: list[JsonValue] = [member for member in membership.members if member not in by_member]
    return Refusal(
        rule="promises_missing",
        message=f"{len(found)} of {len(membership.members)} members promised epoch {request.epoch} to"
        f" {request.run_id}; a majority is {membership.majority}.",
        values={"promised": len(found), "majority": membership.majority, "missing": missing},
        remedy="Reach more members, or take an epoch above all they have promised.",
    )


def promotion_gate(
    membership: Membership, request: PromiseRequest, answers: Iterable[Promised], target: str
) -> Gate | Refusal:
    """Whether, why and when the target's asks under the promised epoch can succeed."""
    promised = promises(membership, request, answers)
    if isinstance(promised, Refusal):
        return promised
    others = [a.granted for a in promised if a.granted is not None and a.granted.holder != target]
    last = max(others, key=lambda granted: (granted.epoch, granted.released), default=None)
    waits_s = sorted(a.remaining_s if a.granted and a.granted.holder != target else 0.0 for a in promised)
    expired_or_released = {True: FencingEvidenceType.RELEASED, False: FencingEvidenceType.LEASE_EXPIRED}
    return Gate(
        members=tuple(a.member for a in promised),
        holder=last.holder if last else None,
        evidence=expired_or_released[last.released] if last else None,
        wait_s=waits_s[membership.majority - 1],
    )


def lease_evidence(gate: Gate, primary: str, *, epoch: int, at: datetime) -> FencingEvidence | None:
    """What the promises prove of the old primary, once the gate's wait is over; nothing where they speak of
    nobody or of another node."""
    if gate.evidence is None or gate.holder != primary:
        return None
    how = {
        FencingEvidenceType.RELEASED: "released its lease",
        FencingEvidenceType.LEASE_EXPIRED: "can renew its lease no more, and that has run out",
    }[gate.evidence]
    return FencingEvidence(
        type=gate.evidence,
        holder=gate.holder,
        epoch=epoch,
        source=f"promises of {', '.join(gate.members)}",
        detail=f"{gate.holder} {how}; waited {gate.wait_s:.2f} s",
        at=at,
    )


def another_holds(record: GrantorRecord, request: PromiseRequest) -> Refusal | None:
    """Why a grantor promises nothing to a former holder: another was granted the lease after it held that.

    A matter of liveness: one that returns then must not stop the present holder's renewals. A grant under an
    epoch that is not above the last one it held is an older one, of a holder before it. Without that epoch
    every other holder counts as a later one.
    """
    granted, served = record.granted, request.served_epoch
    if request.former_holder is None or granted is None or granted.holder == request.former_holder:
        return None
    if served is not None and granted.epoch <= served:
        return None
    return Refusal(
        rule="another_held_since",
        message=f"{record.node_id} granted epoch {granted.epoch} to {granted.holder}, so"
        f" {request.former_holder} takes nothing up again by itself.",
        values={"holder": granted.holder, "epoch": granted.epoch, "former_holder": request.former_holder},
        remedy="Order a rejoin to the present primary, or let a run choose the node with the most data.",
    )


def older_grant_refused(answer: object, served_epoch: int) -> bool:
    """Whether that is a refusal for a grant that is not later than the last epoch that was held: the grantor
    was not told of that epoch."""
    if not isinstance(answer, Refusal) or answer.rule != "another_held_since":
        return False
    epoch = answer.values.get("epoch")
    return isinstance(epoch, int) and epoch <= served_epoch


def reacquire(
    state: Holder, request: PromiseRequest, answers: Iterable[Promised], terms: LeaseTerms
) -> Holder | Refusal:
    """Take the lease up again without a run, once a majority promised and none of it granted another since.

    Whoever did hold a later epoch was granted it by one of that majority. One that a run ordered to an epoch,
    in vain, stays with the run's: its own asks for that may have taken the place, in its grantors' memory, of
    what they had granted another.
    """
    promised = promises(state.membership, request, answers)
    if isinstance(promised, Refusal):
        return promised
    since = state.record.served_epoch
    for answer in promised:
        later = answer.granted
        if later is not None and later.holder != state.record.node_id and later.epoch > since:
            return Refusal(
                rule="another_held_since",
                message=f"{answer.member} granted epoch {later.epoch} to {later.holder}, after epoch {since},"
                f" the last that {state.record.node_id} held.",
                values={"member": answer.member, "holder": later.holder, "epoch": later.epoch},
                remedy="Let a run choose the node with the most data.",
            )
    if since == ORDERED:
        record = state.record
        return Refusal(
            rule="ordered_by_a_run",
            message=f"A run ordered {record.node_id} to epoch {record.epoch}, which it never held.",
            values={"epoch": record.epoch, "run_id": record.run_id},
            remedy="Let a run choose the node with the most data.",
        )
    holder = seek(state, request.epoch, request.run_id, terms)
    if isinstance(holder, Refusal):
        return holder
    return holder.model_copy(update={"record": holder.record.model_copy(update={"served_epoch": since})})
