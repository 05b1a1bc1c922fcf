"""What real processes log, and the traces that they send to a collector, of a run that a request starts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from temporalio.client import Client
from typer.testing import CliRunner

from qnwis.cli.qnwis_continuity import app
from qnwis.continuity.topology import Cluster
from qnwis.lab.temporal_server import TemporalServer
from tests.integration.continuity.world import three_nodes, write_registry
from tests.looking import WITHIN_S, Looks
from tests.unit.api.scene import BASE, stamped
from tests.unit.metrics.addresses import free_address
from workflows.names import failover_id

pytest.importorskip(
    "opentelemetry.exporter.otlp.proto.http",
    reason="OpenTelemetry is not installed (the extra `otel`)",
)

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "traces-and-logs.md"
CLUSTER, PERSON, REASON = "traced", "ann-of-the-night-shift", "a reason that names bob"


@dataclass
class Span:
    name: str
    trace: bytes
    id: bytes
    parent: bytes
    service: str
    attributes: Mapping[str, str]


@dataclass
class Collector:
    """A receiver of OTLP over HTTP."""

    address: str
    raw: list[bytes] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.raw.append(body)
        for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _texts(sent.resource.attributes)["service.name"]
            for scope in sent.scope_spans:
                self.spans += [
                    Span(s.name, s.trace_id, s.span_id, s.parent_span_id, service, _texts(s.attributes))
                    for s in scope.spans
                ]
        return web.Response()

    def above(self, span: Span) -> Iterator[Span]:
        """The span, its parent, and so on."""
        of = {one.id: one for one in self.spans}
        at: Span | None = span
        while at is not None:
            yield at
            at = of.get(at.parent)


def _texts(attributes: Any) -> dict[str, str]:
    return {one.key: one.value.string_value for one in attributes}


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    made = Collector(free_address())
    taking = web.Application()
    taking.router.add_post("/v1/traces", made.take)
    runner = web.AppRunner(taking)
    await runner.setup()
    host, port = made.address.split(":")
    await web.TCPSite(runner, host, int(port)).start()
    try:
        yield made
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running(
    log: Path, *command: str, env: Mapping[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command of the project as a process of its own, asked to stop at the end. `log`: of its stderr."""
    with log.open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "qnwis.cli.qnwis_continuity", *command),
            env={**os.environ, **env},
            stderr=said,
        )
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(WITHIN_S):
                assert await process.wait() == 0, log.read_text()
        finally:
            if process.returncode is None:
                process.kill()


async def test_a_request_its_run_and_its_activities_are_one_trace_and_logs_name_the_run(
    server: TemporalServer, client: Client, tmp_path: Path
) -> None:
    config = write_registry(tmp_path / "config", nobody_answers())
    issue = ["tokens", "issue", "--name", PERSON, "--role", "service", "--config-dir", str(config)]
    token = next(w for w in CliRunner().invoke(app, issue).output.split() if w.startswith("qnwis_"))
    folders = ("--config-dir", str(config), "--state-dir", str(tmp_path / "state"))
    assert CliRunner().invoke(app, ["api", "key", *folders[2:]]).exit_code == 0
    at = free_address()
    async with collecting() as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}"}
        serve = ("api", "serve", *folders, "--port", at.split(":")[1], "--address", server.address)
        work = ("worker", *folders, "--vantage", "here", "--address", server.address)
        logs = tmp_path / "api.log", tmp_path / "worker.log"
        async with running(logs[0], *serve, env=env) as api, running(logs[1], *work, env=env):
            await _refused(at, token, api)
            run = client.get_workflow_handle(failover_id(CLUSTER))
            await run.query("progress")  # of somebody who is not traced
        run_id = (await run.describe()).run_id

        (record,) = [s for s in collector.spans if s.name == "RunActivity:record"]
        assert [(one.service, one.name) for one in collector.above(record)] == [
            ("qnwis-worker", "RunActivity:record"),
            ("qnwis-worker", "StartActivity:record"),
            ("qnwis-worker", "RunWorkflow:PlannedMaintenance"),
            ("qnwis-api", "StartWorkflow:PlannedMaintenance"),
            ("qnwis-api", f"POST {BASE}/clusters/{{cluster_id}}/maintenance"),
        ]
        (trace,) = {one.trace for one in collector.above(record)}
        here = {"qnwis.run_id": run_id, "qnwis.cluster_id": CLUSTER, "qnwis.step": "audit"}
        assert here.items() <= record.attributes.items()
        assert not [one for one in collector.spans if one.name.startswith("HandleQuery") and not one.parent]
        sent = {name for one in collector.spans for name in one.attributes}
        assert {name for name in sent if f"`{name}`" not in PAGE.read_text()} == set()
        for never in (token, token.split("_", 2)[2], PERSON, "bob", REASON):
            assert not [body for body in collector.raw if never.encode() in body], never

    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    of_run = [line for line in lines if line.get("run_id") == run_id]
    assert of_run and {line["cluster_id"] for line in of_run} == {CLUSTER}
    assert {line["trace_id"] for line in of_run} == {trace.hex()}
    assert "preparation" in {line.get("step") for line in of_run}
    assert all({"at", "level", "logger", "message"} <= line.keys() for line in lines)


def nobody_answers() -> Cluster:
    """A cluster whose nodes are nowhere."""
    made = three_nodes(CLUSTER)
    nodes = (n.model_copy(update={"hostname": f"127.99.0.{i}"}) for i, n in enumerate(made.nodes, start=1))
    return made.model_copy(update={"nodes": tuple(nodes)})


async def _refused(at: str, token: str, api: asyncio.subprocess.Process) -> None:
    """Ask for maintenance, and wait for the end of its run: there is no node to move to."""
    async with httpx.AsyncClient(base_url=f"http://{at}", timeout=WITHIN_S) as asking:
        looks = Looks()
        while True:
            assert api.returncode is None, "it ended before it served"
            try:
                await asking.get("/health/live")
                break
            except httpx.TransportError:
                await looks.again()
        headers = {"Authorization": f"Bearer {token}", "Prefer": "wait=60", **stamped()}
        path = f"{BASE}/clusters/{CLUSTER}/maintenance"
        answer = await asking.post(path, params={"by": PERSON}, json={"reason": REASON}, headers=headers)
        assert answer.json()["rule"] == "primary_not_serving", answer.text
