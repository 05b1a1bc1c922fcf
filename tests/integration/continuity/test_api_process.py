"""`api serve` as a process of its own, over a real socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest
from temporalio.client import Client
from typer.testing import CliRunner

from qnwis.cli.qnwis_continuity import app
from qnwis.lab.temporal_server import TemporalServer
from tests.integration.continuity.world import three_nodes, write_registry
from tests.unit.api.scene import BASE


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _issued(config: Path) -> str:
    """A service token, as whoever runs the API issues it."""
    typed = ["tokens", "issue", "--name", "robot", "--role", "service", "--config-dir", str(config)]
    issued = CliRunner().invoke(app, typed)
    assert issued.exit_code == 0, issued.output
    return next(word for word in issued.output.split() if word.startswith("qnwis_"))


@pytest.mark.parametrize("ends_by", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_serves_over_a_socket_until_it_is_told_to_stop(
    server: TemporalServer, client: Client, tmp_path: Path, ends_by: signal.Signals
) -> None:
    config, state, port = (
        write_registry(tmp_path / "config", three_nodes("c1")),
        tmp_path / "state",
        _free_port(),
    )
    token = _issued(config)
    made = CliRunner().invoke(app, ["api", "key", "--state-dir", str(state)])
    assert made.exit_code == 0, made.output
    typed = ["api", "serve", "--config-dir", str(config), "--state-dir", str(state), "--port", str(port)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "qnwis.cli.qnwis_continuity", *typed, "--address", server.address),
        env={**os.environ},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as api:
            async with asyncio.timeout(60):
                while not await _lives(api, process):
                    await asyncio.sleep(0.1)
            nobody = await api.get(f"{BASE}/clusters")
            assert nobody.status_code == 401 and nobody.headers["www-authenticate"] == "Bearer"
            listed = await api.get(f"{BASE}/clusters", headers={"Authorization": f"Bearer {token}"})
            assert listed.json()["cluster_ids"] == ["c1"]
            runs = await api.get(f"{BASE}/runs", headers={"Authorization": f"Bearer {token}"})
            assert runs.status_code == 200, "it asks the Temporal server"
        process.send_signal(ends_by)
        async with asyncio.timeout(60):
            _, said = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert token.removeprefix("qnwis_") not in said.decode()
    finally:
        if process.returncode is None:
            process.kill()


async def _lives(api: httpx.AsyncClient, process: asyncio.subprocess.Process) -> bool:
    assert process.returncode is None, "it ended before it served"
    try:
        return (await api.get("/health/live")).status_code == 200
    except httpx.TransportError:
        return False
