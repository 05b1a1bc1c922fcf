"""Workflows as a careless change would leave them; kept apart so that the sandbox loads nothing else."""

from __future__ import annotations

from temporalio import workflow

from workflows.guardian import Guardian
from workflows.guardian_state import GuardianState
from workflows.primary_failure import PrimaryFailure

with workflow.unsafe.imports_passed_through():
    from qnwis.continuity.run import FailoverRequest, RunResult


@workflow.defn(name="PrimaryFailure")
class WithAnotherTimer(PrimaryFailure):
    @workflow.init
    def __init__(self, request: FailoverRequest | None = None) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: FailoverRequest | None = None) -> RunResult:
        await workflow.sleep(1)
        return await super().run(request)


@workflow.defn(name="PrimaryFailure")
class WithoutRehearsal(PrimaryFailure):
    @workflow.init
    def __init__(self, request: FailoverRequest | None = None) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: FailoverRequest | None = None) -> RunResult:
        return await super().run(request)

    async def simulate(self) -> None:
        pass


@workflow.defn(name="Guardian")
class WithAnotherLook(Guardian):
    @workflow.init
    def __init__(self, state: GuardianState | None = None) -> None:
        super().__init__(state)

    @workflow.run
    async def run(self, state: GuardianState | None = None) -> None:
        await super().run(state)

    async def _look_around(self) -> None:
        await super()._look_around()
        await super()._look_around()
