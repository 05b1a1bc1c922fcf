"""A worker that is told to stop ends, even where Temporal takes no report of what it was at, or a store that
it asked is silent."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

HANGS = """
import asyncio, contextlib, logging, os, sys, threading
from pathlib import Path
from qnwis.providers.threads import Threads
from workers import run
from workers.settings import WorkerSettings

class Worker:
    task_queue = "runbooks"
    async def __aenter__(self):
        if "store" in sys.argv:
            self.asks = asyncio.create_task(Threads("store").run(threading.Event().wait))
            await asyncio.sleep(0)
        os.write(1, b"it polls\\n")
    async def __aexit__(self, *error):
        if "store" not in sys.argv:
            await asyncio.Event().wait()

async def connect(*_, **__): ...

run.connect, run.maker_of, run.ENDS_WITHIN_S = connect, lambda _: lambda *_: [Worker()], 0.05
logging.basicConfig()
asyncio.run(run.run_worker(WorkerSettings(config_dir=Path("."), vantages_only=True)))
"""


@pytest.mark.parametrize("silent", ["temporal", "store"])
def test_a_worker_that_cannot_report_or_asked_in_vain_ends_all_the_same_and_says_so(silent: str) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", HANGS, silent],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stdout is not None and worker.stdout.readline() == "it polls\n"
        worker.send_signal(signal.SIGTERM)
        _, said = worker.communicate(timeout=60)
    finally:
        worker.kill()
    assert worker.returncode == 1 and "it ends without" in said, said
