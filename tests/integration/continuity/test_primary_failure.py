"""The primary-failure runbook on a real Temporal server, over a world in memory that journals effects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowFailureError

from activities import power
from qnwis.continuity.executor import OutcomeStatus
from qnwis.continuity.notifications import Notification, Told
from qnwis.continuity.orders import FencingEvidenceType
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.run import (
    DRY_RUN_MARK,
    AbortRequest,
    FailoverRequest,
    RunKind,
    RunOutcome,
    StepStatus,
)
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.fencing import HookAnswer
from qnwis.runbook import load_runbook
from qnwis.starting import start_failover
from tests.looking import WITHIN_S, Looks
from workflows import options
from workflows.names import CLUSTER, INITIATOR, KIND, OUTCOME, RUNBOOKS_QUEUE, failover_id
from workflows.primary_failure import PrimaryFailure

from .conftest import Run, Setting, Stage
from .unrecordable import TOLD, takes_none_of

HOOK = {"url": "http://127.0.0.1:9/{node_id}/{state}"}
SOON_S = 3.0
"""Until fencing that nobody could carry out is given up, where a test has to wait for that."""
Switch = Callable[..., Coroutine[Any, Any, HookAnswer]]


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


class Heard:
    """What people are told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def send(self, notification: Notification) -> Told:
        self.texts.append(notification.text)
        return Told()


async def test_a_run_whose_record_can_never_be_written_ends_says_so_and_leaves_its_cluster(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    on = await stage(notifier=heard)
    on.world.kill("node-1")
    asked = takes_none_of(on.providers.audit, "failover_execute", monkeypatch)

    run = await on.start()
    result = await run.result()

    assert result.outcome is RunOutcome.COMPLETED and on.world.writable() == ["node-2"]
    assert result.audit_id is None and result.notes == (TOLD,) and asked == [result.run_id]
    assert [step.name for step in result.steps if step.status is StepStatus.FAILED] == ["audit"]
    assert f"⚠ {TOLD}" in await current_details(run)
    assert heard.texts[-1].endswith("it is NOT ON RECORD")
    monkeypatch.undo()
    assert (await (await on.start()).result()).audit_id is not None, "the cluster's lock is free"


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


@pytest.mark.parametrize(
    "fault", [Unreachable("127.0.0.1:53: no answer"), Refused(Refusal(rule="no", message="-", remedy="-"))]
)
async def test_a_dry_run_ends_though_something_cannot_be_looked_at(
    stage: Setting, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    monkeypatch.setattr(options, "PREVIEWED_WITHIN_S", SOON_S)
    on = await stage()

    async def fails(service: object) -> dict[str, tuple[str, ...]]:
        raise fault

    monkeypatch.setattr(on.world, "read", fails)
    async with asyncio.timeout(WITHIN_S):
        result = await (await on.start(dry_run=True)).result()

    assert result.outcome is RunOutcome.PREVIEWED and on.world.journal == []
    assert "could not be looked at: 4-flip-dns" in result.reason
    flip = next(outcome for outcome in result.outcomes if "dns" in outcome.action_id)
    told = f"{DRY_RUN_MARK} could not be looked at: {type(fault).__name__}: {fault}"
    assert flip.detail == told, "why, and not that its time was over"
    assert len(result.outcomes) == 5


async def abort(run: Run) -> None:
    await run.execute_update(PrimaryFailure.abort, AbortRequest(by="ann", reason="enough seen"))


async def cancel(run: Run) -> None:
    await run.cancel()
    await _until_cancel_requested(run)


@pytest.mark.parametrize("end", [abort, cancel])
async def test_a_dry_run_is_ended_by_a_person_while_it_looks(
    stage: Setting, monkeypatch: pytest.MonkeyPatch, end: Callable[[Run], Awaitable[None]]
) -> None:
    on = await stage()
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(service: object) -> dict[str, tuple[str, ...]]:
        asked.set()
        await go_on.wait()
        return {}

    monkeypatch.setattr(on.world, "read", slow)
    run = await on.start(dry_run=True)
    async with asyncio.timeout(WITHIN_S):
        await asked.wait()
        await end(run)
        go_on.set()
        result = await run.result()

    assert result.outcome is RunOutcome.UNTOUCHED and on.world.journal == []
    assert "enough seen" in result.reason or "cancelled" in result.reason
    assert len(result.outcomes) < 5, "nothing further was asked"


async def test_without_fencing_nothing_is_promoted(stage: Setting) -> None:
    on = await stage(cluster={"fencing": None})
    on.world.leases = False
    on.world.kill("node-1")

    result = await (await on.start()).result()

    assert result.outcome is RunOutcome.ROLLED_BACK
    assert "no evidence that node-1 has stopped" in result.reason
    assert on.world.changes("promote") == []
    assert not any(machine.reserved for machine in on.world.machines.values() if machine.on)


async def test_a_lease_that_has_run_out_is_evidence(stage: Setting) -> None:
    on = await stage(cluster={"fencing": None})
    on.world.kill("node-1")

    result = await (await on.start()).result()

    assert result.verified and result.fencing is not None
    assert (result.fencing.type, result.fencing.holder) == (FencingEvidenceType.LEASE_EXPIRED, "node-1")
    assert [effect for effect, _ in on.world.journal] == ["promote", "follow", "dns"]


def silent(on: Stage) -> Switch:
    """The power switch never answers: the node's machine and its controller have lost power together."""

    async def never(hook, node_id, state, effect_id):  # type: ignore[no-untyped-def]
        on.world.before_effect(f"power_{state}")
        await asyncio.Event().wait()

    return never


def failing(on: Stage) -> Switch:
    """The power switch cannot be reached."""

    async def fails(hook, node_id, state, effect_id):  # type: ignore[no-untyped-def]
        on.world.before_effect(f"power_{state}")
        raise Unreachable(f"fencing hook: no answer for {node_id}")

    return fails


@pytest.mark.parametrize("switch", [silent, failing])
async def test_a_power_switch_that_does_not_answer_stops_no_failover_that_the_lease_allows(
    stage: Setting, switch: Callable[[Stage], Switch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "FENCED_WITHIN_S", SOON_S)
    on = await stage(cluster={"fencing": {**HOOK, "timeout_s": 0.1}})
    on.world.switch = switch(on)  # type: ignore[method-assign]
    on.world.kill("node-1")

    async with asyncio.timeout(WITHIN_S):
        result = await (await on.start()).result()

    assert result.verified and on.world.writable() == ["node-2"]
    assert result.fencing is not None and result.fencing.type is FencingEvidenceType.LEASE_EXPIRED
    fence = result.outcomes[0]
    assert "the fencing hook did not answer" in fence.detail, fence.detail


async def test_a_power_switch_that_does_not_give_the_power_back_holds_neither_promise_nor_lock(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "FENCED_WITHIN_S", SOON_S)
    monkeypatch.setattr(power, "POWER_BACK_WITHIN_S", 0.0)
    on = await stage(cluster={"fencing": {**HOOK, "timeout_s": 0.1}})
    served: list[list[str]] = []

    def look(effect: str) -> None:
        if effect == "power_on":
            served.append(on.world.writable())

    on.world.leases, on.world.before_effect = False, look
    on.world.switch = failing(on)  # type: ignore[method-assign]
    async with asyncio.timeout(WITHIN_S):
        result = await (await on.start(even_if_healthy=True)).result()

    assert result.outcome is RunOutcome.ROLLED_BACK and on.world.writable() == ["node-1"]
    assert "LEFT TO DO: node-1 may still be OFF" in result.reason
    assert "no answer for node-1" in result.reason, "and why it was given up is said as well"
    assert served == [["node-1"]], "the promise was let go of before the switch was asked"
    on.world.leases = True
    assert (await (await on.start(even_if_healthy=True)).result()).verified, "the lock is free"


async def test_a_run_that_finds_no_majority_gives_up_and_lets_the_primary_serve(stage: Setting) -> None:
    on = await stage(cluster={"fencing": None})

    def alone(effect: str) -> None:
        if effect == "promise":
            on.world.machines["node-2"].reachable = on.world.machines["node-3"].reachable = False

    on.world.before_effect = alone
    run = await on.start(even_if_healthy=True)
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while not any(m.promised != (0, "") for m in on.world.machines.values()):
            await looks.again()
    await run.cancel()
    result = await run.result()

    assert result.outcome is RunOutcome.ROLLED_BACK and on.world.writable() == ["node-1"]
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


async def test_a_target_that_turns_out_to_be_behind_and_cannot_catch_up_is_not_promoted(
    stage: Setting,
) -> None:
    """It has promised the run's epoch by then, as every agent has; that is no sign of a promotion."""
    on = await stage()

    def acknowledged_elsewhere(effect: str) -> None:
        if effect == "power_off":
            on.world.machines["node-3"].lsn += 0x1000
            on.world.machines["node-3"].gives_log = False

    on.world.before_effect = acknowledged_elsewhere
    result = await (await on.start(even_if_healthy=True)).result()

    assert result.outcome is RunOutcome.ROLLED_BACK and "target_no_longer_suitable" in result.reason
    assert on.world.changes("promote") == [] and on.world.writable() == ["node-1"]


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


async def test_a_name_that_cannot_be_read_after_the_flip_leaves_a_record_and_not_a_failed_run(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = await stage()
    on.world.kill("node-1")

    async def refuses(service: object) -> dict[str, tuple[str, ...]]:
        raise Refused(Refusal(rule="dns_refused", message="SERVFAIL", remedy="look"))

    monkeypatch.setattr(on.world, "read", refuses)
    monkeypatch.setattr("workflows.run.SETTLES_S", 0.2, raising=False)

    result = await (await on.start()).result()

    assert result.outcome is RunOutcome.INCOMPLETE and not result.verified
    assert on.world.writable() == ["node-2"] and on.world.address == on.world.cluster.node("node-2").hostname
    assert await on.providers.audit.get(result.audit_id or "") is not None


def halted_at_the_power_switch(on: Stage) -> tuple[asyncio.Event, asyncio.Event]:
    """The next run waits while it fences: the first event says that it does, the second lets it go on."""
    asked, go_on = asyncio.Event(), asyncio.Event()
    switch = on.world.switch

    async def slow_switch(hook, node_id, state, effect_id):  # type: ignore[no-untyped-def]
        asked.set()
        await go_on.wait()
        return await switch(hook, node_id, state, effect_id)

    on.world.switch = slow_switch  # type: ignore[method-assign]
    return asked, go_on


async def test_a_cancelled_run_stops_at_a_safe_place_and_rolls_back(stage: Setting) -> None:
    on = await stage()
    on.world.kill("node-1")
    asked, go_on = halted_at_the_power_switch(on)
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


GOOD = {"cluster_id": "c1", "initiated_by": "ann", "reason": "test"}


@pytest.mark.parametrize(
    ("workflow", "payload", "reason"),
    [
        ("PrimaryFailure", [{}], "cluster_id"),
        ("PrimaryFailure", [{"cluster_id": "c1", "initiated_by": "ann"}], "reason"),
        ("PrimaryFailure", [{**GOOD, "cluster_id": "../c1"}], "cluster_id"),
        ("PrimaryFailure", [{**GOOD, "dry_run": "perhaps"}], "dry_run"),
        ("PrimaryFailure", [{**GOOD, "dryrun": True}], "dryrun"),
        ("PrimaryFailure", ["c1"], "FailoverRequest"),
        ("PrimaryFailure", [None], "FailoverRequest"),
        ("PrimaryFailure", [], "FailoverRequest"),
        ("Guardian", [{}], "cluster_id"),
        ("Guardian", [{"cluster_id": 1}], "cluster_id"),
        ("Guardian", [{"cluster_id": "c1", "strategy": "manual"}], "strategy"),
        ("Guardian", ["c1"], "GuardianState"),
        ("Guardian", [], "GuardianState"),
    ],
)
async def test_a_bad_payload_from_the_ui_fails_at_once_and_says_why(
    stage: Setting, workflow: str, payload: list[object], reason: str
) -> None:
    on = await stage()
    run = await on.client.start_workflow(
        workflow, args=payload, id=f"bad-{on.cluster_id}", task_queue=on.settings.task_queue
    )
    async with asyncio.timeout(WITHIN_S):
        with pytest.raises(WorkflowFailureError) as failed:
            await run.result()
    assert reason in str(failed.value.cause)


SUMMARISED = {EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED, EventType.EVENT_TYPE_TIMER_STARTED}


async def current_details(run: Run) -> str:
    """What the Temporal UI shows on top of a run."""
    return str(
        (await run.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)).current_details
    )


async def test_in_the_ui_a_run_reads_like_its_runbook(stage: Setting) -> None:
    on = await stage(serve=False)
    on.settings = on.settings.model_copy(update={"task_queue": RUNBOOKS_QUEUE})
    on.world.kill("node-1")
    asked, go_on = halted_at_the_power_switch(on)
    text = load_runbook(RunKind.PRIMARY_FAILURE)

    async with AsyncExitStack() as running:
        for worker in on.workers():
            await running.enter_async_context(worker)
        run = await start_failover(
            on.client, FailoverRequest(cluster_id=on.cluster_id, initiated_by="ann", reason="a drill")
        )
        await asked.wait()

        described = await run.describe()
        assert await described.static_summary() == f"Failover of {on.cluster_id}: a drill"
        assert await described.static_details() == text.text
        underway = await current_details(run)
        assert "- ☑ **Simulation**" in underway and "- ▶ **Execution**" in underway
        assert "- ☐ **Verification**" in underway and "`1-fence-node-1`" in underway
        assert text.step("execution").text.replace("<cluster_id>", on.cluster_id) in underway

        go_on.set()
        assert (await run.result()).verified
        ended = await current_details(run)
        assert ended.count("- ☑ **") == len(text.steps)
        assert "### completed\nall 5 actions" in ended

    async for event in run.fetch_history_events():
        if event.event_type in SUMMARISED:
            assert event.user_metadata.summary.data, event


async def test_runs_are_found_by_cluster_kind_outcome_and_initiator(stage: Setting) -> None:
    on = await stage(cooldown_s=0)
    guardian = await on.start_guardian()
    refused = await (await on.start()).result()
    on.world.kill("node-1")

    async def found(query: str) -> list[str]:
        query = f"QnwisCluster = '{on.cluster_id}' AND {query}"
        return [run.id async for run in on.client.list_workflows(query)]

    lock = failover_id(on.cluster_id)
    failures = "QnwisKind = 'primary_failure'"
    async with asyncio.timeout(WITHIN_S):  # the server indexes a little later
        looks = Looks()
        while await found(f"{failures} AND QnwisOutcome = 'completed'") != [lock]:
            await looks.again()
    assert await found(f"{failures} AND QnwisOutcome = 'refused'") == [lock]
    assert await found("QnwisOutcome = 'running'") == []
    assert await found("QnwisKind = 'guardian'") == [guardian.id]
    assert await found("QnwisInitiator = 'ann' AND QnwisOutcome = 'refused'") == [lock]
    assert await found(f"QnwisInitiator = '{guardian.id}' AND QnwisOutcome = 'completed'") == [lock]
    await guardian.terminate()

    described = await on.client.get_workflow_handle(lock, run_id=refused.run_id).describe()
    attributes = {pair.key: pair.value for pair in described.typed_search_attributes.search_attributes}
    assert attributes.items() >= {
        CLUSTER: on.cluster_id, KIND: "primary_failure", OUTCOME: "refused", INITIATOR: "ann"
    }.items()  # fmt: skip
