"""The primary-failure runbook on a real Temporal server, over a world in memory that journals effects."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import WorkflowFailureError

from qnwis.continuity.executor import OutcomeStatus
from qnwis.continuity.orders import FencingEvidenceType
from qnwis.continuity.run import DRY_RUN_MARK, RunKind, RunOutcome, StepStatus
from qnwis.providers.errors import Unreachable
from qnwis.runbook import load_runbook

from .conftest import Run, Setting


async def test_a_dead_primary_is_fenced_and_the_best_standby_promoted_once(stage: Setting) -> None:
    on = await stage()
    on.world.kill("node-1")

    result = await (await on.start()).result()

    assert result.outcome is RunOutcome.COMPLETED and result.verified
    assert (result.old_primary, result.new_primary, result.epoch) == ("node-1", "node-2", 1)
    assert result.fencing is not None and result.fencing.type is FencingEvidenceType.HOOK
    assert on.world.writable() == ["node-2"]
    assert [effect for effect, _ in on.world.journal] == ["power_off", "promote", "follow", "dns"]
    assert on.world.address == "10.0.1.11"
    record = await on.providers.audit.get(result.audit_id or "")
    assert record is not None and record.result.success and record.target_node == "node-2"


async def test_the_steps_of_the_run_are_the_steps_of_the_text(stage: Setting) -> None:
    on = await stage()
    on.world.kill("node-1")

    result = await (await on.start()).result()

    text = load_runbook(RunKind.PRIMARY_FAILURE)
    assert [step.name for step in result.steps] == [step.name for step in text.steps]
    assert {step.status for step in result.steps} == {StepStatus.DONE}


async def test_a_healthy_primary_is_left_alone(stage: Setting) -> None:
    on = await stage()

    result = await (await on.start()).result()

    assert result.outcome is RunOutcome.REFUSED
    assert result.refusal is not None and result.refusal.rule == "primary_is_healthy"
    assert on.world.journal == []
    assert result.audit_id is not None


async def test_a_person_may_insist_on_leaving_a_healthy_primary(stage: Setting) -> None:
    on = await stage()

    result = await (await on.start(even_if_healthy=True)).result()

    assert result.verified and on.world.writable() == ["node-2"]
    assert on.world.machines["node-1"].on is False


async def test_a_dry_run_reads_the_world_and_changes_nothing(stage: Setting) -> None:
    on = await stage()

    result = await (await on.start(dry_run=True)).result()

    assert result.outcome is RunOutcome.PREVIEWED
    assert on.world.journal == [] and on.world.writable() == ["node-1"]
    assert len(result.outcomes) == 5
    assert all(o.detail.startswith(DRY_RUN_MARK) for o in result.outcomes)
    assert any("primary_is_healthy" in note for note in result.notes)


async def test_without_fencing_nothing_is_promoted(stage: Setting) -> None:
    on = await stage(cluster={"fencing": None})
    on.world.kill("node-1")

    result = await (await on.start()).result()

    assert result.outcome is RunOutcome.UNTOUCHED
    assert "no fencing is configured" in result.reason
    assert on.world.changes("promote") == []


async def test_a_promotion_that_is_refused_gives_the_old_primary_its_power_back(stage: Setting) -> None:
    on = await stage()
    # Another run has used a higher epoch meanwhile: the target refuses this one's.
    on.world.kill("node-1")

    def rival(effect: str) -> None:
        if effect == "promote":
            on.world.machines["node-2"].epoch = 9

    on.world.before_effect = rival
    result = await (await on.start()).result()

    assert result.outcome is RunOutcome.ROLLED_BACK
    assert [effect for effect, _ in on.world.journal] == ["power_off", "power_on"]
    assert on.world.writable() == ["node-1"]


async def test_effects_that_fail_on_the_way_are_asked_again_and_happen_once(stage: Setting) -> None:
    on = await stage()
    on.world.kill("node-1")
    for effect in ("power_off", "promote", "follow", "dns"):
        on.world.fail_next(effect, Unreachable("lost"), Unreachable("lost"))

    result = await (await on.start()).result()

    assert result.verified
    assert [effect for effect, _ in on.world.journal] == ["power_off", "promote", "follow", "dns"]


async def test_a_dns_server_that_refuses_leaves_an_incomplete_run_past_return(stage: Setting) -> None:
    on = await stage()
    on.world.kill("node-1")
    on.world.address = "192.0.2.7"  # somebody else moved the record

    result = await (await on.start()).result()

    assert result.outcome is RunOutcome.INCOMPLETE and not result.verified
    assert on.world.writable() == ["node-2"] and on.world.changes("power_on") == []
    assert next(o for o in result.outcomes if "dns" in o.action_id).status is OutcomeStatus.FAILED


async def test_a_cancelled_run_stops_at_a_safe_place_and_rolls_back(stage: Setting) -> None:
    on = await stage()
    on.world.kill("node-1")
    asked, go_on = asyncio.Event(), asyncio.Event()
    switch = on.world.switch

    async def slow_switch(hook, node_id, state, effect_id):  # type: ignore[no-untyped-def]
        asked.set()
        await go_on.wait()
        return await switch(hook, node_id, state, effect_id)

    on.world.switch = slow_switch  # type: ignore[method-assign]
    run = await on.start()
    await asked.wait()
    await run.cancel()
    await _until_cancel_requested(run)
    go_on.set()
    result = await run.result()

    assert result.outcome is RunOutcome.ROLLED_BACK and "cancelled" in result.reason
    assert [effect for effect, _ in on.world.journal] == ["power_off", "power_on"]
    assert on.world.writable() == ["node-1"]


async def _until_cancel_requested(run: Run) -> None:
    """Until the cancel is in the history: only then is it sure to come before the effect's end."""
    while True:
        async for event in run.fetch_history_events():
            if event.HasField("workflow_execution_cancel_requested_event_attributes"):
                return


async def test_only_the_clusters_lock_may_be_the_workflow_id(stage: Setting) -> None:
    on = await stage()
    on.world.kill("node-1")

    with pytest.raises(WorkflowFailureError) as failed:
        await (await on.start(workflow_id="failover-by-hand")).result()

    assert "failover-by-hand" in str(failed.value.cause)
    assert on.world.journal == []


@pytest.mark.parametrize("payload", [{}, {"cluster_id": "x"}, {"cluster_id": "../x"}, {"unknown": 1}])
async def test_a_bad_payload_from_the_ui_fails_at_once(stage: Setting, payload: dict[str, object]) -> None:
    on = await stage()
    run = await on.client.start_workflow(
        "PrimaryFailure", payload, id=f"bad-{on.cluster_id}", task_queue=on.settings.task_queue
    )
    with pytest.raises(WorkflowFailureError) as failed:
        await run.result()
    assert "FailoverRequest" in str(failed.value.cause)
