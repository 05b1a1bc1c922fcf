"""Readiness on the real Temporal server: asked for by a person, by a schedule, and after an edit."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from temporalio.client import ScheduleActionExecutionStartWorkflow, WorkflowHandle
from typer.testing import CliRunner, Result

from qnwis.cli.qnwis_continuity import app
from qnwis.continuity.allowlist import RefusedCallers
from qnwis.continuity.readiness_facts import Grade, Readiness
from qnwis.continuity.topology import Cluster
from qnwis.lab.temporal_server import TemporalServer
from qnwis.providers.errors import Refused
from qnwis.readiness_runs import schedule_readiness, start_readiness, unschedule_readiness
from qnwis.starting import say_to_guardian
from tests.looking import WITHIN_S, Looks
from workflows.guardian_state import PauseRequest
from workflows.names import CLUSTER, INITIATOR, KIND, OUTCOME, RUNBOOKS_QUEUE, guardian_id, readiness_id
from workflows.readiness import ReadinessCheck

from .conftest import Setting, Stage
from .test_guardian import all_healthy, until
from .test_primary_failure import current_details


async def evaluated(on: Stage) -> Readiness:
    handle = await start_readiness(on.client, on.cluster_id, by="ann", task_queue=on.settings.task_queue)
    return await handle.result()


def grades(readiness: Readiness) -> dict[str, Grade]:
    return {check.name: check.grade for check in readiness.checks}


async def test_the_world_is_asked_and_the_answer_is_seen_in_the_ui_and_found(stage: Setting) -> None:
    on = await stage()
    first = await evaluated(on)
    assert first.grade is Grade.WARNING, first
    found = grades(first)
    assert found["target exists"] is found["replication lag"] is found["DNS credentials"] is Grade.READY
    assert found["last drill"] is found["configuration"] is Grade.WARNING

    on.world.fail_next("try_update", RuntimeError("the key is wrong"))
    refused = await evaluated(on)
    assert refused.grade is Grade.NOT_READY and grades(refused)["DNS credentials"] is Grade.NOT_READY

    hooks = on.settings.config_dir / "hooks.yaml"
    hooks.write_text("hooks: [{name: it}]\n")
    broken = await evaluated(on)
    assert grades(broken)["files"] is Grade.NOT_READY and "hooks.yaml:1" in str(broken.checks)
    hooks.unlink()

    on.world.kill("node-3")
    second = await evaluated(on)
    assert second.grade is Grade.NOT_READY and grades(second)["loss of any node"] is Grade.NOT_READY
    handle: WorkflowHandle[ReadinessCheck, Readiness] = on.client.get_workflow_handle_for(
        ReadinessCheck.run, readiness_id(on.cluster_id)
    )
    assert "**not ready**" in await current_details(handle)
    attributes = (await handle.describe()).typed_search_attributes
    assert [attributes[key] for key in (CLUSTER, KIND, INITIATOR, OUTCOME)] == [
        on.cluster_id,
        "readiness",
        "ann",
        "not_ready",
    ]
    assert on.world.journal == [], "an evaluation changes nothing"


async def test_it_says_whether_anybody_watches(stage: Setting) -> None:
    on = await stage()

    async def said() -> tuple[Grade, str]:
        (found,) = (check for check in (await evaluated(on)).checks if check.name == "guardian")
        return found.grade, found.reason

    grade, why = await said()
    assert grade is Grade.WARNING and f"there is no {guardian_id(on.cluster_id)}" in why
    guardian = await on.start_guardian()
    await until(guardian, all_healthy)
    assert await said() == (Grade.READY, f"it watches from {on.cluster_id}-1")
    await say_to_guardian(on.client, on.cluster_id, "pause", PauseRequest(by="ann", reason="test"))
    await until(guardian, lambda view: view.pause is not None)
    assert await said() == (Grade.WARNING, "paused by ann: test")
    await guardian.terminate()
    grade, why = await said()
    assert grade is Grade.WARNING and "has ended (terminated)" in why


class Knocked:
    """Agents that refused somebody just now, on mutual TLS."""

    async def certificates(self, cluster: Cluster) -> None:
        return None

    async def refused(self, cluster: Cluster) -> dict[str, RefusedCallers]:
        counts = {"certificate_not_listed": 3}
        return {"node-1": RefusedCallers(counts=counts, last_at=datetime.now(UTC))}


async def test_people_are_told_of_callers_whom_agents_refused(
    stage: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    on = await stage(serve=False)
    on.providers = replace(on.providers, tls=Knocked())
    async with contextlib.AsyncExitStack() as running:
        for worker in on.workers():
            await running.enter_async_context(worker)
        found = await evaluated(on)
    assert grades(found)["callers"] is Grade.WARNING
    assert f"Agents of {on.cluster_id} refused callers: refused within a day: node-1" in caplog.text


async def test_a_verified_run_verifies_the_configuration_and_an_edit_ends_that(stage: Setting) -> None:
    on = await stage()
    on.world.kill("node-1")
    run = await (await on.start()).result()
    assert run.verified
    on.world.come_back("node-1")
    after = await evaluated(on)
    assert grades(after)["configuration"] is Grade.READY and after.unverified_since_edit == ()

    file = on.settings.config_dir / "clusters" / on.cluster_id / "policy.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "max_lag_bytes": 5}))
    edited = await evaluated(on)
    assert edited.unverified_since_edit == ("policy_digest",)
    assert grades(edited)["configuration"] is Grade.WARNING


async def test_a_schedule_evaluates_is_changed_and_deleted(stage: Setting) -> None:
    on = await stage()
    queue = on.settings.task_queue
    for hours in (1, 2):
        await schedule_readiness(on.client, on.cluster_id, every=timedelta(hours=hours), task_queue=queue)
    schedule = on.client.get_schedule_handle(readiness_id(on.cluster_id))
    (interval,) = (await schedule.describe()).schedule.spec.intervals
    assert interval.every == timedelta(hours=2)

    await schedule.trigger()
    async with asyncio.timeout(WITHIN_S):
        looks = Looks()
        while not (ran := (await schedule.describe()).info.recent_actions):
            await looks.again()
    started = ran[0].action
    assert isinstance(started, ScheduleActionExecutionStartWorkflow)
    handle = on.client.get_workflow_handle_for(ReadinessCheck.run, started.workflow_id)
    assert (await handle.result()).cluster_id == on.cluster_id

    await unschedule_readiness(on.client, on.cluster_id)
    with pytest.raises(Refused, match="no_schedule"):
        await unschedule_readiness(on.client, on.cluster_id)


async def test_the_exit_code_is_0_only_where_a_failover_would_work(
    stage: Setting, server: TemporalServer
) -> None:
    on = await stage(serve=False)
    on.settings = on.settings.model_copy(update={"task_queue": RUNBOOKS_QUEUE})

    async def typed(*arguments: str) -> Result:
        command = ["readiness", *arguments, "--address", server.address]
        environment = {"COLUMNS": "300", "NO_COLOR": "1"}
        return await asyncio.to_thread(CliRunner().invoke, app, command, env=environment)

    workers = on.workers()
    async with workers[0], workers[1]:
        shown = await typed("show", on.cluster_id)
        assert shown.exit_code == 0, shown.output
        assert "target exists" in shown.output and "node-2 would take over from node-1" in shown.output
        assert f"{on.cluster_id}: warning" in shown.output

        on.world.kill("node-3")
        told = await typed("show", on.cluster_id, "--json")
        assert told.exit_code == 1
        assert Readiness.model_validate_json(told.stdout).grade is Grade.NOT_READY

        unknown = await typed("show", "nobody")
        assert unknown.exit_code == 1 and "one of the clusters here" in unknown.output, unknown.output

        for arguments, code, said in (
            (["--every", "1h"], 0, "evaluated every 1h"),
            (["--delete"], 0, "no more"),
            (["--delete"], 3, "no_schedule"),
            (["--every", "soon"], 2, "expected for example 30m"),
            (["--every", "1s"], 2, "at least 30s"),
            ([], 2, "either --every or --delete"),
        ):
            done = await typed("schedule", on.cluster_id, *arguments)
            assert done.exit_code == code and said in done.output, (arguments, done.output)
