"""The guardian's rules: from the verdict on the primary and what ran before, whether a failover starts now.

Cooldown and backing off are per cluster (each has a guardian of its own), per kind of run and per outcome: a
run that moved the primary cools down, one that did not is tried again ever less often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import Field

from .detection import Finding, Verdict
from .model import Model
from .policy import Policy, Strategy
from .refusal import Refusal
from .run import RunKind, RunOutcome, RunResult

HOUR = timedelta(hours=1)
RETRY_FIRST = timedelta(seconds=2)
RETRY_LONGEST = timedelta(minutes=5)
"""Between attempts that moved nothing; each wait is twice the one before."""


class Acknowledgement(Model):
    """A person has looked at what a run did, and lifts what it holds back."""

    by: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    at: datetime


class PastRun(Model):
    """A run that ended, as far as the rules need to know it."""

    run_id: str
    kind: RunKind = RunKind.PRIMARY_FAILURE
    outcome: RunOutcome
    reason: str = ""
    ended_at: datetime
    acknowledged: Acknowledgement | None = None
    """Then neither cooldown nor backing off counts it; the hourly cap still does."""

    @classmethod
    def of(cls, result: RunResult) -> PastRun:
        return cls(
            run_id=result.run_id,
            kind=result.kind,
            outcome=result.outcome,
            reason=result.reason,
            ended_at=result.ended_at,
        )

    @property
    def moved(self) -> bool:
        """Whether the primary moved: what cooldown and the hourly cap count."""
        return self.outcome in {RunOutcome.COMPLETED, RunOutcome.INCOMPLETE}


class Pause(Model):
    """Automatic failover is switched off, by whom and why."""

    by: str
    reason: str
    since: datetime


@dataclass(frozen=True)
class Hold:
    """Do nothing now."""

    refusal: Refusal
    until: datetime | None = None
    """Set when time alone will change the answer."""
    look_again: bool = False
    """The world may change the answer without a vote that changes."""


@dataclass(frozen=True)
class Quiet:
    """The primary is not failed; there is nothing to decide."""


@dataclass(frozen=True)
class Start:
    """Start the primary-failure runbook."""


@dataclass(frozen=True)
class Propose:
    """Start the runbook, which asks people before it changes anything."""


Decision = Quiet | Hold | Start | Propose


def decide(
    *,
    policy: Policy,
    primary: Verdict | None,
    history: Sequence[PastRun],
    pause: Pause | None,
    watching_since: datetime,
    changed_at: datetime,
    now: datetime,
    kind: RunKind = RunKind.PRIMARY_FAILURE,
    region: Hold | None = None,
) -> Decision:
    """Whether a failover of this kind starts now. The rules, in the order in which they refuse.

    `primary` is the verdict on the primary, None while nobody knows which node that is. `changed_at` is when
    a vote last changed: attempts before that failed in another situation. `region`: why the primary is left
    to the guardian of its region for now (`region_wait.region_hold`).
    """
    if primary is None:
        return Quiet()
    if primary.finding is not Finding.FAILED:
        return Quiet() if primary.refusal is None else Hold(primary.refusal, look_again=True)
    held = held_back(
        policy=policy,
        history=history,
        pause=pause,
        watching_since=watching_since,
        changed_at=changed_at,
        now=now,
        kind=kind,
    )
    if (hold := held or region) is not None:
        return hold
    return Propose() if policy.strategy is Strategy.MANUAL else Start()


def held_back(
    *,
    policy: Policy,
    history: Sequence[PastRun],
    pause: Pause | None,
    watching_since: datetime,
    changed_at: datetime,
    now: datetime,
    kind: RunKind = RunKind.PRIMARY_FAILURE,
) -> Hold | None:
    """The first rule by which no failover of this kind starts by itself now, whoever would start it."""
    of_kind = [run for run in history if run.kind is kind]
    rules = (
        _paused(pause),
        _grace(policy, watching_since, now),
        _cooldown(policy, of_kind, now),
        _hourly_cap(policy, of_kind, now),
        _people_said_no(policy, of_kind, changed_at, now),
        _backing_off(of_kind, changed_at, now),
    )
    return next((rule for rule in rules if rule is not None), None)


def remembered(
    history: Sequence[PastRun], run: PastRun, policy: Policy, now: datetime
) -> tuple[PastRun, ...]:
    """The history with this run, without those that no rule counts any more.

    A run that is heard of again stays acknowledged.
    """
    before = next((past for past in history if past.run_id == run.run_id), run)
    if before.acknowledged is not None:
        run = run.model_copy(update={"acknowledged": before.acknowledged})
    oldest = now - max(HOUR, timedelta(seconds=policy.cooldown_s))
    others = (past for past in history if past.run_id != run.run_id)
    return tuple(past for past in (*others, run) if past.ended_at >= oldest)


def acknowledge(
    history: Sequence[PastRun], run_id: str, acknowledgement: Acknowledgement
) -> tuple[PastRun, ...] | Refusal:
    """The history with that run acknowledged, or why it cannot be."""
    run = next((run for run in history if run.run_id == run_id), None)
    if run is None:
        known = [past.run_id for past in history]
        return Refusal(
            rule="run_unknown",
            message=f"No run {run_id} is remembered here",
            values={"run_id": run_id, "known": [*known]},
            remedy=f"Name one of {', '.join(known)}." if known else "Nothing is held back by a past run.",
        )
    if run.acknowledged is not None:
        before = run.acknowledged
        return Refusal(
            rule="already_acknowledged",
            message=f"Run {run_id} was acknowledged by {before.by}: {before.reason}",
            values={"run_id": run_id, "by": before.by, "at": before.at.isoformat()},
            remedy="Nothing to do.",
        )
    marked = run.model_copy(update={"acknowledged": acknowledgement})
    return tuple(marked if past is run else past for past in history)


def _paused(pause: Pause | None) -> Hold | None:
    if pause is None:
        return None
    return Hold(
        Refusal(
            rule="guardian_paused",
            message=f"Automatic failover is paused by {pause.by}: {pause.reason}",
            values={"by": pause.by, "since": pause.since.isoformat()},
            remedy="Resume the guardian.",
        )
    )


def _grace(policy: Policy, watching_since: datetime, now: datetime) -> Hold | None:
    until = watching_since + timedelta(seconds=policy.startup_grace_s)
    if now >= until:
        return None
    return Hold(
        Refusal(
            rule="startup_grace",
            message=f"The guardian started {(now - watching_since).total_seconds():.1f} s ago;"
            f" it judges nobody for the first {policy.startup_grace_s:g} s",
            values={"watching_since": watching_since.isoformat(), "startup_grace_s": policy.startup_grace_s},
            remedy=f"The rule ends at {until.isoformat()}.",
        ),
        until,
    )


def _cooldown(policy: Policy, history: Sequence[PastRun], now: datetime) -> Hold | None:
    last = max(
        (run for run in history if run.moved and run.acknowledged is None),
        key=lambda run: run.ended_at,
        default=None,
    )
    if last is None:
        return None
    until = last.ended_at + timedelta(seconds=policy.cooldown_s)
    if now >= until:
        return None
    return Hold(
        Refusal(
            rule="cooldown",
            message=f"The last failover ended {(now - last.ended_at).total_seconds():.0f} s ago;"
            f" the cooldown is {policy.cooldown_s:g} s",
            values={
                "run_id": last.run_id,
                "kind": last.kind.value,
                "outcome": last.outcome.value,
                "last_ended_at": last.ended_at.isoformat(),
                "cooldown_s": policy.cooldown_s,
            },
            remedy=f"The rule ends at {until.isoformat()}; a person can acknowledge run {last.run_id},"
            " or execute a plan, before that.",
        ),
        until,
    )


def _hourly_cap(policy: Policy, history: Sequence[PastRun], now: datetime) -> Hold | None:
    recent = sorted(run.ended_at for run in history if run.moved and run.ended_at > now - HOUR)
    if len(recent) < policy.max_failovers_per_hour:
        return None
    until = recent[-policy.max_failovers_per_hour] + HOUR
    return Hold(
        Refusal(
            rule="max_failovers_per_hour",
            message=f"{len(recent)} failovers in the last hour; the limit is {policy.max_failovers_per_hour}",
            values={"recent": len(recent), "max_failovers_per_hour": policy.max_failovers_per_hour},
            remedy=f"The rule ends at {until.isoformat()}; a person can execute a plan before that.",
        ),
        until,
    )


def _people_said_no(
    policy: Policy, history: Sequence[PastRun], changed_at: datetime, now: datetime
) -> Hold | None:
    """Who was asked and said no, or nothing, is not asked again at once."""
    asked = [
        run
        for run in history
        if run.outcome in {RunOutcome.REJECTED, RunOutcome.EXPIRED}
        and run.acknowledged is None
        and run.ended_at >= changed_at
    ]
    if not asked:
        return None
    last = max(asked, key=lambda run: run.ended_at)
    rejected = last.outcome is RunOutcome.REJECTED
    until = None if rejected else last.ended_at + timedelta(seconds=policy.cooldown_s)
    if until is not None and now >= until:
        return None
    end = f"The rule ends at {until.isoformat()}, or" if until is not None else "The rule ends"
    return Hold(
        Refusal(
            rule="people_said_no" if rejected else "people_did_not_answer",
            message=f"Run {last.run_id} ended {last.outcome.value}: {last.reason}",
            values={"run_id": last.run_id, "outcome": last.outcome.value, "cooldown_s": policy.cooldown_s},
            remedy=f"{end} when a vote changes or a person acknowledges run {last.run_id}.",
        ),
        until,
    )


def _backing_off(history: Sequence[PastRun], changed_at: datetime, now: datetime) -> Hold | None:
    """An attempt that moved nothing blocks the next one for a while, longer with each in the last hour."""
    since = max([changed_at, now - HOUR, *(run.ended_at for run in history if run.moved)])
    attempts = sorted(
        (run for run in history if not run.moved and run.acknowledged is None and run.ended_at >= since),
        key=lambda run: run.ended_at,
    )
    if not attempts:
        return None
    last = attempts[-1]
    # The exponent is bounded so that no number of attempts overflows a timedelta.
    wait = min(RETRY_FIRST * 2 ** min(len(attempts) - 1, 16), RETRY_LONGEST)
    until = last.ended_at + wait
    if now >= until:
        return None
    return Hold(
        Refusal(
            rule="backing_off",
            message=f"Attempt {len(attempts)} ended {last.outcome.value}: {last.reason}",
            values={"run_id": last.run_id, "attempts": len(attempts), "wait_s": wait.total_seconds()},
            remedy=f"The rule ends at {until.isoformat()}, or when a vote changes.",
        ),
        until,
    )
