"""The pure stepper: from a plan and the outcomes so far, what is next, what is undone, what is past return.

The workflow drives it with activities and the simulator with modelled effects; neither decides anything
about order, compensation or the end by itself.

The invariant: an action that may have had an effect is in `outcomes` before the effect starts (status
`started`), so whatever was begun is either undone or completed, wherever the driver is interrupted.

The point of no return is the start of the promotion (`POINTS_OF_NO_RETURN`). Before it, a failure undoes what
was begun, in reverse order. From it on there is only forward: an unknown promotion is asked again until it is
known to have failed without effect, and later actions are tried even if an earlier one failed, because the
service already stands on the new primary. Only what Patroni may still do is left to people in the end, since
within its region nothing is moved after it: the verifier then says who serves.

A driver that died leaves `started` as the last word on an action. The action is then asked for again, since
every effect is idempotent by its effect id; before the point of no return, an abort undoes it instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field, JsonValue

from .model import Model
from .orders import FencingEvidence, FencingEvidenceType
from .plan import Action, Plan
from .refusal import Refusal

PATRONI_HANDS_OVER = frozenset({"patroni_switchover", "patroni_failover"})
"""Patroni fences and promotes in one; the same action brings the evidence."""
POINTS_OF_NO_RETURN = PATRONI_HANDS_OVER | {"promote_target", "patroni_promote_cluster", "http_promote"}
"""A plan has one of them."""
FORCES = "force_membership"
"""Its plan was agreed to as one that may have no evidence: an emergency override."""
FENCES = frozenset(
    {
        "fence_primary",
        "release_primary",
        FORCES,
        "patroni_demote_cluster",
        "patroni_fence_cluster",
        "http_demote",
        "http_fence",
    }
)
"""Each brings the evidence that is the gate before promotion."""
REVERSIBLE = FENCES | {"lower_ttl"}
LEFT_TO_DO = "left_to_do"
"""Of the facts of what was undone, or of what Patroni was asked: what the activity could not do or find out,
and a person must. The run's end says it too."""
SERVES_UNDER = "serves_under"
"""Of the facts of a promotion: the epoch of the new primary's lease, where that is above the run's because it
took the lease up again by itself."""


class OutcomeStatus(StrEnum):
    STARTED = "started"  # registered before the effect; its result is not known yet
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # certain to have had no effect
    UNKNOWN = "unknown"  # may have had an effect
    SKIPPED = "skipped"  # not executed, with the reason in `detail`
    UNDONE = "undone"  # its compensation is over; what that could not do is in `facts`, as `left_to_do`


class Outcome(Model):
    """What is known of one action of a run."""

    action_id: str
    status: OutcomeStatus
    detail: str = ""
    duration_ms: float | None = None
    changed: bool | None = None
    """Whether the world was changed; None where unknown."""
    fencing: FencingEvidence | None = None
    """Of what fences (`FENCES`) and what Patroni hands over only."""
    facts: dict[str, JsonValue] = Field(default_factory=dict)
    """Further facts for the record, for example DNS before and after."""


class RunEnd(StrEnum):
    UNTOUCHED = "untouched"  # nothing was changed
    ROLLED_BACK = "rolled_back"  # what was begun was undone; service on the old primary
    COMPLETED = "completed"  # every action succeeded (or had nothing to do)
    INCOMPLETE = "incomplete"  # past return, but some action failed; the verifier says who serves


@dataclass(frozen=True)
class Do:
    """Carry out this action next. `again` when its earlier attempt ended unknown."""

    action: Action
    again: bool = False


@dataclass(frozen=True)
class Undo:
    """Compensate this action next."""

    action: Action


@dataclass(frozen=True)
class Finish:
    """Nothing is left to do."""

    end: RunEnd
    reason: str


Next = Do | Undo | Finish

POSSIBLY_EFFECTIVE = frozenset({OutcomeStatus.STARTED, OutcomeStatus.SUCCEEDED, OutcomeStatus.UNKNOWN})
SATISFIED = frozenset({OutcomeStatus.SUCCEEDED, OutcomeStatus.SKIPPED})


def satisfied(outcomes: Iterable[Outcome]) -> int:
    """How many actions are done: they succeeded, or there was nothing to do."""
    return sum(outcome.status in SATISFIED for outcome in outcomes)


Log = Mapping[str, Outcome]
"""What counts of each action: its last outcome."""


def advance(plan: Plan, outcomes: Sequence[Outcome], *, stop: str | None = None) -> Next:
    """The next step of a run.

    `outcomes` is the run's log; the last outcome of an action counts. `stop` is a request to abort and its
    reason; once given it must be given at every later call. It has the effect of a failure before the point
    of no return and none after it.

    A promotion whose end is unknown is asked for again without limit, but where its activity left it to
    people; the pause between is the driver's.

    Raises ValueError for a log that no run of this plan can have written.
    """
    log = _log(plan, outcomes)
    if not _committed(plan, log):
        cause = _setback(plan, outcomes) or stop or _undone(log)
        if cause is not None:
            return _back(plan, log, cause)
    return _forward(plan, log)


def is_committed(plan: Plan, outcomes: Sequence[Outcome]) -> bool:
    """Whether the run is past the point of no return: its promotion may have had an effect."""
    return _committed(plan, _log(plan, outcomes))


def abort_refusal(plan: Plan, outcomes: Sequence[Outcome]) -> Refusal | None:
    """A run is aborted before the point of no return or not at all."""
    if isinstance(end := advance(plan, outcomes), Finish):
        return Refusal(
            rule="run_is_over",
            message=f"The run has ended {end.end}: {end.reason}",
            values={"end": end.end.value},
            remedy="Nothing to do.",
        )
    if not is_committed(plan, outcomes):
        return None
    return Refusal(
        rule="past_return",
        message=f"The promotion of {plan.failover_target_id} has begun; from there the run only goes forward",
        values={"plan_id": plan.plan_id, "target": plan.failover_target_id},
        remedy="Let it end. To move the service back, plan a switchover when it has.",
    )


def _forward(plan: Plan, log: Log) -> Do | Finish:
    for action in plan.actions:
        outcome = log.get(action.action_id)
        if outcome is None:
            return Do(action)
        if outcome.status is OutcomeStatus.STARTED or _is_open_promotion(action, outcome):
            return Do(action, again=True)
    failures = [_told(a, log[a.action_id]) for a in plan.actions if log[a.action_id].status not in SATISFIED]
    if failures:
        return Finish(RunEnd.INCOMPLETE, "; ".join([*_left_to_do(log), *failures]))
    return Finish(RunEnd.COMPLETED, f"all {len(plan.actions)} actions of the plan are done")


def _back(plan: Plan, log: Log, cause: str) -> Undo | Finish:
    for action in reversed(plan.actions):
        outcome = log.get(action.action_id)
        if action.kind in REVERSIBLE and outcome is not None and outcome.status in POSSIBLY_EFFECTIVE:
            return Undo(action)
    undone = any(outcome.status is OutcomeStatus.UNDONE for outcome in log.values())
    end = RunEnd.ROLLED_BACK if undone else RunEnd.UNTOUCHED
    return Finish(end, "; ".join([*_left_to_do(log), cause]))


def _left_to_do(log: Log) -> list[str]:
    return [f"LEFT TO DO: {o.facts[LEFT_TO_DO]}" for o in log.values() if LEFT_TO_DO in o.facts]


def _setback(plan: Plan, outcomes: Sequence[Outcome]) -> str | None:
    """What forbids an uncommitted run to go on: the latest action that did not succeed."""
    before_undoing = {o.action_id: o for o in outcomes if o.status is not OutcomeStatus.UNDONE}
    for action in reversed(plan.actions):
        outcome = before_undoing.get(action.action_id)
        if outcome is None or outcome.status is OutcomeStatus.STARTED:
            continue
        if outcome.status is not OutcomeStatus.SUCCEEDED:
            return _told(action, outcome)
        if action.kind in FENCES and not _opens_the_gate(plan, action, outcome):
            return f"{action.action_id} brought no evidence that {plan.primary_node_id} cannot write any more"
    return None


def _undone(log: Log) -> str | None:
    """What was undone stays undone: its evidence is worth nothing any more."""
    return next((f"{o.action_id} was undone" for o in log.values() if o.status is OutcomeStatus.UNDONE), None)


def _opens_the_gate(plan: Plan, action: Action, outcome: Outcome) -> bool:
    """The gate before promotion. Evidence of type `none` opens it only where the plan itself forces."""
    evidence = outcome.fencing
    return (
        outcome.status is OutcomeStatus.SUCCEEDED
        and evidence is not None
        and (evidence.type is not FencingEvidenceType.NONE or action.kind == FORCES)
        and evidence.holder == plan.primary_node_id
    )


def _committed(plan: Plan, log: Log) -> bool:
    return any(
        action.kind in POINTS_OF_NO_RETURN
        and action.action_id in log
        and log[action.action_id].status in POSSIBLY_EFFECTIVE
        for action in plan.actions
    )


def _is_open_promotion(action: Action, outcome: Outcome) -> bool:
    left_to_people = action.kind in PATRONI_HANDS_OVER and LEFT_TO_DO in outcome.facts
    unknown = action.kind in POINTS_OF_NO_RETURN and outcome.status is OutcomeStatus.UNKNOWN
    return unknown and not left_to_people


def _log(plan: Plan, outcomes: Sequence[Outcome]) -> Log:
    log = {outcome.action_id: outcome for outcome in outcomes}
    strangers = sorted(log.keys() - {action.action_id for action in plan.actions})
    if strangers:
        raise ValueError(
            f"the log of {plan.plan_id} has outcomes of {strangers}, which the plan does not have"
        )
    if _committed(plan, log):
        for action in plan.actions:
            fence = log.get(action.action_id)
            if action.kind in FENCES and (fence is None or not _opens_the_gate(plan, action, fence)):
                raise ValueError(
                    f"the log of {plan.plan_id} has a promotion that began without evidence from "
                    f"{action.action_id} that {plan.primary_node_id} was fenced"
                )
    return log


def serves_under(epoch: int, promoted: Outcome | None) -> int:
    """Under which epoch to order that the new primary be followed: the run's `epoch`, or the later one that
    its promotion told of."""
    told = None if promoted is None else promoted.facts.get(SERVES_UNDER)
    return max(epoch, told) if isinstance(told, int) else epoch


def _told(action: Action, outcome: Outcome) -> str:
    return f"{action.action_id} {outcome.status}" + (f": {outcome.detail}" if outcome.detail else "")
