"""The runbook for planned work: the service moves away from a primary that is well, and loses nothing.

Text for people: `runbooks/planned_maintenance.md`. The workflow id is the cluster's lock; while a run only
waits, for people or for its window, it gives way to a failover.
"""

from __future__ import annotations

from temporalio import workflow

from .run import Run
from .versioning import PINNED

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from qnwis.continuity.run import FailoverRequest, Maintenance, RunKind, RunResult


@workflow.defn(failure_exception_types=[ValidationError], versioning_behavior=PINNED)
class PlannedMaintenance(Run):
    """Switch over to another node on purpose, within a window, once, and prove that nothing was lost."""

    @workflow.init
    def __init__(self, request: FailoverRequest | None = None) -> None:
        # Started without input it fails and says what is missing; a missing argument would retry for ever.
        request = request or FailoverRequest.model_validate({})
        super().__init__(RunKind.PLANNED_MAINTENANCE, request, request.maintenance or Maintenance())

    @workflow.run
    async def run(self, request: FailoverRequest | None = None) -> RunResult:
        return await self.carry_out(self._runbook())

    async def _runbook(self) -> None:
        await self.step("preparation", self.detect, self.assess)
        await self.step("notification", self.notify_operators)
        await self.step("simulation", self.simulate)
        await self.step("approval", self.approve)
        await self.step("window", self.wait_for_window)
        await self.step("rollback", self.show_the_way_back)
        await self.step("execution", self.execute)
        await self.step("verification", self.verify)
