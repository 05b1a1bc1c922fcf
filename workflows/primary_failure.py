"""The runbook for a primary that is gone: detect, assess, simulate, approve, execute, verify, audit.

Text for people: `runbooks/primary_failure.md`. One run per cluster: the workflow id is the lock.
"""

from __future__ import annotations

from temporalio import workflow

from .run import Run
from .versioning import PINNED

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from qnwis.continuity.run import FailoverRequest, RunKind, RunResult


@workflow.defn(failure_exception_types=[ValidationError], versioning_behavior=PINNED)
class PrimaryFailure(Run):
    """Fail over from a primary that is gone to the best standby, once, and prove it."""

    @workflow.init
    def __init__(self, request: FailoverRequest | None = None) -> None:
        # Started without input it fails and says what is missing; a missing argument would retry for ever.
        super().__init__(RunKind.PRIMARY_FAILURE, request or FailoverRequest.model_validate({}))

    @workflow.run
    async def run(self, request: FailoverRequest | None = None) -> RunResult:
        return await self.carry_out(self._runbook())

    async def _runbook(self) -> None:
        await self.step("detection", self.detect)
        await self.step("assessment", self.assess)
        await self.step("simulation", self.simulate)
        await self.step("approval", self.approve)
        await self.step("execution", self.execute)
        await self.step("verification", self.verify)
