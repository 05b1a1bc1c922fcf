"""The replay of committed histories: runs recorded earlier replay on the workflows of today."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from workers.wiring import WORKFLOWS

from .found import Found, Measured, found, repository
from .sandbox import sandbox

NAME = "histories"
HOLDS = "every recorded history of tests/histories replays on the workflows of today"
OF_EACH = ("guardian_", "primary_failure_", "planned_maintenance_")
"""There is at least one history of each."""


def check(folder: Path | None = None, workflows: Sequence[type] = WORKFLOWS) -> Found:
    folder = folder or repository() / "tests" / "histories"
    paths = sorted(folder.glob("*.json"))
    misses = [
        f"{folder} has no history {kind}*.json, expected at least one"
        for kind in OF_EACH
        if not any(path.name.startswith(kind) for path in paths)
    ]
    misses += asyncio.run(_replayed(paths, workflows))
    return found(NAME, HOLDS, misses, [Measured(what="histories", value=len(paths))])


async def _replayed(paths: Sequence[Path], workflows: Sequence[type]) -> list[str]:
    misses = []
    for path in paths:
        try:
            await replay(path, workflows)
        except Exception as error:
            # Whatever stops a replay would stop a run that is in progress when this version is deployed.
            first = str(error).splitlines()[0] if str(error) else ""
            misses.append(f"{path.name} does not replay: {type(error).__name__}: {first}")
    return misses


async def replay(path: Path, workflows: Sequence[type] = WORKFLOWS) -> None:
    """Raises what a worker would: NondeterminismError where a workflow takes another way than then."""
    replayer = Replayer(
        workflows=workflows, data_converter=pydantic_data_converter, workflow_runner=sandbox()
    )
    await replayer.replay_workflow(recorded(path))


def recorded(path: Path) -> WorkflowHistory:
    events = json.loads(path.read_text())
    started = events["events"][0]["workflowExecutionStartedEventAttributes"]
    return WorkflowHistory.from_json(started["workflowId"], events)
