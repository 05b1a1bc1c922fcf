"""What every demonstration shares: a lab of its own for as long as it takes, and clients that write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from temporalio.client import WorkflowHandle

from qnwis.continuity.run import RunResult
from qnwis.continuity.topology import Cluster

from .acks import AckLog, Row
from .cluster import Lab
from .control_plane import ControlPlane
from .shape import SERVICE_NAME, TTL_S, Shape
from .temporal_server import Say

WRITE_BEFORE_S = 2.0
"""How long the writers are seen writing before anything happens, and again afterwards."""

Follow = Callable[[WorkflowHandle[Any, RunResult]], Awaitable[RunResult]]
"""Waits for a run's result, showing it meanwhile."""
R = TypeVar("R")


class Written(Protocol):
    """A cluster that clients write to: a lab on this machine, or in containers."""

    @property
    def cluster(self) -> Cluster: ...

    async def start_clients(self, count: int = 4, *, pause_ms: float = 2.0) -> None: ...

    async def stop_clients(self) -> None: ...

    async def kill_node(self, node_id: str) -> int: ...

    async def rows(self, node_id: str) -> set[Row]: ...

    def ack_log(self) -> AckLog: ...


class Control(Protocol):
    """What fails it over."""

    @property
    def lab(self) -> Written: ...

    async def next_run(self, *, within_s: float) -> WorkflowHandle[Any, RunResult]: ...

    def run_url(self, run_id: str) -> str | None: ...


async def on_a_new_lab(
    directory: Path | None,
    play: Callable[[ControlPlane], Awaitable[R]],
    *,
    shape: Shape | None = None,
    pg_bin: Path | None,
    keep: bool,
    say: Say,
) -> R:
    """Play on a new lab, which is stopped afterwards unless `keep` and all went well."""
    say("starting three PostgreSQL nodes with their agents, and a DNS server")
    lab = await Lab.create(directory, shape=shape or Shape(), pg_bin=pg_bin)
    kept = False
    try:
        control = await ControlPlane.start(lab, say)
        say(f"Temporal at {control.server.address}; the guardian sees every node healthy")
        report = await play(control)
        if keep:
            lab.keep()
            kept = True
        return report
    finally:
        if not kept:
            await lab.stop()


async def start_writing(lab: Written, clients: int, say: Say, *, pause_ms: float = 2.0) -> None:
    """Clients write through the service's name, by default as fast as they can; returns when they have for a
    while. `pause_ms`: after each write."""
    await lab.start_clients(clients, pause_ms=pause_ms)
    records = "the service records of " if lab.cluster.is_active_active else ""
    say(
        f"{clients} clients write to {lab.cluster.cluster_id} through {records}{SERVICE_NAME} (TTL {TTL_S} s)"
    )
    await asyncio.sleep(WRITE_BEFORE_S)
