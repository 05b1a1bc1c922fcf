"""A worker process like any other that stops at one point of a run and waits there to be killed, or released.

    python -m tests.integration.continuity.held_worker SETTINGS FOLDER

In FOLDER it reads `hold.json` (a point; without it nothing is held), writes `reached` when it stands there,
goes on when there is `go_on`. As long as nothing was ever held, it adds what it passes to `passed.jsonl`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from temporalio import activity
from temporalio.client import Client
from temporalio.worker import ExecuteActivityInput

from qnwis.temporal import connect
from workers.settings import WorkerSettings
from workers.wiring import providers_for, workers_for
from workflows.primary_failure import PrimaryFailure

from .matrix import Hold, Point, When


class HoldByFiles(Hold):
    """What another process says is held, and is told what was passed."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    async def pass_by(self, when: When, asked: ExecuteActivityInput) -> None:
        if activity.info().workflow_type != PrimaryFailure.__name__:
            return
        point = self.point_of(when, asked)
        if point is None or (self._folder / "reached").exists():
            return
        hold = self._folder / "hold.json"
        if not hold.exists():
            passed = Point(**{**asdict(point), "step": await self.step()})
            with (self._folder / "passed.jsonl").open("a") as file:
                file.write(json.dumps(asdict(passed)) + "\n")
        elif point.is_at(Point(**json.loads(hold.read_text()))):
            hold.rename(self._folder / "reached")
            while not (self._folder / "go_on").exists():
                await asyncio.sleep(0.01)


async def serve(settings: WorkerSettings, folder: Path) -> None:
    hold = HoldByFiles(folder)
    plain = await connect(settings.address)
    hold.client = Client(**{**plain.config(), "interceptors": [hold]})
    async with contextlib.AsyncExitStack() as running:
        for worker in workers_for(hold.client, settings, providers_for(settings)):
            await running.enter_async_context(worker)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(WorkerSettings.model_validate_json(sys.argv[1]), Path(sys.argv[2])))
