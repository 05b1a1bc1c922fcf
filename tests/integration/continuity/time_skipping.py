"""Hours in seconds: Temporal's time-skipping server, and a watch that fits its clock.

The server's clock jumps to the next timer whenever it may (`Hours.pass_by`), but never while an activity
runs. So the guardian's real watches, long activities, would stop the clock; `PatientWatch` and `OwnRuns` take
their place.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from temporalio import activity, workflow
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.client import Interceptor as ClientInterceptor
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Interceptor as WorkerInterceptor
from temporalio.worker import (
    Worker,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from activities.beats import LIVE, NodeVote
from activities.health import WatchReport, WatchRequest
from activities.past_runs import LookBackRequest, RunsReport, WatchRunsRequest
from activities.run_history import LOOK_BACK
from qnwis.continuity.heartbeat import NodeDetector, observe
from qnwis.continuity.notifications import Notification, Told
from qnwis.continuity.takeover import Remains
from qnwis.lab.layout import claimed_block
from workers import wiring
from workflows.names import SEARCH_ATTRIBUTES, vantage_queue

from .conftest import CACHE, Stage
from .world import World

VERSION = "1.32.1"
STARTS = 5
MAIN = "io.temporal.testserver.TestServer"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>qnwis</groupId>
  <artifactId>time-skipping-server</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>io.temporal</groupId>
      <artifactId>temporal-test-server</artifactId>
      <version>{VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""
JAVA = "java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx256m"
WRAPPER = f"""#!/bin/sh
here=$(dirname "$0")
exec {JAVA} -XX:SharedArchiveFile="$here/classes.jsa" -cp "$here/lib/*" {MAIN} "$@"
"""
ARCHIVED_WITHIN_S = 60.0
LONGEST_PART_S = 1200.0
MADE_UP_TIMEOUT = timedelta(days=3650)
"""What this server tells a workflow that was started without timeouts."""
BEAT = timedelta(seconds=30)
"""Between two looks of the patient watch."""


async def obtain_server(cache: Path) -> Path:
    """The server as an executable, fetched with Maven once; skips the test where that is not possible."""
    folder = cache / f"temporal-test-server-{VERSION}-archived"
    program = folder / "temporal-test-server"
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if program.exists() and "java" not in missing:
        await _archive(folder)
        return program
    if missing:
        pytest.skip(
            f"Temporal's time-skipping server needs {' and '.join(missing)} (requirements/debian.txt)"
        )
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as place:
        fetched = Path(place) / "server"
        fetched.mkdir()
        (fetched / "pom.xml").write_text(POM)
        await _fetch(fetched)
        (fetched / program.name).write_text(WRAPPER)
        (fetched / program.name).chmod(0o755)
        if not folder.exists():
            fetched.rename(folder)
    await _archive(folder)
    return program


async def _archive(folder: Path) -> None:
    """Keep the server's classes as Java has them in memory: without, it takes twice as long to start, and on
    a busy machine longer than the SDK waits. Where that fails it starts as before."""
    archive = folder / "classes.jsa"
    if archive.exists():
        return
    made = folder / f"{os.getpid()}.jsa"
    with claimed_block(0) as block:
        command = (
            f'exec {JAVA} -XX:ArchiveClassesAtExit="{made}" -cp "{folder}/lib/*" {MAIN} {block.temporal_port}'
        )
        server = await asyncio.create_subprocess_shell(
            command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ARCHIVED_WITHIN_S):
                while not await _listens(block.temporal_port):
                    await asyncio.sleep(0.1)
                server.terminate()
                await server.wait()
        if server.returncode is None:
            server.kill()
            await server.wait()
    if made.exists():
        made.rename(archive)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _fetch(folder: Path) -> None:
    maven = await asyncio.create_subprocess_exec(
        "mvn", "-q", "-B", COPY, "-DincludeScope=runtime", "-DoutputDirectory=lib",
        cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await maven.communicate()
    if maven.returncode != 0:
        errors = [line for line in output.decode().splitlines() if "ERROR" in line]
        pytest.skip(f"Maven could not fetch Temporal's time-skipping server: {errors[:1]}")


class PatientWatch:
    """The watch in the server's time: it looks once, and while nothing has changed it is retried later.

    Between two attempts no activity runs, so time may pass; a retry adds nothing to the guardian's history.
    A node that does not answer has missed as many beats as make it failed.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    @activity.defn
    async def watch(self, request: WatchRequest) -> WatchReport:
        cluster = self._world.cluster
        before, votes = request.votes or {}, {}
        for node in cluster.nodes:
            probe = await self._world.probe(node, LIVE, timeout_s=cluster.heartbeat.timeout_sec)
            detector = before[node.node_id].detector if node.node_id in before else NodeDetector()
            for _ in range(cluster.heartbeat.failure_threshold):
                detector = observe(detector, probe.ok, cluster.heartbeat)
            votes[node.node_id] = NodeVote(detector=detector)
        told = {node_id: vote.detector.status for node_id, vote in before.items()}
        if told == {node_id: vote.detector.status for node_id, vote in votes.items()}:
            raise nothing_has_changed()
        return WatchReport(vantage=request.vantage, votes=votes)


class OwnRuns:
    """The cluster's past runs where nobody but the guardian starts any: it hears of those from its children.

    The real ones are listed, which this server cannot do.
    """

    def __init__(self, client: Client, prefix: str, outcome: str) -> None:
        pass

    @activity.defn(name=LOOK_BACK)
    async def look_back(self, asked: LookBackRequest) -> Remains | None:
        return None

    @activity.defn
    async def watch_runs(self, asked: WatchRunsRequest) -> RunsReport:
        if asked.seen is None:
            return RunsReport(seen="none")
        raise nothing_has_changed()


def nothing_has_changed() -> ApplicationError:
    return ApplicationError(
        "nothing has changed", next_retry_delay=BEAT, category=ApplicationErrorCategory.BENIGN
    )


class Notes:
    """A notifier that keeps what it was given."""

    def __init__(self) -> None:
        self.titles: list[str] = []

    async def send(self, notification: Notification) -> Told:
        self.titles.append(notification.title)
        return Told()


@dataclass
class Hours:
    """A stage whose time passes as fast as its work allows."""

    stage: Stage
    notes: Notes
    _environment: WorkflowEnvironment

    async def now(self) -> datetime:
        return await self._environment.get_current_time()

    async def pass_by(self, seconds: float) -> None:
        """Let that much of the server's time go by; work that comes due meanwhile is done.

        In parts, because the SDK waits 30 s for an answer, and there may be more work than that.
        """
        while seconds > 0:
            part = min(seconds, LONGEST_PART_S)
            await self._environment.sleep(part)
            seconds -= part


class _NoMadeUpTimeout(WorkflowOutboundInterceptor):
    """Workflows see no timeout where the starter set none."""

    def info(self) -> workflow.Info:
        info = super().info()
        assert info.run_timeout == info.execution_timeout == MADE_UP_TIMEOUT, info
        return dataclasses.replace(info, run_timeout=None, execution_timeout=None)


class _Inbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_NoMadeUpTimeout(outbound))


class _LikeARealServer(ClientInterceptor, WorkerInterceptor):
    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[_Inbound]:
        return _Inbound


async def _started(program: Path, port: int) -> WorkflowEnvironment:
    """The SDK gives the server 5 s to start, which on a busy machine a Java program needs for itself."""
    for tries_left in reversed(range(STARTS)):
        try:
            return await WorkflowEnvironment.start_time_skipping(
                port=port,
                test_server_existing_path=str(program),
                data_converter=pydantic_data_converter,
                interceptors=[_LikeARealServer()],
            )
        except RuntimeError as error:
            if not tries_left or "did not start within" not in str(error):
                raise
    raise AssertionError


@asynccontextmanager
async def hours(home: Path, **policy: object) -> AsyncIterator[Hours]:
    """A stage on a time-skipping server of its own, because all that runs on one shares its clock."""
    program = await obtain_server(CACHE)
    async with AsyncExitStack() as running:
        block = running.enter_context(claimed_block(0))
        environment = await running.enter_async_context(await _started(program, block.temporal_port))
        client = environment.client
        keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(
                namespace=client.namespace,
                search_attributes={key.name: keyword for key in SEARCH_ATTRIBUTES},
            )
        )
        notes = Notes()
        stage = Stage.set(client, home, notifier=notes, **policy)
        unwatched = stage.settings.model_copy(update={"vantages": ()})
        running.enter_context(pytest.MonkeyPatch.context()).setattr(wiring, "PastRuns", OwnRuns)
        (runbooks,) = wiring.workers_for(client, unwatched, stage.providers)
        watch = PatientWatch(stage.world).watch
        vantage = Worker(client, task_queue=vantage_queue(stage.settings.vantages[0]), activities=[watch])
        await running.enter_async_context(runbooks)
        await running.enter_async_context(vantage)
        yield Hours(stage, notes, environment)
