"""Recording decisions beside the work: a store that does not answer keeps no guardian from watching.

What is not on record when a workflow goes on as new goes with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from datetime import timedelta

from temporalio import workflow

from . import options

with workflow.unsafe.imports_passed_through():
    from activities.audit import Audit
    from qnwis.continuity.guardian_record import GuardianDecision, GuardianDecisions

RECORDED = "what a guardian decides is on record"
"""Patch: before, it was in its view and its history alone."""
PATIENCE = timedelta(seconds=30)
BATCH = 50
CARRIED = 500
"""At most, so that what a workflow goes on with never grows too large to be sent."""


class Recorder:
    """Of one execution."""

    def __init__(self, left: Iterable[GuardianDecision] = ()) -> None:
        """`left`: what an execution before this one did not come to."""
        self.left = {one.decision_id: one for one in left}
        """What is not on record yet, by its id."""
        self._writing: asyncio.Task[None] | None = None

    def take_up(self) -> None:
        """Record what was left. Once, when the workflow begins."""
        self._go_on()

    def record(self, decision: GuardianDecision) -> None:
        """Have it recorded; nobody waits."""
        if decision.decision_id not in self.left:
            self.left[decision.decision_id] = decision
            self._go_on()

    def _go_on(self) -> None:
        if self.left and self._writing is None:
            self._writing = asyncio.create_task(self._write())

    async def recorded(self, decision: GuardianDecision, *, unless: Callable[[], bool]) -> None:
        """Have it recorded, and wait until it is; not for a store that does not answer, because pausing a
        guardian may be urgent, and not where `unless` comes true. The record follows."""
        self.record(decision)
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: decision.decision_id not in self.left or unless(),
                timeout=PATIENCE,
                timeout_summary="until it is on record",
            )

    def to_carry(self) -> tuple[GuardianDecision, ...]:
        """What the next execution records; what is on its way is recorded once all the same."""
        if len(self.left) > CARRIED:
            workflow.logger.error("%d decisions are lost to the record", len(self.left) - CARRIED)
        return tuple(self.left.values())[:CARRIED]

    async def _write(self) -> None:
        """One after the other, as many at once as there are: who says much makes no history of it."""
        try:
            while self.left:
                batch = tuple(self.left.values())[:BATCH]
                await workflow.execute_activity_method(
                    Audit.record_guardian,
                    GuardianDecisions(decisions=batch),
                    **options.record(f"record: {', '.join(sorted({one.operation for one in batch}))}"),
                )
                for one in batch:
                    self.left.pop(one.decision_id, None)
        finally:
            self._writing = None
