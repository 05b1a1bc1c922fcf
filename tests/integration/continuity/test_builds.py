"""Workers of two builds on a real Temporal server: a run ends on its build, a guardian goes over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from temporalio.client import Client, WorkflowHandle
from typer.testing import CliRunner

from qnwis.builds import builds_of, make_current
from qnwis.cli.qnwis_continuity import app
from qnwis.lab.temporal_server import TemporalServer
from tests.looking import WITHIN_S, Looks
from workers.wiring import workers_for
from workflows.names import failover_id
from workflows.primary_failure import PrimaryFailure

from .conftest import Setting, Stage
from .people import Crowd, asked
from .test_guardian import all_healthy, until


async def build_of(run: WorkflowHandle[Any, Any]) -> str:
    """The build that carried out the workflow's newest task."""
    info = (await run.describe()).raw_description.workflow_execution_info.versioning_info
    return info.deployment_version.build_id


@asynccontextmanager
async def workers_of(stage: Stage, build: str, **other: Any) -> AsyncIterator[None]:
    """Workers that run this build, once Temporal knows of it."""
    named = {"build": build, "deployment": stage.cluster_id}
    settings = stage.settings.model_copy(update={**named, **other})
    async with AsyncExitStack() as running:
        for worker in workers_for(stage.client, settings, stage.providers):
            await running.enter_async_context(worker)
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while build not in {known.build for known in await builds_of(stage.client, stage.cluster_id)}:
                await looks.again()
        yield


def builds(stage: Stage, server: TemporalServer, *typed: str) -> tuple[int, str]:
    place = ("--deployment", stage.cluster_id, "--address", server.address)
    result = CliRunner().invoke(app, ["builds", *typed, *place])
    return result.exit_code, result.output or repr(result.exception)


async def test_a_run_under_way_ends_on_its_build_and_what_begins_next_is_of_the_current_one(
    stage: Setting, client: Client, server: TemporalServer
) -> None:
    crowd = Crowd(on := await stage(serve=False, approvals=True, strategy="manual"))
    async with workers_of(on, "1"):
        await make_current(client, "1", on.cluster_id)
        guardian = await on.start_guardian()
        await until(guardian, all_healthy)
        assert await build_of(guardian) == "1"
        on.world.kill("node-1")
        await until(guardian, lambda view: view.own_run is not None)
        run = client.get_workflow_handle_for(PrimaryFailure.run, failover_id(on.cluster_id))
        await asked(run)
        async with workers_of(on, "2", vantages=()):
            assert await asyncio.to_thread(builds, on, server, "current", "2") == (
                0,
                f"2 is the current build of {on.cluster_id}\n",
            )
            assert [(b.build, b.status) for b in await builds_of(client, on.cluster_id)] == [
                ("2", "current"),
                ("1", "draining"),
            ]
            await crowd.approve(run, "ann")
            assert (await run.result()).verified
            assert await build_of(run) == "1", "half a failover is not carried on by other code"

            next_run = await crowd.start("bob", dry_run=True)
            await next_run.result()
            assert await build_of(next_run) == "2"
            async with asyncio.timeout(WITHIN_S):
                looks = Looks()
                while await build_of(guardian) != "2":
                    await looks.again()
            await guardian.terminate()


async def test_a_build_that_nobody_runs_does_not_become_the_current_one(
    stage: Setting, server: TemporalServer
) -> None:
    on = await stage(serve=False)
    status, said = await asyncio.to_thread(builds, on, server, "current", "9")
    assert (status, "[build_unknown]" in said, "worker --build 9" in said) == (3, True, True)
    assert await asyncio.to_thread(builds, on, server, "list") == (
        0,
        f"no worker of {on.cluster_id} said which build it runs; see `worker --build`\n",
    )
