"""Steps that people have left out of a run, on the time-skipping server."""

from __future__ import annotations

from pathlib import Path

import pytest
from temporalio.client import WorkflowUpdateFailedError

from qnwis.continuity.access import Deed
from qnwis.continuity.run import RunProgress, SkipRequest, StepStatus
from qnwis.providers.keys import write_key

from .people import asked, rule_of
from .real import Said, command
from .test_planned_maintenance import maintain, progress_until, serving
from .time_skipping import hours


async def test_a_step_is_skipped_by_who_may_and_the_record_says_by_whom_and_why(tmp_path: Path) -> None:
    async with hours(tmp_path, approvals=True) as on:
        crowd = serving(on.stage)
        run = await maintain(on.stage, crowd)
        await asked(run)
        request = SkipRequest(by="eve", reason="known by heart", step="rollback")
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await run.execute_update("skip", request)
        assert rule_of(caught.value) == "token_missing"
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await run.execute_update("skip", crowd.signed(run, Deed.SKIP, request))
        assert rule_of(caught.value) == "permission_missing"

        request = request.model_copy(update={"by": "bob"})
        for step, rule in (("execution", "step_not_skippable"), ("simulation", "step_has_begun")):
            wrong = crowd.signed(run, Deed.SKIP, request.model_copy(update={"step": step}))
            with pytest.raises(WorkflowUpdateFailedError) as caught:
                await run.execute_update("skip", wrong)
            assert rule_of(caught.value) == rule
        await run.execute_update("skip", crowd.signed(run, Deed.SKIP, request))
        progress = await run.query("progress", result_type=RunProgress)
        rollback = next(step for step in progress.steps if step.name == "rollback")
        assert (rollback.status, rollback.note) == (StepStatus.SKIPPED, "skipped by bob: known by heart")

        await crowd.approve(run)
        result = await run.result()
        assert result.verified
        assert [s.name for s in result.steps if s.status is StepStatus.SKIPPED] == ["rollback"]
        artefacts = await on.stage.providers.audit.artefacts(result.audit_id or "")
        assert "skipped by bob: known by heart" in artefacts["result"]


async def test_a_signal_to_skip_is_answered_in_the_checklist(tmp_path: Path) -> None:
    async with hours(tmp_path, approvals=True) as on:
        crowd = serving(on.stage)
        run = await maintain(on.stage, crowd)
        await asked(run)
        wrong = SkipRequest(by="bob", reason="in a hurry", step="verification")
        await run.signal("skip", crowd.signed(run, Deed.SKIP, wrong))
        right = SkipRequest(by="bob", reason="in a hurry", step="rollback")

        def answered(progress: RunProgress) -> bool:
            approval = next(step for step in progress.steps if step.name == "approval")
            return any("skip of verification by bob was refused" in remark for remark in approval.remarks)

        await progress_until(run, answered)
        await run.signal("skip", crowd.signed(run, Deed.SKIP, right))
        await progress_until(run, lambda p: any(s.status is StepStatus.SKIPPED for s in p.steps))
        await run.terminate()


async def test_a_step_is_skipped_at_the_command_line_or_by_what_that_prints(tmp_path: Path) -> None:
    async with hours(tmp_path, approvals=True) as on:
        crowd = serving(on.stage)
        run = await maintain(on.stage, crowd)
        await asked(run)
        write_key(tmp_path / "bob.pem", crowd.keys["bob"], person="bob")
        server = on.stage.client.service_client.config.target_host

        async def skip(step: str, *options: str) -> Said:
            arguments = (on.stage.cluster_id, step, "--reason", "known by heart", *options)
            return await command("skip", *arguments, "--key", str(tmp_path / "bob.pem"), "--address", server)

        refused = await skip("execution")
        assert refused.code == 3 and "step_not_skippable" in refused.err
        printed = await skip("rollback", "--print")
        assert "skipped by" not in str(await run.query("progress", result_type=RunProgress))
        done = await skip("rollback")
        assert (done.code, done.out.split(": ", 1)[1]) == (0, "the step rollback is skipped\n")
        pasted = SkipRequest.model_validate_json(printed.out)
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await run.execute_update("skip", pasted)
        assert rule_of(caught.value) == "step_has_begun", (
            "the form takes what was printed, and the run says no"
        )
        await run.terminate()
