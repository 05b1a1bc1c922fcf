"""Runs that people abort, terminate or reset, and guardians that are terminated: each ends in a stated place.

What happens at every single point of a run is in `test_matrix.py`; here is who finishes it, and what is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta

import pytest
from temporalio.client import WorkflowFailureError

from activities import executions, past_runs
from qnwis.continuity.run import DECIDING, AbortRequest, Continued, RunOutcome
from qnwis.lab.temporal_server import TemporalServer
from qnwis.providers.errors import Refused
from qnwis.starting import say_to_run
from tests.looking import WITHIN_S, Looks
from workflows.guardian import Guardian
from workflows.guardian_state import PauseRequest
from workflows.names import OUTCOME, failover_id
from workflows.primary_failure import PrimaryFailure
from workflows.takeover import LINGER

from .conftest import Run, Setting, Stage
from .matrix import reset, task_that_asks, tasks
from .people import Crowd
from .real import command
from .test_guardian import all_healthy, until


@asynccontextmanager
async def halted(on: Stage, effect: str) -> AsyncIterator[Callable[[], None]]:
    """The next run waits where it asks the world for this effect; entered when it does."""
    asked, go_on = asyncio.Event(), asyncio.Event()
    order, switch = on.world.order, on.world.switch

    async def slow_order(node, order_, *, timeout_s):  # type: ignore[no-untyped-def]
        await here(order_.kind)
        return await order(node, order_, timeout_s=timeout_s)

    async def slow_switch(hook, node_id, state, effect_id):  # type: ignore[no-untyped-def]
        await here(f"power_{state}")
        return await switch(hook, node_id, state, effect_id)

    async def here(kind: str) -> None:
        if kind == effect:
            asked.set()
            await go_on.wait()

    on.world.order, on.world.switch = slow_order, slow_switch  # type: ignore[method-assign]
    try:
        async with asyncio.timeout(WITHIN_S):
            await asked.wait()
        yield go_on.set
    finally:
        go_on.set()


def current(on: Stage) -> Run:
    return on.client.get_workflow_handle_for(PrimaryFailure.run, failover_id(on.cluster_id))


async def this_execution(on: Stage) -> Run:
    run_id = (await current(on).describe()).run_id
    return on.client.get_workflow_handle_for(PrimaryFailure.run, failover_id(on.cluster_id), run_id=run_id)


# Aborting


async def test_an_abort_undoes_what_was_begun_and_says_by_whom(stage: Setting) -> None:
    on = await stage()
    run = await on.start(even_if_healthy=True)
    async with halted(on, "power_off") as go_on:
        said = await say_to_run(
            on.client, failover_id(on.cluster_id), "abort", AbortRequest(by="eve", reason="wrong cluster")
        )
        go_on()
    result = await run.result()

    assert "undoes" in said
    assert (result.outcome, result.reason) == (RunOutcome.ROLLED_BACK, "aborted by eve: wrong cluster")
    assert on.world.writable() == ["node-1"]


async def test_an_abort_past_the_point_of_no_return_is_refused_and_changes_nothing(stage: Setting) -> None:
    on = await stage()
    run = await on.start(even_if_healthy=True)
    async with halted(on, "promote") as go_on:
        with pytest.raises(Refused) as refused:
            await say_to_run(
                on.client, failover_id(on.cluster_id), "abort", AbortRequest(by="eve", reason="too late")
            )
        await run.signal("abort", AbortRequest(by="eve", reason="still too late"))
        go_on()

    assert refused.value.refusal.rule == "past_return"
    assert (await run.result()).verified and on.world.writable() == ["node-2"]


async def test_an_abort_by_signal_is_the_same(stage: Setting) -> None:
    on = await stage()
    run = await on.start(even_if_healthy=True)
    async with halted(on, "power_off") as go_on:
        await run.signal("abort", AbortRequest(by="eve", reason="wrong cluster"))
        await run.query(PrimaryFailure.progress_view)
        go_on()
    assert (await run.result()).reason == "aborted by eve: wrong cluster"


async def test_the_commands_say_that_there_is_nothing_to_abort(server: TemporalServer) -> None:
    said = await command("abort", "nowhere", "--reason", "test", "--address", server.address)
    assert said.code == 3 and "Refused [no_run]" in said.err


# Terminated


async def test_nobody_starts_a_run_over_one_that_was_left_unfinished(stage: Setting) -> None:
    on = await stage()
    run = await on.start(even_if_healthy=True)
    async with halted(on, "promote"):
        await run.terminate("enough")

    fresh = await (await on.start(even_if_healthy=True)).result()
    assert fresh.refusal is not None and fresh.refusal.rule == "unfinished_run"
    assert fresh.refusal.values["run_id"] == run.result_run_id
    assert f"qnwis-continuity finish {on.cluster_id}" in fresh.refusal.remedy

    finished = await (await on.start(continues="unfinished")).result()
    assert finished.verified and finished.run_id == run.result_run_id
    again = await (await on.start(continues=run.result_run_id)).result()
    assert again.refusal is not None and again.refusal.rule == "nothing_to_finish"
    assert [effect for effect, _ in on.world.journal] == ["power_off", "promote", "follow", "dns"]


async def nothing_said(on: Stage) -> None:
    """Somebody starts a run in the Temporal UI and gives it no input: it fails at once."""
    with pytest.raises(WorkflowFailureError):
        await on.client.execute_workflow(
            "PrimaryFailure", id=failover_id(on.cluster_id), task_queue=on.settings.task_queue
        )


async def test_what_was_started_without_input_holds_no_later_run_up(stage: Setting) -> None:
    on = await stage()
    on.world.kill("node-1")
    await nothing_said(on)
    async with asyncio.timeout(WITHIN_S):
        assert (await (await on.start()).result()).verified


async def test_an_unfinished_run_is_not_forgotten_for_all_that_was_refused_since(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (executions, past_runs):
        monkeypatch.setattr(module, "LOOKED_BACK", 2)
    on = await stage()
    run = await on.start(even_if_healthy=True)
    async with halted(on, "promote"):
        await run.terminate("enough")
    for _ in range(5):
        fresh = await (await on.start(even_if_healthy=True)).result()
        assert fresh.refusal is not None and fresh.refusal.rule == "unfinished_run"
        assert fresh.refusal.values["run_id"] == run.result_run_id

    finished = await (await on.start(continues="unfinished")).result()
    assert finished.verified and finished.run_id == run.result_run_id


async def test_a_guardian_that_is_started_late_finishes_it_all_the_same(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (executions, past_runs):
        monkeypatch.setattr(module, "LOOKED_BACK", 2)
    on = await stage()
    run = await on.start(even_if_healthy=True)
    async with halted(on, "promote"):
        await run.terminate("enough")
    for _ in range(4):
        await (await on.start(even_if_healthy=True)).result()

    guardian = await on.start_guardian()
    view = await until(guardian, lambda v: v.last_result is not None)
    assert view.last_result is not None and view.last_result.run_id == run.result_run_id
    await guardian.terminate()


async def fails_at_once(on: Stage) -> Run:
    """The files of its cluster cannot be used: it ends without a result, and has begun nothing."""
    run = await on.start()
    with pytest.raises(WorkflowFailureError):
        await run.result()
    return run


@contextmanager
def broken_files(on: Stage) -> Iterator[None]:
    file = on.settings.config_dir / "clusters" / on.cluster_id / "cluster.yaml"
    whole = file.read_text()
    file.write_text("nodes: [")
    try:
        yield
    finally:
        file.write_text(whole)


async def test_however_many_have_begun_nothing_a_run_begins_once_it_can(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night long, say, while the files of the cluster could not be used; or of an earlier version, which
    did not say of a run whether it had acted."""
    for module in (executions, past_runs):
        monkeypatch.setattr(module, "LOOKED_BACK", 2)
    monkeypatch.setattr(past_runs, "LOOKED_BACK_AT_MOST", 2)
    on = await stage()
    on.world.kill("node-1")
    with broken_files(on):
        for _ in range(6):
            await fails_at_once(on)
    for _ in range(6):
        await nothing_said(on)
    assert (await (await on.start()).result()).verified


async def test_of_runs_that_have_begun_nothing_only_the_newest_are_read(stage: Setting) -> None:
    on = await stage()
    with broken_files(on):
        failed = await fails_at_once(on)
    run = await on.start(even_if_healthy=True)
    async with halted(on, "promote"):
        await run.terminate("enough")

    lock = failover_id(on.cluster_id)
    deciding = f"WorkflowId = '{lock}' AND {OUTCOME.name} = '{DECIDING}'"
    async with asyncio.timeout(WITHIN_S):  # the server indexes a little later
        looks = Looks()
        while [one.run_id async for one in on.client.list_workflows(deciding)] != [failed.result_run_id]:
            await looks.again()
        while await began_something(on) != [run.result_run_id]:
            await looks.again()


async def began_something(on: Stage) -> list[str]:
    groups = executions.executions_before(
        on.client, failover_id(on.cluster_id), OUTCOME.name, but=(), before=""
    )
    return [one.run_id async for group in groups for one in group]


async def test_where_it_is_not_known_whether_one_was_left_unfinished_none_begins(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (executions, past_runs):
        monkeypatch.setattr(module, "LOOKED_BACK", 2)
    monkeypatch.setattr(past_runs, "LOOKED_BACK_AT_MOST", 1)
    on = await stage()
    run = await on.start(even_if_healthy=True)
    async with halted(on, "promote"):
        await run.terminate("enough")
        for _ in range(5):  # each takes over what the run had begun
            asked = len(on.world.changes("promote"))
            finishing = await on.start(continues="unfinished")
            await has_asked_for(finishing, "promote")
            await finishing.terminate("enough")
            assert len(on.world.changes("promote")) == asked

    fresh = await (await on.start(continues="of-which-nobody-knows")).result()
    assert fresh.refusal is not None and fresh.refusal.rule == "past_not_known"
    finished = await (await on.start(continues=run.result_run_id)).result()
    assert finished.verified and finished.run_id == run.result_run_id


async def has_asked_for(run: Run, effect: str) -> None:
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while effect not in {
            event.activity_task_scheduled_event_attributes.activity_type.name
            async for event in run.fetch_history_events()
        }:
            await looks.again()


async def test_an_abort_is_heard_while_what_was_before_is_read(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a server that does not answer; and the end hides nothing that was left unfinished."""
    monkeypatch.setattr("workflows.takeover.READ_STILL", timedelta(seconds=0.1))
    on = await stage()
    left = await on.start(even_if_healthy=True)
    async with halted(on, "promote"):
        await left.terminate("enough")
    reads, asked = executions.executions, asyncio.Event()

    async def never(*_: object, **__: object) -> list[str]:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(past_runs, "executions", never)
    run = await on.start(even_if_healthy=True)
    async with asyncio.timeout(WITHIN_S):
        await asked.wait()
        await say_to_run(
            on.client, failover_id(on.cluster_id), "abort", AbortRequest(by="eve", reason="wrong cluster")
        )
        result = await run.result()
    assert result.outcome is RunOutcome.REFUSED and "aborted by eve: wrong cluster" in result.reason

    monkeypatch.setattr(past_runs, "executions", reads)
    fresh = await (await on.start(even_if_healthy=True)).result()
    assert fresh.refusal is not None and fresh.refusal.rule == "unfinished_run"
    assert fresh.refusal.values["run_id"] == left.result_run_id


async def test_who_may_not_finish_a_run_makes_no_record_in_its_name(stage: Setting) -> None:
    """There is one record of a run, and it says what was done."""
    on = await stage(approvals=True)
    crowd = Crowd(on)
    on.world.kill("node-1")
    run = await crowd.start("bob")
    await crowd.approve(run)
    async with halted(on, "promote"):
        await run.terminate("enough")

    refused = await (await crowd.start("eve", continues="unfinished")).result()
    assert refused.refusal is not None and refused.refusal.rule == "permission_missing"
    finished = await (await crowd.start("bob", continues="unfinished")).result()
    assert finished.verified and finished.run_id == run.result_run_id != refused.run_id
    record = await on.providers.audit.get(finished.audit_id or "")
    assert record is not None and record.result.success and record.refusal is None


async def test_the_record_of_a_finished_run_says_how_it_was_interrupted(stage: Setting) -> None:
    on = await stage()
    run = await on.start(even_if_healthy=True, reason="leave node-1", initiated_by="ann")
    async with halted(on, "power_off"):
        await run.terminate("enough of it")
    result = await (await on.start(continues="unfinished", initiated_by="eve", reason="finish")).result()

    (record,) = await on.providers.audit.by_run(run.result_run_id or "")
    assert (record.initiated_by, record.reason, record.audit_id) == ("ann", "leave node-1", result.audit_id)
    assert "continues" in record.manifest
    assert isinstance(result.continues, Continued) and result.continues.execution_id == run.result_run_id
    assert "enough of it" in result.continues.ended and "enough of it" in result.reason
    assert result.outcome is RunOutcome.ROLLED_BACK and on.world.writable() == ["node-1"]


async def test_what_a_terminated_run_has_under_way_is_waited_for_before_it_is_undone(stage: Setting) -> None:
    on = await stage()
    run = await on.start(even_if_healthy=True)
    async with halted(on, "power_off") as go_on:
        await run.terminate("enough")
        finishing = await on.start(continues="unfinished")
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while LINGER not in await timers(finishing):
                await looks.again()
        go_on()  # so late that an undoing would come before what it undoes
        result = await finishing.result()
    assert result.outcome is RunOutcome.ROLLED_BACK and on.world.writable() == ["node-1"]


async def timers(run: Run) -> list[timedelta]:
    return [
        event.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta()
        async for event in run.fetch_history_events()
        if event.HasField("timer_started_event_attributes")
    ]


@pytest.mark.parametrize(
    ("effect", "outcome", "primary"),
    [("power_off", RunOutcome.ROLLED_BACK, "node-1"), ("promote", RunOutcome.COMPLETED, "node-2")],
)
async def test_the_guardian_finishes_a_run_that_a_person_terminated(
    stage: Setting, effect: str, outcome: RunOutcome, primary: str
) -> None:
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    # Paused, it starts nothing of its own; what was begun it finishes all the same.
    await guardian.signal(Guardian.pause_failover, PauseRequest(by="ann", reason="only what was begun"))
    run = await on.start(even_if_healthy=True)
    async with halted(on, effect):
        await run.terminate("enough")

    view = await until(guardian, lambda v: v.last_result is not None)
    assert view.last_result is not None and view.last_result.run_id == run.result_run_id
    assert view.last_result.outcome is outcome and on.world.writable() == [primary]
    assert [past.run_id for past in view.history] == [run.result_run_id]
    await guardian.terminate()


async def test_the_guardian_finishes_its_own_run_when_that_is_terminated(stage: Setting) -> None:
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    on.world.kill("node-1")
    async with halted(on, "promote"):
        run = await this_execution(on)
        await run.terminate("enough")

    view = await until(guardian, lambda v: v.last_result is not None)
    assert view.last_result is not None and view.last_result.verified
    assert view.last_result.run_id == run.run_id
    assert [effect for effect, _ in on.world.journal] == ["power_off", "promote", "follow", "dns"]
    await guardian.terminate()


async def test_a_guardian_started_again_finishes_what_it_finds(stage: Setting) -> None:
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    on.world.kill("node-1")
    async with halted(on, "promote"):
        await guardian.terminate()
        await (await this_execution(on)).terminate("enough")

    guardian = await on.start_guardian()
    view = await until(guardian, lambda v: v.last_result is not None)
    assert view.last_result is not None and view.last_result.verified
    assert on.world.writable() == ["node-2"]
    await guardian.terminate()


# A guardian that is gone


async def test_a_run_whose_guardian_is_gone_ends_by_itself_and_the_next_guardian_counts_it(
    stage: Setting,
) -> None:
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    on.world.kill("node-1")
    async with halted(on, "promote") as go_on:
        await guardian.terminate()
        run = await this_execution(on)
        guardian = await on.start_guardian()
        go_on()
    result = await run.result()
    assert result.verified

    view = await until(guardian, lambda v: v.primary_node_id == "node-2" and len(v.history) == 1)
    assert view.history[0].run_id == result.run_id
    on.world.kill("node-2")
    view = await until(guardian, lambda v: v.holding is not None)
    assert "cooldown" in (view.holding or "") and on.world.writable() == []
    await guardian.terminate()


# Reset


async def test_a_guardian_hears_of_its_run_though_it_was_reset(stage: Setting) -> None:
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    on.world.kill("node-1")
    async with halted(on, "promote") as go_on:
        run = await this_execution(on)
        await reset(run, on.client, (await tasks(run))[0])
        go_on()
    view = await until(guardian, lambda v: v.last_result is not None)
    assert view.last_result is not None and view.last_result.verified
    assert (view.last_result.run_id, len(view.history)) == (run.run_id, 1)
    await guardian.terminate()


async def test_a_finished_run_that_is_reset_does_nothing_a_second_time(stage: Setting) -> None:
    on = await stage()
    run = await on.start(even_if_healthy=True)
    first = await run.result()
    await reset(run, on.client, (await tasks(run))[-1])
    second = await current(on).result()

    assert second.verified and (second.run_id, second.audit_id) == (first.run_id, first.audit_id)
    assert [effect for effect, _ in on.world.journal] == ["power_off", "promote", "follow", "dns"]


async def test_what_a_run_has_undone_stays_undone_though_it_is_reset_to_before_that(stage: Setting) -> None:
    """Its fence is worth nothing any more, whatever the history up to there says."""
    on = await stage()
    asked: list[str] = []

    def rival(effect: str) -> None:
        asked.append(effect)
        if effect == "promote":
            on.world.machines["node-2"].epoch = 9

    on.world.before_effect = rival
    run = await on.start(even_if_healthy=True)
    assert (await run.result()).outcome is RunOutcome.ROLLED_BACK
    asked.clear()

    await reset(run, on.client, await task_that_asks(run, "promote"))
    again = await current(on).result()

    assert again.outcome is RunOutcome.ROLLED_BACK and on.world.writable() == ["node-1"]
    assert asked == []
