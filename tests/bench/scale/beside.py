"""What the same questions cost others, asked of the same agents' server."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from pydantic import ValidationError

from qnwis.lab.errors import LabError
from qnwis.lab.processes import Started, import_path, last_lines
from qnwis.lab.temporal_server import PROCESS_NAME

from .bare import MODULE, Asked
from .bed import WORKER, Bed, Stopwatch
from .counting import Counts
from .figures import Beside
from .names import BARE, BLACKBOX
from .world import HEARTBEAT

PROGRAM = "prometheus-blackbox-exporter"
PORT = 19115
UP_WITHIN_S, LOOK_EVERY_S = 20.0, 0.1


def missing() -> str | None:
    """Why the exporter cannot be measured."""
    if shutil.which(PROGRAM) is not None:
        return None
    return f"{PROGRAM} is not on PATH; run make install-peers (Debian), or leave it out (--no-blackbox)"


def version() -> str:
    said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True)
    return (said.stdout or said.stderr).splitlines()[0]


async def compared(bed: Bed, clusters: int, seconds: float, *, blackbox: bool) -> tuple[Beside, ...]:
    """Stops what held the clusters, and has others ask, one after the other."""
    await asyncio.to_thread(bed.processes.stop, [WORKER, PROCESS_NAME], grace_s=10.0)
    found = [await _bare(bed, clusters, seconds)]
    if blackbox:
        found.append(await _blackbox(bed, clusters, seconds))
    return tuple(found)


async def _bare(bed: Bed, clusters: int, seconds: float) -> Beside:
    await bed.control.mark()
    asked = await _ask(clusters, seconds)
    return _told(BARE, asked, asked.cpu_s, await bed.control.counts())


async def _blackbox(bed: Bed, clusters: int, seconds: float) -> Beside:
    exporter = await _start(bed)
    await bed.control.mark()
    spent = Stopwatch(exporter.pid)
    asked = await _ask(clusters, seconds, "--through", f"{bed.block.control}:{PORT}")
    cpu_s = spent.cpu_s()
    return _told(BLACKBOX, asked, cpu_s, await bed.control.counts())


def _told(name: str, asked: Asked, cpu_s: float, counts: Counts) -> Beside:
    return Beside(name=name, seconds=asked.seconds, cpu_s=cpu_s, counts=counts, failed=asked.failed)


async def _ask(clusters: int, seconds: float, *through: str) -> Asked:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.scale.bare"),
        *("--clusters", str(clusters), "--seconds", str(seconds), *through),
        env={**os.environ, **import_path()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, error = await process.communicate()
    try:
        return Asked.model_validate_json(said)
    except ValidationError:
        raise LabError(f"tests.bench.scale.bare: {error.decode(errors='replace')[-2000:]}") from None


async def _start(bed: Bed) -> Started:
    """The exporter, with one module that does what a vantage does: one GET, answered by 200."""
    path = bed.root / "blackbox.yml"
    module = {
        "prober": "http",
        "timeout": f"{HEARTBEAT.timeout_sec:g}s",
        "http": {"preferred_ip_protocol": "ip4"},
    }
    path.write_text(yaml.safe_dump({"modules": {MODULE: module}}))
    at = f"{bed.block.control}:{PORT}"
    started = bed.processes.start(
        "blackbox",
        [PROGRAM, f"--config.file={path}", f"--web.listen-address={at}", "--log.level=error"],
        cwd=Path(bed.root),
    )
    for _ in range(int(UP_WITHIN_S / LOOK_EVERY_S)):
        try:
            _, writer = await asyncio.open_connection(bed.block.control, PORT)
        except OSError:
            await asyncio.sleep(LOOK_EVERY_S)
            continue
        writer.close()
        return started
    raise LabError(f"{PROGRAM} does not listen at {at}; its log ends:\n{last_lines(started.log)}")
