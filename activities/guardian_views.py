"""What the guardians of clusters hold, asked of many of them again and again.

An answer takes a task of the guardian, so each is asked only when its history has grown since the last one:
nothing else changes what it holds. One whose task is under way, or fails, is asked all the same, so that a
guardian that cannot go on is not taken for one that has nothing to say.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio.client import (
    Client,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowHandle,
)

from qnwis.continuity.region_sight import HeldByGuardian

ANSWER_WITHIN = timedelta(seconds=2)
AT_ONCE = 16
"""Guardians that are looked at at the same time."""

Mark = tuple[str | None, int]
"""Run and length of a history."""


class GuardianEnded(Exception):
    """It watches nothing any more, and what it held last says nothing of now."""


class GuardianViews:
    """Belongs to one event loop."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._kept: dict[str, tuple[Mark, HeldByGuardian]] = {}

    async def of(self, workflow_id: str) -> HeldByGuardian:
        """Raises RPCError or WorkflowQueryFailedError where the guardian does not answer, and GuardianEnded
        where it has ended: a closed workflow would answer as it was."""
        guardian = self._client.get_workflow_handle(workflow_id)
        async with self._slots:
            described = await guardian.describe(rpc_timeout=ANSWER_WITHIN)
            if described.status is not WorkflowExecutionStatus.RUNNING:
                self._kept.pop(workflow_id, None)
                how = "unknown" if described.status is None else described.status.name.lower()
                raise GuardianEnded(f"{workflow_id} has ended ({how})")
            # Looked at before it is asked: an event in between is one more reason to ask the next time.
            mark = described.run_id, described.history_length
            kept = self._kept.get(workflow_id)
            if kept is None or kept[0] != mark or _has_a_task(described):
                kept = mark, await _ask(guardian)
                self._kept[workflow_id] = kept
        return kept[1]


def _has_a_task(described: WorkflowExecutionDescription) -> bool:
    return described.raw_description.HasField("pending_workflow_task")


async def _ask(guardian: WorkflowHandle[object, object]) -> HeldByGuardian:
    view: HeldByGuardian = await guardian.query("view", result_type=HeldByGuardian, rpc_timeout=ANSWER_WITHIN)
    return view
