"""What real workers serve while a run waits for people, and after it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path

from qnwis.lab.temporal_server import TemporalServer
from qnwis.metrics.exposition import Exposition
from tests.looking import WITHIN_S, Looks
from tests.unit.metrics.addresses import free_address
from tests.unit.metrics.series import value as exposed
from workers.wiring import workers_for

from .conftest import Setting
from .people import Crowd, asked
from .world import three_nodes, write_registry


async def test_workers_say_that_a_run_waits_for_approval_and_then_how_it_ended(stage: Setting) -> None:
    on = await stage(approvals=True, serve=False)
    crowd, registry = Crowd(on), Exposition()

    async def value(name: str, **labels: str) -> float | None:
        found = {"cluster": on.cluster_id, **labels}
        return await asyncio.to_thread(exposed, registry, name, found)

    async def until(expected: float, name: str, **labels: str) -> None:
        """A scrape serves what was read of the runs before it."""
        async with asyncio.timeout(WITHIN_S):
            looks = Looks()
            while await value(name, **labels) != expected:
                await looks.again()

    executions, waiting = "qnwis_failover_executions_total", "qnwis_continuity_approvals_waiting"
    async with AsyncExitStack() as running:
        for worker in workers_for(on.client, on.settings, on.providers, metrics=registry):
            await running.enter_async_context(worker)
        assert await value(waiting) == 0  # there is no run
        on.world.kill("node-1")
        run = await crowd.start("bob")
        await asked(run)
        assert await value(waiting) == 1
        await until(0, executions, status="completed")
        await crowd.approve(run, "carl")
        assert (await run.result()).verified
        assert await value(waiting) == 0
        await until(1, executions, status="completed")
        assert await value("qnwis_failover_success_total") == 1
        assert await value("qnwis_failover_execution_ms_count", status="completed") == 1


def scraped(address: str) -> str:
    """Nothing while nobody listens there."""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            text: bytes = answer.read()
    except OSError:
        return ""
    return text.decode()


async def test_a_worker_process_serves_its_metrics_and_the_sdks_beside_them_until_it_ends(
    server: TemporalServer, tmp_path: Path
) -> None:
    own, sdk = free_address(), free_address()
    home = write_registry(tmp_path, three_nodes("c"))
    command = [
        "worker",
        "--config-dir",
        str(home),
        "--state-dir",
        str(tmp_path / "state"),
        "--vantage",
        "here",
    ]
    where = ["--address", server.address, "--metrics", own, "--sdk-metrics", sdk]
    process = subprocess.Popen([sys.executable, "-m", "qnwis.cli.qnwis_continuity", *command, *where])
    try:
        async with asyncio.timeout(90):
            while "qnwis_continuity_rto_objective_ms" not in await asyncio.to_thread(scraped, own):
                assert process.poll() is None, "the worker has ended"
                await asyncio.sleep(0.2)
            while "temporal_" not in await asyncio.to_thread(scraped, sdk):
                await asyncio.sleep(0.2)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert scraped(own) == ""
