"""What is left of a run whose execution ended without a result, and what an execution takes over from others.

A run is one attempt to fail a cluster over; its `run_id` names its effects, its promise and its record for as
long as it lives. An execution is what Temporal calls a workflow run. Usually a run is one execution. A person
who resets it makes another one, which remembers only what came before the point of the reset; one who
terminates it leaves no execution at all, and a further one is started to finish it.

The invariant: an execution asks for what the others of its run had done before it asks for any effect of its
own. So each log begins with all that was known when it first acted, and joining the logs loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from .evidence import ClusterEvidence
from .executor import Outcome, OutcomeStatus, is_committed
from .guardian_rules import PastRun
from .model import Model
from .refusal import Refusal
from .run import Assessment, FailoverRequest, RunOutcome

UNFINISHED = "unfinished"
"""Names whichever run under the lock is unfinished, to whoever does not know its run_id."""


class PastExecution(Model):
    """One execution under a cluster's lock, as its own history tells."""

    execution_id: str
    """Temporal's run id."""
    run_id: str
    """Of the run that it belongs to."""
    request: FailoverRequest
    started_at: datetime
    ended: str | None = None
    """How it ended without a result, for people; None while it goes on and when it has one."""
    result: PastRun | None = None
    """When it has one."""
    before: ClusterEvidence | None = None
    assessment: Assessment = Assessment()
    outcomes: tuple[Outcome, ...] = ()
    """The whole log of its run as it knew it, what it took over included."""

    @property
    def finished(self) -> bool:
        """It brought the run to its end."""
        return is_an_end(self.result)


class Remains(Model):
    """A run as its executions left it."""

    run_id: str
    """Under which its effects, its promise and its record are known."""
    execution_id: str
    """The last execution that did anything of it."""
    ended: str
    """How that one ended, for people."""
    started_at: datetime
    request: FailoverRequest
    before: ClusterEvidence | None
    assessment: Assessment
    outcomes: tuple[Outcome, ...]


def is_an_end(result: PastRun | None) -> bool:
    """Whether an execution with this result brought its run to an end. A refused one was no part of what it
    was refused for."""
    return result is not None and result.outcome is not RunOutcome.REFUSED


def looked_back(
    past: Sequence[PastExecution], *, run_id: str, reset: bool, continues: str | None
) -> Remains | None:
    """What an execution finds when it looks back at all others under its lock.

    A reset one finds its own run, also where that had an end: what it did counts all the same. One that
    continues a run (named by its run_id, by one of its executions or as `UNFINISHED`) finds that, unless it
    has an end. Any other finds whatever is unfinished.
    """
    if reset and (own := remains_of(run_id, past)) is not None:
        return own
    if continues is None or continues == UNFINISHED:
        return unfinished(past)
    named = next((e.run_id for e in past if continues in (e.run_id, e.execution_id)), continues)
    return None if _has_an_end(named, past) else remains_of(named, past)


def remains_of(run_id: str, past: Sequence[PastExecution]) -> Remains | None:
    """What these executions left of this run; None if they had begun nothing."""
    own = sorted((e for e in past if e.run_id == run_id), key=lambda e: e.started_at)
    began = [execution for execution in own if execution.outcomes]
    if not began:
        return None
    log: tuple[Outcome, ...] = ()
    for execution in began:
        log = joined(log, execution.outcomes)
    first, last = began[0], began[-1]
    return Remains(
        run_id=run_id,
        execution_id=last.execution_id,
        ended=last.ended or "reset after its end",
        started_at=own[0].started_at,
        request=own[0].request,
        before=first.before,
        assessment=first.assessment,
        outcomes=log,
    )


def unfinished(past: Sequence[PastExecution]) -> Remains | None:
    """The run that began something and has no end, if the newest that began anything is such a one."""
    newest_first = sorted(past, key=lambda execution: execution.started_at, reverse=True)
    for execution in newest_first:
        if execution.finished or (execution.result is None and execution.ended is None):
            return None  # it has an end, or goes on and looks back by itself
        if _has_an_end(execution.run_id, past):
            return None
        remains = remains_of(execution.run_id, past)
        if remains is not None:
            return remains
    return None


def _has_an_end(run_id: str, past: Sequence[PastExecution]) -> bool:
    return any(execution.finished for execution in past if execution.run_id == run_id)


def joined(log: tuple[Outcome, ...], other: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
    """`log`, then what the other execution of the run added to what both know."""
    shared = 0
    while shared < min(len(log), len(other)) and log[shared] == other[shared]:
        shared += 1
    return log + other[shared:]


def may_still_happen(remains: Remains) -> bool:
    """Whether an effect that is to be undone may be under way yet, asked for by an execution that is gone."""
    plan = remains.assessment.plan
    last = {outcome.action_id: outcome.status for outcome in remains.outcomes}
    return (
        plan is not None
        and not is_committed(plan, remains.outcomes)
        and OutcomeStatus.STARTED in last.values()
    )


def unfinished_refusal(remains: Remains) -> Refusal:
    """Nobody starts a run over one that has no end."""
    return Refusal(
        rule="unfinished_run",
        message=f"Run {remains.run_id} was {remains.ended} in the middle of its plan, and nobody finished it",
        values={"run_id": remains.run_id, "execution_id": remains.execution_id, "ended": remains.ended},
        remedy=f"The cluster's guardian finishes it by itself; without one:"
        f" qnwis-continuity finish {remains.request.cluster_id}. Then start again.",
    )


def past_not_known_refusal(cluster_id: str, why: str) -> Refusal:
    """Nobody starts a run over what may have no end."""
    return Refusal(
        rule="past_not_known",
        message=f"It is not known whether a run was left in the middle of its plan: {why}",
        values={"cluster_id": cluster_id},
        remedy="Look in the Temporal UI for a run that was terminated, and finish it by its run id:"
        f" qnwis-continuity finish {cluster_id} --run-id …. Then start again.",
    )


def nothing_left_refusal(run_id: str) -> Refusal:
    return Refusal(
        rule="nothing_to_finish",
        message=f"Run {run_id} has an end, or had begun nothing",
        values={"run_id": run_id},
        remedy="Nothing to do.",
    )
