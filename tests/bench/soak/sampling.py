"""What is sampled after each cycle, when the clients have stopped and every node streams."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from temporalio.client import WorkflowHandle

from qnwis.lab.clearing import NAMESERVER
from qnwis.lab.cluster import Lab
from qnwis.lab.control_plane import WORKER, ControlPlane
from qnwis.lab.procfs import living_inside
from qnwis.lab.shape import VANTAGES
from qnwis.lab.temporal_server import PROCESS_NAME as TEMPORAL

from .asking import API
from .levels import Measure, Reading
from .rows import table_kib
from .sizes import LOG_FILE, TIMELINE_FILE, descriptors, folder_kib, memory_kib

SETTLED_S = 1.0
"""What the end of a run set going is over."""
Run = WorkflowHandle[Any, Any]


@dataclass
class Sampler:
    """Of one lab. Keeps how long the guardian's history was, to tell by how much it grew."""

    control: ControlPlane
    _guardian: tuple[str, int, int] | None = field(default=None)
    """Execution, events and bytes at the sample before."""

    async def sample(self, failover: Run, switchover: Run) -> tuple[Reading, ...]:
        """`failover`, `switchover`: the cycle's runs. Raises LabError."""
        await asyncio.sleep(SETTLED_S)
        lab = self.control.lab
        written = await table_kib(lab, lab.primary.node_id)
        return (
            *await self._histories(failover, switchover),
            *await asyncio.to_thread(lambda: [*_processes(lab), *_folders(lab, written)]),
        )

    async def _histories(self, failover: Run, switchover: Run) -> list[Reading]:
        found = []
        for name, handle in (("failover", failover), ("switchover", switchover)):
            _, events, size = await _length(handle)
            found += [
                Reading(measure=Measure.RUN_EVENTS, of=name, value=events),
                Reading(measure=Measure.RUN_BYTES, of=name, value=size / 1024),
            ]
        before, now = self._guardian, await _length(self.control.guardian)
        self._guardian = now
        found.append(Reading(measure=Measure.GUARDIAN_WHOLE, of="guardian", value=now[2] / 1024))
        if before is not None and before[0] == now[0]:  # else it went on as a new execution
            events, size = now[1] - before[1], now[2] - before[2]
            found += [
                Reading(measure=Measure.GUARDIAN_EVENTS, of="guardian", value=events),
                Reading(measure=Measure.GUARDIAN_BYTES, of="guardian", value=size / 1024),
            ]
        return found


async def _length(handle: Run) -> tuple[str, int, int]:
    """Execution, events and bytes of a history."""
    described = await handle.describe()
    info = described.raw_description.workflow_execution_info
    return described.run_id, info.history_length, info.history_size_bytes


def _processes(lab: Lab) -> Iterator[Reading]:
    nodes = [node.node_id for node in lab.cluster.nodes]
    for name in (TEMPORAL, WORKER, *VANTAGES[1:], API, NAMESERVER, *(f"agent-{n}" for n in nodes)):
        started = lab.processes.find(name)
        assert started is not None, f"{name} is started by the lab"
        yield Reading(measure=Measure.MEMORY, of=name, value=memory_kib(started.pid))
        yield Reading(measure=Measure.DESCRIPTORS, of=name, value=descriptors(started.pid))
    for node_id in nodes:
        living = len(living_inside(lab.machine(node_id).home))
        yield Reading(measure=Measure.PROCESSES, of=node_id, value=living)


def _folders(lab: Lab, written_kib: float) -> Iterator[Reading]:
    for node in lab.data_nodes:
        machine = lab.machine(node.node_id)
        log = machine.data_dir / "pg_wal"
        log_kib = folder_kib(log, LOG_FILE.fullmatch)
        whole_kib = folder_kib(machine.data_dir)
        yield Reading(measure=Measure.LOG_FILES, of=node.node_id, value=log_kib)
        yield Reading(
            measure=Measure.DATABASE, of=node.node_id, value=whole_kib - folder_kib(log) - written_kib
        )
        timelines_kib = folder_kib(log, TIMELINE_FILE.fullmatch)
        yield Reading(measure=Measure.TIMELINES, of=node.node_id, value=timelines_kib)
        yield Reading(measure=Measure.RECORDS, of=node.node_id, value=folder_kib(machine.state_dir))
    yield Reading(measure=Measure.WRITTEN, of="every node", value=written_kib)
    temporal_kib = folder_kib(lab.folder.run, lambda name: name.startswith("temporal.sqlite"))
    yield Reading(measure=Measure.TEMPORAL, of=TEMPORAL, value=temporal_kib)
    yield Reading(measure=Measure.AUDIT, of=WORKER, value=folder_kib(lab.folder.audit))
    yield Reading(measure=Measure.LOGS, of="all processes", value=folder_kib(lab.folder.logs))
