"""The runbook for a region that is lost: detect, assess, approve, move in waves, verify, plan the way back.

Text for people: `runbooks/region_failure.md`. One evacuation per region: the workflow id is the lock. Each
cluster is moved by a run of its own, a child under that cluster's lock, which outlives this one.
"""

from __future__ import annotations

from temporalio import workflow

from .evacuation import Evacuation
from .versioning import PINNED

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from qnwis.continuity.region_run import EvacuateRequest, RegionResult


@workflow.defn(failure_exception_types=[ValidationError], versioning_behavior=PINNED)
class RegionFailure(Evacuation):
    """Have every cluster leave a region, and say how each comes back."""

    @workflow.init
    def __init__(self, request: EvacuateRequest | None = None) -> None:
        # Started without input it fails and says what is missing; a missing argument would retry for ever.
        super().__init__(request or EvacuateRequest.model_validate({}))

    @workflow.run
    async def run(self, request: EvacuateRequest | None = None) -> RegionResult:
        return await self.carry_out(self._runbook())

    async def _runbook(self) -> None:
        step = self.progress.step
        async with step("detection"):
            await self.detect()
        async with step("assessment"):
            self.assess()
        async with step("approval"):
            await self.approve()
        async with step("failover"):
            await self.move_all()
        async with step("verification"):
            await self.verify()
        async with step("recovery"):
            self.plan_the_way_back()
