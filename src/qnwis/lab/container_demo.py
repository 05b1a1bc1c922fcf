"""The demonstration in containers: two failovers under a write load, the second without the worker that began
it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import WorkflowHandle

from qnwis.continuity.model import Model
from qnwis.continuity.run import RunResult

from .acks import Row, analyse
from .container_lab import ContainerControl, ContainerLab
from .demo import DemoReport, play
from .demonstration import Follow
from .errors import LabError
from .temporal_server import Say

CARRIED_OUT_WITHIN_S = 60.0
PAUSE_MS = 10.0
"""Of each client after a write: their history is read out of their container again and again."""
EXECUTION = frozenset({"fence", "promote", "repoint", "flip_dns"})
"""Activities by which a plan is carried out."""


class ContainerReport(Model):
    """What the demonstration came to."""

    verified: bool
    """Both runs were, nothing acknowledged is missing, and another worker went on with the second."""
    first: DemoReport
    second: DemoReport
    killed_worker: str
    killed_in: str
    """The activity that it had begun."""
    went_on: tuple[str, ...]
    """The other workers that did something for the second run after that."""
    acked: int
    """Writes, in both failovers."""
    lost: tuple[Row, ...]
    kept: tuple[str, ...]
    """What to type next, where the containers go on."""


@dataclass
class KillsWorker:
    """Follows a run; on the way kills the worker that carries it out."""

    lab: ContainerLab
    follow: Follow
    say: Say
    worker: str = ""
    activity: str = ""
    killed_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    run: WorkflowHandle[Any, RunResult] | None = None

    async def __call__(self, handle: WorkflowHandle[Any, RunResult]) -> RunResult:
        self.worker, self.activity = await _carries_out(handle)
        self.killed_at = datetime.now(UTC)
        await self.lab.kill(self.worker)
        self.say(f"{self.worker} is killed while it does {self.activity}")
        self.run = handle
        return await self.follow(handle)

    async def went_on(self) -> set[str]:
        """The other workers that did something for the run after that."""
        assert self.run is not None
        return await workers_of(self.run, since=self.killed_at) - {self.worker}


async def run_container_demo(
    file: Path,
    project: str,
    *,
    clients: int,
    keep: bool,
    say: Say,
    follow: Follow,
    show: Callable[[DemoReport], None] | None = None,
) -> ContainerReport:
    """The whole demonstration on containers of its own, which are taken down afterwards unless `keep` and all
    went well. `show` is given the report of the first failover before the second begins, and that of the
    second. Raises LabError."""
    lab = await ContainerLab.create(file, project, say)
    kept = False
    try:
        control = await ContainerControl.reached(lab)
        say("the guardian sees every node healthy")
        report = await _play_twice(
            control, clients=clients, say=say, follow=follow, show=show or (lambda _: None)
        )
        if keep:
            kept = True
            report = report.model_copy(update={"kept": _next(lab)})
        return report
    finally:
        if not kept:
            say(f"taking {project} down")
            await lab.stop()


async def _play_twice(
    control: ContainerControl, *, clients: int, say: Say, follow: Follow, show: Callable[[DemoReport], None]
) -> ContainerReport:
    lab = control.lab
    again = partial(play, control, clients=clients, say=say, pause_ms=PAUSE_MS)
    first = await again(follow=follow)
    show(first)
    if not first.verified:
        raise LabError("the first failover was not verified; the second one is not begun")
    written = lab.ack_log()
    say(await control.bring_back(first.killed_node))
    say("waiting for the end of the guardian's cooldown")
    await control.cooldown_over()

    kills = KillsWorker(lab, follow, say)
    second = await again(follow=kills, primary=first.result.new_primary)
    show(second)
    rows = await lab.rows(second.result.new_primary) if second.result.new_primary else set()
    before = analyse(written, rows)
    lost = (*before.lost, *second.writes.lost)
    went_on = await kills.went_on()
    return ContainerReport(
        verified=second.verified and not lost and bool(went_on),
        first=first,
        second=second,
        killed_worker=kills.worker,
        killed_in=kills.activity,
        went_on=tuple(sorted(went_on)),
        acked=before.acked + second.writes.acked,
        lost=lost,
        kept=(),
    )


async def _carries_out(handle: WorkflowHandle[Any, RunResult]) -> tuple[str, str]:
    """The worker that does something to the world for this run now, and what. Raises LabError when the run
    ends first."""
    async with asyncio.timeout(CARRIED_OUT_WITHIN_S):
        while True:
            description = await handle.describe()
            for pending in description.raw_description.pending_activities:
                begun = pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
                if begun and pending.activity_type.name in EXECUTION:
                    return _host(pending.last_worker_identity), pending.activity_type.name
            if description.close_time is not None:
                raise LabError("the run was over before its worker could be killed")
            await asyncio.sleep(0.01)


async def workers_of(handle: WorkflowHandle[Any, RunResult], *, since: datetime) -> set[str]:
    """The workers that did something for a run since then."""
    found = set()
    async for event in handle.fetch_history_events():
        identity = (
            event.activity_task_started_event_attributes.identity
            or event.workflow_task_completed_event_attributes.identity
        )
        if identity and event.event_time.ToDatetime(UTC) > since:
            found.add(_host(identity))
    return found


def _host(identity: str) -> str:
    """Of a worker as Temporal knows it, `pid@host`; the containers of workers have their service's name."""
    return identity.rpartition("@")[2]


def _next(lab: ContainerLab) -> tuple[str, ...]:
    settings = " ".join(f"{name}={value}" for name, value in lab.compose.environment.items())
    compose = f"{' '.join(lab.compose.command)} -p {lab.compose.project}"
    return (
        f"export {settings}",
        f"{compose} run --rm cli status --cluster /config/cluster.yaml",
        f"{compose} --profile tools down --volumes",
    )
