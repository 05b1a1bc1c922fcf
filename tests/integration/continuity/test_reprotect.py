"""A cluster that lost standbys is brought back to those it wants, on a real Temporal server."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError

from tests.looking import WITHIN_S, Looks
from workflows.guardian import Guardian
from workflows.names import reprotect_id
from workflows.reprotect import Reprotect, ReprotectState

from .conftest import Setting, Stage
from .test_guardian import all_healthy, until
from .world import write_registry


async def test_an_old_primary_that_returns_is_brought_back_where_the_policy_says_so(stage: Setting) -> None:
    on = await stage(reprotect="automatic", reprotect_after_s=0.1)
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    on.world.kill("node-1")
    moved = await until(guardian, lambda view: view.last_result is not None)
    assert on.world.changes("rejoin") == [], "nobody orders a machine that is off"

    on.world.revive("node-1")  # an hour later, say
    async with asyncio.timeout(40):
        while not on.world.changes("rejoin"):
            await asyncio.sleep(0.05)

    old = on.world.machines["node-1"]
    assert (old.primary, old.upstream) == (False, moved.primary_node_id)
    assert old.epoch == on.world.machines[moved.primary_node_id or ""].epoch, "no later one"
    watching = on.client.get_workflow_handle_for(Reprotect.run, reprotect_id(on.world.cluster.cluster_id))
    async with asyncio.timeout(40):
        while (found := (await watching.query(Reprotect.view)).found) is None or not found.whole:
            await asyncio.sleep(0.05)
    assert found.wanted == len(found.there) > 0


async def test_without_the_policys_word_nobody_is_ordered_to_rejoin(stage: Setting) -> None:
    on = await stage()
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    with pytest.raises(RPCError, match="not found"):
        await on.client.get_workflow_handle(reprotect_id(on.world.cluster.cluster_id)).describe()
    assert (await guardian.query(Guardian.view)).own_run is None


async def test_one_that_has_ended_begins_again_while_the_policy_says_so(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever ended it, and also after a policy that did without it for a while."""
    monkeypatch.setattr("workflows.reprotecting.AGAIN", timedelta(seconds=0.2))
    on = await stage(reprotect="automatic", reprotect_after_s=0.1)
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    watching = on.client.get_workflow_handle(reprotect_id(on.cluster_id))
    first = await goes_on(on)

    await watching.terminate("by hand")
    second = await goes_on(on, after=first)

    write_registry(on.settings.config_dir, on.world.cluster, reprotect="manual")
    on.world.kill("node-3")  # it looks at the policy once there is something to decide
    async with asyncio.timeout(WITHIN_S):
        while (await watching.describe()).status is not WorkflowExecutionStatus.COMPLETED:
            await asyncio.sleep(0.05)
    write_registry(on.settings.config_dir, on.world.cluster, reprotect="automatic", reprotect_after_s=0.1)
    await goes_on(on, after=second)
    await guardian.terminate()


async def test_one_that_another_guardian_started_begins_again_too(
    stage: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is awake because of its end: a guardian that knows nothing else of it follows it."""
    monkeypatch.setattr("workflows.reprotecting.AGAIN", timedelta(seconds=0.2))
    on = await stage(reprotect="automatic", reprotect_after_s=0.1)
    before = await on.client.start_workflow(
        Reprotect.run,
        ReprotectState(cluster_id=on.cluster_id),
        id=reprotect_id(on.cluster_id),
        task_queue=on.settings.task_queue,
    )
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while "await_run" not in await activities_of(guardian):
            await looks.again()

    await before.terminate("by hand")
    await goes_on(on, after=before.first_execution_run_id)
    await guardian.terminate()


async def activities_of(guardian: WorkflowHandle[Guardian, None]) -> set[str]:
    return {
        event.activity_task_scheduled_event_attributes.activity_type.name
        async for event in guardian.fetch_history_events()
    }


async def goes_on(on: Stage, after: str | None = None) -> str | None:
    """The run id of the one that runs, once it is another than `after`."""
    watching = on.client.get_workflow_handle(reprotect_id(on.cluster_id))
    async with asyncio.timeout(WITHIN_S):
        while True:
            with contextlib.suppress(RPCError):
                found = await watching.describe()
                if found.status is WorkflowExecutionStatus.RUNNING and found.run_id != after:
                    return found.run_id
            await asyncio.sleep(0.05)
