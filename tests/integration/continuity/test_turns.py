"""What people say counts in the order in which they said it, though one proof takes longer than the next."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from temporalio.client import WorkflowUpdateStage

from activities.people import People, Proof, ProofRequest
from qnwis.continuity.access import Deed
from qnwis.continuity.run import PauseRunRequest, ResumeRunRequest
from workflows.guardian import Guardian
from workflows.guardian_state import PauseRequest, ResumeRequest
from workflows.primary_failure import PrimaryFailure

from .conftest import Setting
from .people import Crowd, asked
from .test_guardian import all_healthy, until

LATE_S = 0.5
"""For so long the proof of a pause waits for that of the resume, which must not come before it."""


@pytest.fixture
def slow_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store of audit records answers late to whoever pauses."""
    proved, resumed = People._proved, asyncio.Event()

    async def late(people: People, request: ProofRequest) -> Proof:
        if request.expected.deed is Deed.PAUSE:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(resumed.wait(), LATE_S)
        proof = await proved(people, request)
        if request.expected.deed is Deed.RESUME:
            resumed.set()
        return proof

    monkeypatch.setattr(People, "_proved", late)


async def test_a_run_that_is_held_and_let_go_goes_on(stage: Setting, slow_pauses: None) -> None:
    on = await stage(approvals=True)
    on.world.kill("node-1")
    crowd = Crowd(on)
    run = await crowd.start("bob")
    await asked(run)
    pause = crowd.signed(run, Deed.PAUSE, PauseRunRequest(by="bob", reason="the switch is not ready"))
    resume = crowd.signed(run, Deed.RESUME, ResumeRunRequest(by="bob", reason="it is ready"))
    said = [
        await run.start_update(deed, request, wait_for_stage=WorkflowUpdateStage.ACCEPTED)
        for deed, request in (("pause", pause), ("resume", resume))
    ]
    assert [await one.result() for one in said] == [
        "the run is held before its next action",
        "the run goes on",
    ]
    assert (await run.query(PrimaryFailure.progress_view)).paused is None


async def test_a_guardian_that_is_paused_and_resumed_decides(stage: Setting, slow_pauses: None) -> None:
    on = await stage(approvals=True)
    crowd = Crowd(on)
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    pause = PauseRequest(by="bob", reason="work on the network")
    resume = ResumeRequest(by="bob", reason="done")
    said = []
    for deed, request in ((Deed.PAUSE, pause), (Deed.RESUME, resume)):
        token = crowd.token("bob", deed, digest=request.digest, reason=request.reason)
        said.append(
            await guardian.start_update(
                deed.value,
                request.model_copy(update={"token": token}),
                wait_for_stage=WorkflowUpdateStage.ACCEPTED,
            )
        )
    for one in said:
        await one.result()
    assert (await guardian.query(Guardian.view)).pause is None
    await guardian.terminate()
