"""Following a run: its progress live on a terminal, and its result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from temporalio.client import Client, WorkflowFailureError, WorkflowQueryFailedError
from temporalio.service import RPCError

from qnwis.continuity.executor import Outcome, OutcomeStatus
from qnwis.continuity.run import DRY_RUN_MARK, RunOutcome, RunProgress, RunResult, StepProgress, StepStatus
from qnwis.starting import RunHandle
from workflows.names import failover_id
from workflows.primary_failure import PrimaryFailure

from .output import Exit, out

REFRESH_S = 0.2
STYLES = {
    StepStatus.PENDING: ("·", "dim"),
    StepStatus.RUNNING: ("▶", "bold cyan"),
    StepStatus.DONE: ("✓", "green"),
    StepStatus.FAILED: ("✗", "bold red"),
    StepStatus.SKIPPED: ("–", "dim"),
}


class RunFailed(Exception):
    """The workflow ended without a result; the text is its own reason."""


def run_handle(client: Client, cluster_id: str, *, dry_run: bool = False) -> RunHandle:
    """The cluster's current or last run."""
    return client.get_workflow_handle_for(PrimaryFailure.run, failover_id(cluster_id, dry_run=dry_run))


async def follow(handle: RunHandle, show: Callable[[RunProgress], None] | None = None) -> RunResult:
    """Wait for the run's result, showing its progress meanwhile. Raises RunFailed."""
    result = asyncio.create_task(handle.result())
    while show is not None and not result.done():
        await asyncio.wait({result}, timeout=REFRESH_S)
        progress = await progress_of(handle)
        if progress is not None:
            show(progress)
    try:
        return await result
    except WorkflowFailureError as error:
        raise RunFailed(str(error.cause)) from error


async def progress_of(handle: RunHandle) -> RunProgress | None:
    """Where the run stands, or None while no worker answers."""
    try:
        progress: RunProgress = await handle.query(
            "progress", result_type=RunProgress, rpc_timeout=timedelta(seconds=1)
        )
        return progress
    except (RPCError, WorkflowQueryFailedError):
        return None


async def follow_on_terminal(handle: RunHandle) -> RunResult:
    """Follow with a live table of steps."""
    with Live(Text("waiting for a worker …", "dim"), console=out, refresh_per_second=10) as live:
        result = await follow(handle, lambda progress: live.update(progress_table(progress)))
        live.update(steps_table(result.steps, result.outcomes, dry_run=result.dry_run))
    return result


def progress_table(progress: RunProgress) -> RenderableType:
    return steps_table(progress.steps, progress.outcomes, dry_run=progress.dry_run)


def steps_table(
    steps: tuple[StepProgress, ...], outcomes: tuple[Outcome, ...], *, dry_run: bool
) -> RenderableType:
    """The runbook's steps, with the plan's actions under execution."""
    table = Table("", "step", "expected", "elapsed", "", box=None, pad_edge=False)
    for step in steps:
        mark, style = STYLES[step.status]
        times = _ms(step.expected_ms), _ms(step.elapsed_ms)
        table.add_row(mark, step.title, *times, step.note.replace("`", ""), style=style)
        for remark in step.remarks:
            table.add_row("", "", "", "", remark.replace("`", ""))
        if step.name == "execution":
            for outcome in outcomes:
                good = outcome.status is OutcomeStatus.SUCCEEDED
                mark = "✓" if good else "·" if outcome.status is OutcomeStatus.STARTED else "–"
                row = f"  {mark} {outcome.action_id}", "", _ms(outcome.duration_ms), outcome.detail
                table.add_row("", *row)
    return Group(Text(f"{DRY_RUN_MARK} nothing is changed", "bold yellow"), table) if dry_run else table


def exit_code(result: RunResult) -> Exit:
    """What a command that ran this run ends with."""
    if result.outcome is RunOutcome.REFUSED:
        return Exit.REFUSED
    return Exit.OK if result.verified or result.outcome is RunOutcome.PREVIEWED else Exit.NOT_DONE


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} ms"
