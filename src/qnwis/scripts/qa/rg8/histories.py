"""The replay of committed histories: runs recorded earlier replay on the workflows of today."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from workers.wiring import WORKFLOWS

from .found import Found, Measured, found, repository
from .sandbox import sandbox

NAME = "histories"
HOLDS = "there is a recorded history of every workflow in tests/histories, and each replays on those of today"


def check(folder: Path | None = None, workflows: Sequence[type] = WORKFLOWS) -> Found:
    folder = folder or repository() / "tests" / "histories"
    paths = sorted(folder.glob("*.json"))
    known = {_started(path)["workflowType"]["name"] for path in paths}
    misses = [
        f"{folder} has no history of {workflow.__name__}, expected at least one"
        for workflow in WORKFLOWS
        if workflow.__name__ not in known
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
    return WorkflowHistory.from_json(_started(path)["workflowId"], path.read_text())


def _started(path: Path) -> dict[str, Any]:
    started: dict[str, Any] = json.loads(path.read_text())["events"][0][
        "workflowExecutionStartedEventAttributes"
    ]
    return started
