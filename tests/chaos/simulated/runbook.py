"""A run of the primary-failure runbook, as `workflows/primary_failure.py` and its activities have it.

Assessment, rehearsal, stepper, gates and verifier are the real ones.
"""

from __future__ import annotations

from functools import partial

from qnwis.continuity.assessment import assess
from qnwis.continuity.evidence import ClusterEvidence
from qnwis.continuity.executor import Do, Finish, Outcome, OutcomeStatus, RunEnd, Undo, advance
from qnwis.continuity.lease_messages import Membership, Promised, PromiseRequest
from qnwis.continuity.orders import (
    AnyOrder,
    CatchUpOrder,
    FencingEvidence,
    FencingEvidenceType,
    FollowOrder,
    PromoteOrder,
    Receipt,
    RejoinOrder,
)
from qnwis.continuity.plan import (
    Action,
    FencePrimary,
    FlipDns,
    Plan,
    PromoteTarget,
    RepointStandbys,
    VerifyService,
)
from qnwis.continuity.promises import promotion_gate
from qnwis.continuity.promotion import missing_log, promotion_refusal
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import FailoverRequest, RunOutcome
from qnwis.continuity.simulate import rehearse
from qnwis.continuity.timelines import AHEAD
from qnwis.continuity.verifier import verify
from tests.chaos.facts import PlayedRun

from .kernel import Flow
from .machine import moment
from .nameserver import Swap
from .node import Node
from .reach import Place, collect
from .temporal import WORKER, Activity, Unreachable

ANSWER_WITHIN_S = 0.8
PROMOTE_TIMEOUT_S, CATCH_UP_TIMEOUT_S, REWIND_TIMEOUT_S = 15.0, 5.0, 15.0
FOLLOW_TIMEOUT_S, FOLLOW_PATIENCE_S, FOLLOW_PAUSE_S = 5.0, 1.0, 0.1
DNS_TIMEOUT_S = 1.0
SETTLE_S, SETTLE_PAUSE_S = 5.0, 0.25
FENCE_LIMIT_S, EFFECT_LIMIT_S = 20.0, 60.0

_ENDS = {
    RunEnd.UNTOUCHED: RunOutcome.UNTOUCHED,
    RunEnd.ROLLED_BACK: RunOutcome.ROLLED_BACK,
    RunEnd.COMPLETED: RunOutcome.COMPLETED,
    RunEnd.INCOMPLETE: RunOutcome.INCOMPLETE,
}


class Run:
    """One run. `PlayedRun` is what it returns."""

    def __init__(self, place: Place, request: FailoverRequest, run_id: str) -> None:
        self._place = place
        self._request = request
        self.run_id = run_id
        self._log: list[Outcome] = []

    def flow(self) -> Flow:
        place, began_s = self._place, self._place.now()
        before = yield Activity(lambda number: collect(place, WORKER))
        assessment = assess(self._request, place.cluster, place.policy, before)
        plan = assessment.plan
        if plan is None:
            return self._ended(RunOutcome.REFUSED, assessment.refusal)
        rehearsal = rehearse(plan, place.cluster, place.policy, before)
        if rehearsal.refusal is not None:
            return self._ended(RunOutcome.REFUSED, rehearsal.refusal)
        self._epoch = self._serves_under = assessment.epoch
        while True:
            match advance(plan, self._log):
                case Finish(end=end):
                    return self._ended(_ENDS[end])
                case Undo(action=action):
                    yield Activity(lambda number: self._withdraw())
                    self._log.append(_ended(action, OutcomeStatus.UNDONE))
                case Do(action=VerifyService() as action):
                    passed = yield Activity(lambda number: self._verify(plan, before, began_s))
                    ended = OutcomeStatus.SUCCEEDED if passed else OutcomeStatus.FAILED
                    self._log.append(_ended(action, ended))
                case Do(action=action, again=again):
                    self._log.append(_ended(action, OutcomeStatus.STARTED))
                    outcome = yield self._activity(plan, action, again)
                    if isinstance(outcome, Unreachable):
                        outcome = _ended(action, OutcomeStatus.UNKNOWN, outcome.why)
                    self._log.append(outcome)

    def _ended(self, outcome: RunOutcome, refusal: Refusal | None = None) -> PlayedRun:
        return PlayedRun(run_id=self.run_id, outcome=outcome, rule=refusal.rule if refusal else None)

    def _activity(self, plan: Plan, action: Action, again: bool) -> Activity:
        match action:
            case FencePrimary():
                return Activity(lambda number: self._fence(plan, action), FENCE_LIMIT_S)
            case PromoteTarget():
                return Activity(
                    lambda number: self._promote(plan, action, again or number > 1), EFFECT_LIMIT_S
                )
            case RepointStandbys():
                return Activity(lambda number: self._repoint(action), EFFECT_LIMIT_S)
            case FlipDns():
                return Activity(lambda number: self._flip(action), EFFECT_LIMIT_S)
        raise AssertionError(action)

    def _effect_id(self, action: Action) -> str:
        return f"{self.run_id}/{action.action_id}"

    def _order(self, node_id: str, order: AnyOrder, timeout_s: float) -> Flow:
        """Returns Receipt, Refusal, or None."""
        node = self._place.nodes[node_id]
        answer = yield self._place.network.call(
            WORKER, node.agent_process, lambda: node.agent.orders.obey(order), timeout_s
        )
        return answer

    # The actions, each one attempt

    def _fence(self, plan: Plan, action: FencePrimary) -> Flow:
        place = self._place
        if not place.fences:
            return self._fenced(action, FencingEvidenceType.LEASE_EXPIRED)
        membership = Membership(version=1, members=tuple(sorted(place.nodes)))
        asked = PromiseRequest(epoch=self._epoch, run_id=self.run_id, membership_version=1)
        calls = [
            place.network.call(
                WORKER,
                node.agent_process,
                partial(_promise, node, asked),
                ANSWER_WITHIN_S,
            )
            for node in place.nodes.values()
        ]
        answers = []
        for call in calls:
            answers.append((yield call))
        promised = [answer for answer in answers if isinstance(answer, Promised)]
        gate = promotion_gate(membership, asked, promised, plan.failover_target_id)
        if isinstance(gate, Refusal):
            return Unreachable(gate.message)
        yield gate.wait_s
        if gate.evidence is None or gate.holder != action.node_id:
            return _ended(action, OutcomeStatus.UNKNOWN, f"the last lease was of {gate.holder}")
        return self._fenced(action, gate.evidence)

    def _fenced(self, action: FencePrimary, kind: FencingEvidenceType) -> Outcome:
        evidence = FencingEvidence(
            type=kind,
            holder=action.node_id,
            epoch=self._epoch,
            source="promises",
            detail="fenced",
            at=moment(self._place.now()),
        )
        return _ended(action, OutcomeStatus.SUCCEEDED).model_copy(update={"fencing": evidence})

    def _withdraw(self) -> Flow:
        place = self._place
        calls = [
            place.network.call(
                WORKER,
                node.agent_process,
                partial(_withdrawn, node, self._epoch, self.run_id),
                ANSWER_WITHIN_S,
            )
            for node in place.nodes.values()
        ]
        heard = []
        for call in calls:
            heard.append((yield call))
        return any(heard)

    def _promote(self, plan: Plan, action: PromoteTarget, may_be_ordered: bool) -> Flow:
        place = self._place
        evidence: ClusterEvidence = yield from collect(place, WORKER)
        target = evidence.of(action.node_id).state
        begun = target is not None and target.epoch >= self._epoch and target.in_recovery is False
        if place.checks_target and not begun:
            if (yield from self._caught_up(plan, action, evidence)):
                evidence = yield from collect(place, WORKER)
            refusal = promotion_refusal(plan, place.cluster, place.policy, evidence)
            if refusal is not None and may_be_ordered:
                return Unreachable(refusal.message)
            if refusal is not None:
                return _ended(action, OutcomeStatus.FAILED, refusal.message)
        order = PromoteOrder(effect_id=self._effect_id(action), run_id=self.run_id, epoch=self._epoch)
        answer = yield from self._order(action.node_id, order, PROMOTE_TIMEOUT_S)
        if isinstance(answer, Receipt):
            self._serves_under = max(self._epoch, answer.epoch)
        return _outcome(action, answer)

    def _caught_up(self, plan: Plan, action: PromoteTarget, evidence: ClusterEvidence) -> Flow:
        missing = missing_log(plan, self._place.cluster, self._place.policy, evidence)
        if missing is None:
            return False
        order = CatchUpOrder(
            effect_id=f"{self._effect_id(action)}/catch-up-{missing.to_lsn}",
            run_id=self.run_id,
            epoch=self._epoch,
            upstream=missing.node_id,
            to_lsn=missing.to_lsn,
        )
        answer = yield from self._order(action.node_id, order, CATCH_UP_TIMEOUT_S)
        return isinstance(answer, Receipt)

    def _repoint(self, action: RepointStandbys) -> Flow:
        following = [self._place.worker.spawn(self._follow(action, n)) for n in action.node_ids]
        refused = False
        for followed in following:
            answer = yield followed
            refused |= isinstance(answer, Refusal)
        return _ended(action, OutcomeStatus.FAILED if refused else OutcomeStatus.SUCCEEDED)

    def _follow(self, action: RepointStandbys, node_id: str) -> Flow:
        order = FollowOrder(
            effect_id=f"{self._effect_id(action)}/{node_id}",
            run_id=self.run_id,
            epoch=self._serves_under,
            upstream=action.upstream,
        )
        patient_until_s = self._place.now() + FOLLOW_PATIENCE_S
        while True:
            answer = yield from self._order(node_id, order, FOLLOW_TIMEOUT_S)
            if isinstance(answer, Refusal) and answer.rule == AHEAD:
                return (yield from self._rewind(node_id, order))
            if answer is not None or self._place.now() >= patient_until_s:
                return answer
            yield FOLLOW_PAUSE_S

    def _rewind(self, node_id: str, refused: FollowOrder) -> Flow:
        order = RejoinOrder(
            effect_id=f"{refused.effect_id}/rewound",
            run_id=refused.run_id,
            epoch=refused.epoch,
            upstream=refused.upstream,
        )
        return (yield from self._order(node_id, order, REWIND_TIMEOUT_S))

    def _flip(self, action: FlipDns) -> Flow:
        place = self._place
        nameserver, effect_id = place.nameserver, self._effect_id(action)

        def swap() -> Swap:
            return nameserver.swap(action.from_address, action.to_address, effect_id)

        for _ in range(2):
            answer = yield place.network.call(WORKER, nameserver.process, swap, DNS_TIMEOUT_S)
            if answer in (Swap.CHANGED, Swap.ALREADY):
                return _ended(action, OutcomeStatus.SUCCEEDED)
            if answer is not None:
                return _ended(action, OutcomeStatus.FAILED, str(answer))
        return Unreachable("the DNS server does not answer")

    def _verify(self, plan: Plan, before: ClusterEvidence, began_s: float) -> Flow:
        place = self._place
        elapsed_ms = (place.now() - began_s) * 1000
        fencing = next(o.fencing for o in reversed(self._log) if o.fencing is not None)
        deadline_s = place.now() + SETTLE_S
        while True:
            after = yield from collect(place, WORKER)
            address = yield place.network.call(
                WORKER, place.nameserver.process, lambda: place.nameserver.address, DNS_TIMEOUT_S
            )
            assert place.cluster.dns is not None
            report = verify(
                plan,
                place.cluster,
                place.policy,
                before,
                after,
                fencing=fencing,
                dns={place.cluster.dns.servers[0]: (address,)} if address else {},
                elapsed_ms=elapsed_ms,
                epoch=self._epoch,
            )
            if report.passed or place.now() >= deadline_s:
                return report.passed
            yield SETTLE_PAUSE_S


def _ended(action: Action, status: OutcomeStatus, detail: str = "") -> Outcome:
    return Outcome(action_id=action.action_id, status=status, detail=detail)


def _outcome(action: Action, answer: Receipt | Refusal | None) -> Outcome | Unreachable:
    if answer is None:
        return Unreachable("no answer to an order")
    if isinstance(answer, Refusal):
        return _ended(action, OutcomeStatus.FAILED, answer.message)
    return _ended(action, OutcomeStatus.SUCCEEDED)


# What agents are asked; which life of an agent answers is known when the question arrives.


def _promise(node: Node, asked: PromiseRequest) -> object:
    return node.agent.holding.promise(asked)


def _withdrawn(node: Node, epoch: int, run_id: str) -> object:
    return node.agent.holding.withdrawn(epoch, run_id)
