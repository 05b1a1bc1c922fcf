"""Giving nodes up, in an emergency: the survivors' membership and epoch without them, and undoing it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import JsonValue
from temporalio import activity

from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.forced import forced_adoption, old_majority_is_left, undoing
from qnwis.continuity.membership import Adopted, Adoption, Forced, MembershipView, Peer
from qnwis.continuity.orders import FencingEvidence
from qnwis.continuity.override import PROVEN, Suspension
from qnwis.continuity.plan import ForceMembership
from qnwis.continuity.promises import Gate, lease_evidence
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import Node
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.nodes import Nodes

from .effect import EffectRequest, attempt_ends_at, carried_out, compensated, preview
from .fencing import ANSWER_WITHIN_S, Fencing
from .power import by_word, states_off

ADOPT_WITHIN_S = 3.0
"""An agent writes the membership to disk before it answers."""
BACK_WITHIN_S = 60.0
"""How long an undo begins to ask for the old members, seconds: a restart of an agent. A survivor that is lost
does not come back by itself, and the next override needs the lock."""
BACK_ATTEMPT_S = 20.0


class ForceRequest(EffectRequest):
    action: ForceMembership
    target: str
    """node_id of the node that the plan promotes."""
    reason: str

    @property
    def forced(self) -> Forced:
        return Forced(run_id=self.run_id, lost=self.action.lost, reason=self.reason)


class Forcing:
    def __init__(self, nodes: Nodes, fencing: Fencing) -> None:
        self._nodes = nodes
        self._fencing = fencing

    @activity.defn
    async def force(self, request: ForceRequest) -> Outcome:
        """Have every survivor follow the membership without the lost nodes, and promise this run's epoch.

        All of them, since one that keeps the old membership could still help the old primary. What they
        granted it is waited for; a fencing hook is tried; what then is the evidence may be somebody's word,
        or nothing. One that refuses to follow leaves it unknown, since others may follow already.
        """
        action, ends_at = request.action, attempt_ends_at()

        async def forced() -> Outcome:
            adopted = await self._made(request)
            try:
                await self._followed(request, adopted)
            except Refused as refused:
                return Outcome(
                    action_id=action.action_id,
                    status=OutcomeStatus.UNKNOWN,
                    detail=str(refused.refusal),
                    facts={"rule": refused.refusal.rule},
                )
            await self._tell_lost(request, adopted)
            gate = await self._fencing.promised(request, request.target)
            switched, _ = await asyncio.gather(
                self._fencing.tried_to_switch_off(request, action.action_id, action.node_id, ends_at=ends_at),
                asyncio.sleep(gate.wait_s),
            )
            evidence = (
                switched
                if isinstance(switched, FencingEvidence)
                else _evidence(request, adopted.adoption, gate)
            )
            version = adopted.adoption.new.version
            return Outcome(
                action_id=action.action_id,
                status=OutcomeStatus.SUCCEEDED,
                changed=True,
                detail=f"membership {version}: {', '.join(adopted.adoption.new.members)}; {evidence.detail}",
                fencing=evidence,
                facts={"membership_version": version, **_suspended(request, evidence)},
            )

        return await carried_out(action.action_id, forced, if_refused=request.if_refused)

    @activity.defn
    async def unforce(self, request: ForceRequest) -> Outcome:
        """Compensation of `force`: the epoch is let go of, and the survivors have the old members again.

        Those that answer have them at once; the others are waited for, and not for ever. Nobody serves by
        that: the old majority is still to come back, and what a fencing hook cut off stays so.
        """
        action = request.action

        async def undone() -> Outcome:
            await self._fencing.withdraw(request)
            heard = await self._heard(request)
            views = [view for view in heard.values() if isinstance(view, MembershipView)]
            adoption = undoing(views, request.forced) if views else None
            detail, changed = "no survivor had heard of it", False
            if adoption is not None:
                try:
                    await self._followed(request, _adopted(adoption, views, request))
                except (Refused, Unreachable) as error:
                    raise Unreachable(_told(await self._heard(request))) from error
                detail, changed = f"the members are {', '.join(adoption.new.members)} again", True
            elif len(views) < len(heard):
                raise Unreachable(_told(heard))
            return Outcome(
                action_id=action.action_id, status=OutcomeStatus.UNDONE, changed=changed, detail=detail
            )

        return await compensated(
            action.action_id,
            undone,
            attempt_s=BACK_ATTEMPT_S,
            within_s=BACK_WITHIN_S,
            left=f"the survivors may follow different memberships, with {', '.join(action.lost)} and without."
            " Bring back those that do not answer: each then asks its peers for the newest by itself"
            " (`qnwis-continuity member list`); or give them up, too",
        )

    @activity.defn
    async def preview_force(self, request: ForceRequest) -> Outcome:
        action = request.action
        return preview(
            action.action_id,
            f"would give up {', '.join(action.lost)}, have {', '.join(action.members)} follow a membership of"
            f" their own under epoch {request.epoch}, and suspend the guarantee of a single primary",
        )

    async def _made(self, request: ForceRequest) -> Adopted:
        """What the survivors are to follow; for this run always the same. Raises Refused or Unreachable."""
        views = await self._views(request)
        adoption = forced_adoption(views, request.forced)
        if isinstance(adoption, Refusal):
            raise Refused(adoption)
        return _adopted(adoption, views, request)

    async def _views(self, request: ForceRequest) -> list[MembershipView]:
        survivors = self._survivors(request)
        return list(
            await asyncio.gather(
                *(self._nodes.membership(node, timeout_s=ANSWER_WITHIN_S) for node in survivors)
            )
        )

    async def _heard(self, request: ForceRequest) -> dict[str, MembershipView | BaseException]:
        """By survivor, what it follows; an error where it does not say."""
        survivors = self._survivors(request)
        answers = await asyncio.gather(
            *(self._nodes.membership(node, timeout_s=ANSWER_WITHIN_S) for node in survivors),
            return_exceptions=True,
        )
        return {node.node_id: answer for node, answer in zip(survivors, answers, strict=True)}

    async def _followed(self, request: ForceRequest, adopted: Adopted) -> None:
        """Every survivor follows. Raises Refused or Unreachable for the first that does not, once all of them
        have answered."""
        answers = await asyncio.gather(
            *(self._follow(node, adopted) for node in self._survivors(request)), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def _follow(self, node: Node, adopted: Adopted) -> None:
        """Raises Refused, or Unreachable where a survivor is silent or did not follow."""
        view = await self._nodes.force_membership(node, adopted, timeout_s=ADOPT_WITHIN_S)
        if view.membership != adopted.adoption.new:
            raise Unreachable(
                f"{node.node_id} is at membership {view.membership.version}, and was told of"
                f" {adopted.adoption.new.version}"
            )

    async def _tell_lost(self, request: ForceRequest, adopted: Adopted) -> None:
        """One that hears it after all gives way at once; no answer is waited for or counts."""
        lost = [node for node in request.cluster.nodes if node.node_id in request.action.lost]
        await asyncio.gather(
            *(self._nodes.force_membership(node, adopted, timeout_s=ANSWER_WITHIN_S) for node in lost),
            return_exceptions=True,
        )

    def _survivors(self, request: ForceRequest) -> list[Node]:
        return [node for node in request.cluster.nodes if node.node_id in request.action.members]


def _told(heard: Mapping[str, MembershipView | BaseException]) -> str:
    return "; ".join(
        f"{node_id} follows membership {view.membership.version} ({', '.join(view.membership.members)})"
        if isinstance(view, MembershipView)
        else f"{node_id} does not say which it follows ({view})"
        for node_id, view in heard.items()
    )


def _adopted(adoption: Adoption, views: list[MembershipView], request: ForceRequest) -> Adopted:
    told = {peer.node_id: peer for view in views for peer in view.peers}
    for node in request.cluster.nodes:
        told.setdefault(
            node.node_id, Peer(node_id=node.node_id, agent_url=node.agent_url, database=node.database)
        )
    return Adopted(adoption=adoption, peers=tuple(told.values()))


def _evidence(request: ForceRequest, adoption: Adoption, gate: Gate) -> FencingEvidence:
    """Why the old primary cannot write any more: proven where the old majority is left, else a person's word
    or less."""
    action, at = request.action, datetime.now(UTC)
    if old_majority_is_left(adoption):
        proven = lease_evidence(gate, action.node_id, epoch=request.epoch, at=at)
        if proven is not None:
            return proven
    lost, who = ", ".join(action.lost), action.attested_by
    said = f"nothing is known of {lost}" if who is None else states_off(who, lost)
    told = f"{said}; the guarantee of a single primary is suspended"
    return by_word(request, action.node_id, who=who, told=told)


def _suspended(request: ForceRequest, evidence: FencingEvidence) -> dict[str, JsonValue]:
    if evidence.type in PROVEN:
        return {}
    suspension = Suspension(lost=request.action.lost, since=evidence.at)
    return {"suspension": suspension.model_dump(mode="json")}
