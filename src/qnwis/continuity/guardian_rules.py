"""The guardian's rules: from what the vantages say and what ran before, whether a failover starts now.

Unknown is not down: a node is failed only when a majority of all vantages say so. A vantage that has not
reported abstains, and an abstention is never a vote for failure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from .model import Model
from .policy import Policy, Strategy
from .refusal import Refusal
from .run import RunOutcome
from .topology import NodeStatus, majority

HOUR = timedelta(hours=1)


class PastRun(Model):
    """A run that ended, as far as the rules need to know it."""

    run_id: str
    outcome: RunOutcome
    ended_at: datetime

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
    """Do nothing now. `until` is set when time alone will change the answer."""

    refusal: Refusal
    until: datetime | None = None


@dataclass(frozen=True)
class Quiet:
    """The primary is not failed; there is nothing to decide."""


@dataclass(frozen=True)
class Start:
    """Start the primary-failure runbook."""


@dataclass(frozen=True)
class Propose:
    """Make a plan and show it to people; start nothing."""


Decision = Quiet | Hold | Start | Propose


def agreed_status(votes: Mapping[str, Mapping[str, NodeStatus]], vantages: int) -> dict[str, NodeStatus]:
    """Each node's status by majority of all configured vantages; without a majority it is unknown.

    `votes` maps a vantage to what it says of each node; `vantages` counts the configured ones.
    """
    need = majority(vantages)
    nodes = {node_id for vote in votes.values() for node_id in vote}
    agreed = {}
    for node_id in nodes:
        said = [vote[node_id] for vote in votes.values() if node_id in vote]
        agreed[node_id] = next((s for s in NodeStatus if said.count(s) >= need), NodeStatus.UNKNOWN)
    return agreed


def decide(
    *,
    policy: Policy,
    primary_node_id: str | None,
    statuses: Mapping[str, NodeStatus],
    history: Sequence[PastRun],
    pause: Pause | None,
    watching_since: datetime,
    now: datetime,
) -> Decision:
    """Whether a failover starts now. The rules, in the order in which they refuse."""
    if primary_node_id is None or statuses.get(primary_node_id) is not NodeStatus.FAILED:
        return Quiet()
    for rule in (_paused(pause), _grace(policy, watching_since, now), _cooldown(policy, history, now),
                 _hourly_cap(policy, history, now)):  # fmt: skip
        if rule is not None:
            return rule
    return Propose() if policy.strategy is Strategy.MANUAL else Start()


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
    last = max((run.ended_at for run in history if run.moved), default=None)
    if last is None:
        return None
    until = last + timedelta(seconds=policy.cooldown_s)
    if now >= until:
        return None
    return Hold(
        Refusal(
            rule="cooldown",
            message=f"The last failover ended {(now - last).total_seconds():.0f} s ago;"
            f" the cooldown is {policy.cooldown_s:g} s",
            values={"last_ended_at": last.isoformat(), "cooldown_s": policy.cooldown_s},
            remedy=f"The rule ends at {until.isoformat()}; a person can execute a plan before that.",
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
