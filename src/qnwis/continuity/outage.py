"""What of a plan the service waits for: the time that `max_failover_time_s` limits.

What a switchover does ahead (the record's TTL, checkpoints) and what it sets right once the service has moved
(the old primary's return, the ordinary TTL) keeps no client waiting, however long it takes. A failover's plan
has neither: all of it counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .executor import FENCES, PATRONI_HANDS_OVER
from .plan import Action, Plan

BEGINS = FENCES | PATRONI_HANDS_OVER
"""The first of them takes the service from the old primary."""
OUTAGE_MS = "outage_ms"
"""Fact of the verification's outcome: how long the service had waited by then, as the run measured it, with
retries and holds. None where another execution of the run had begun it."""
AFTERWARDS = frozenset({"rejoin_old_primary", "restore_ttl"})


def waited_for(plan: Plan) -> tuple[Action, ...]:
    """From what takes the service from the old primary until it is verified on the new one."""
    first = next((number for number, action in enumerate(plan.actions) if action.kind in BEGINS), 0)
    return tuple(action for action in plan.actions[first:] if action.kind not in AFTERWARDS)


def acts_ahead(plan: Plan) -> bool:
    """Whether something is done while the old primary still serves."""
    return plan.actions[:1] != waited_for(plan)[:1]


def estimated_outage_ms(plan: Plan) -> int:
    """How long the service is estimated to wait, milliseconds; with its verification."""
    return sum(action.estimate_ms for action in waited_for(plan))


@dataclass
class Outage:
    """When it began and ended in one execution of a run; None where that was not (yet) here."""

    since: datetime | None = None
    until: datetime | None = None
    """When all was done that is waited for, but for the verification."""

    @property
    def ms(self) -> float | None:
        """How long it lasted, milliseconds; None where that is not known here."""
        if self.since is None or self.until is None:
            return None
        return (self.until - self.since).total_seconds() * 1000

    def before(self, action: Action, now: datetime) -> None:
        """Take note that this action is next."""
        if action.kind in BEGINS:
            self.since = self.since or now
        elif action.kind in AFTERWARDS or action.kind == "verify_service":
            self.until = self.until or now
