"""The demonstration: writers on, the primary's node killed, and what the failover achieved."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from qnwis.continuity.model import Model
from qnwis.continuity.run import RunResult
from qnwis.continuity.topology import Cluster, NodeRole, ReplicationMode

from .acks import WriteReport, analyse
from .demonstration import WRITE_BEFORE_S, Control, Follow, Written, on_a_new_lab, start_writing
from .shape import Shape
from .temporal_server import Say

START_WITHIN_S = 60.0
BACK_WITHIN_S = 30.0


class DemoReport(Model):
    """What the demonstration measured. Times in milliseconds."""

    verified: bool
    """The run was verified, writes went on, and in synchronous mode none acknowledged was lost."""
    killed_node: str
    killed_processes: int
    detect_ms: float
    """From the kill to the start of the run."""
    promote_ms: float | None
    """From the kill to the target's promotion."""
    writes_back_ms: float | None
    """From the kill to the first write that the new primary acknowledged."""
    writes: WriteReport
    result: RunResult
    dns_before: tuple[str, ...]
    dns_after: tuple[str, ...]
    ui_url: str | None


async def play(
    control: Control,
    *,
    clients: int,
    say: Say,
    follow: Follow,
    primary: str | None = None,
    pause_ms: float = 2.0,
) -> DemoReport:
    """Kill the primary's node under a write load and measure; `primary`: where it is another than the one
    that was made as such. Raises LabError when no run starts."""
    lab = control.lab
    primary = primary or made_as_primary(lab.cluster)
    await start_writing(lab, clients, say, pause_ms=pause_ms)

    killed_at, killed_mono = datetime.now(UTC), time.monotonic()
    killed = await lab.kill_node(primary)
    say(f"{primary} is killed: {killed} processes, its database and its agent")

    handle = await control.next_run(within_s=START_WITHIN_S)
    result = await follow(handle)
    if result.new_primary is not None:
        await _until_writes_are_back(lab, killed_mono)
        await asyncio.sleep(WRITE_BEFORE_S)
    await lab.stop_clients()

    rows = await lab.rows(result.new_primary or primary) if result.new_primary else set()
    writes = analyse(await asyncio.to_thread(lab.ack_log), rows, since=killed_mono)
    synchronous = lab.cluster.replication.mode is ReplicationMode.SYNCHRONOUS
    return DemoReport(
        verified=result.verified
        and writes.first_ack_after_ms is not None
        and not (synchronous and writes.lost),
        killed_node=primary,
        killed_processes=killed,
        detect_ms=_ms_between(killed_at, result.started_at),
        promote_ms=_promoted_ms(result, killed_at),
        writes_back_ms=writes.first_ack_after_ms,
        writes=writes,
        result=result,
        dns_before=_addresses(result, "before"),
        dns_after=_addresses(result, "after"),
        ui_url=control.run_url(result.run_id),
    )


async def run_demo(
    directory: Path | None,
    *,
    asynchronous: bool,
    pg_bin: Path | None,
    clients: int,
    keep: bool,
    say: Say,
    follow: Follow,
) -> DemoReport:
    """The whole demonstration on a new lab, which is stopped afterwards unless `keep` and all went well."""
    return await on_a_new_lab(
        directory,
        partial(play, clients=clients, say=say, follow=follow),
        shape=Shape(asynchronous=asynchronous),
        pg_bin=pg_bin,
        keep=keep,
        say=say,
    )


def made_as_primary(cluster: Cluster) -> str:
    """node_id of the first that was."""
    return next(node.node_id for node in cluster.nodes if node.role is NodeRole.PRIMARY)


async def _until_writes_are_back(lab: Written, killed_mono: float) -> None:
    """Wait for the clients to reach the new primary; the report tells when they do not."""
    deadline = time.monotonic() + BACK_WITHIN_S
    while time.monotonic() < deadline:
        report = analyse(await asyncio.to_thread(lab.ack_log), (), since=killed_mono)
        if report.first_ack_after_ms is not None:
            return
        await asyncio.sleep(0.1)


def _ms_between(earlier: datetime, later: datetime) -> float:
    return (later - earlier).total_seconds() * 1000


def _promoted_ms(result: RunResult, since: datetime) -> float | None:
    promoted_at = _fact(result, "promoted_at")
    return _ms_between(since, datetime.fromisoformat(promoted_at)) if isinstance(promoted_at, str) else None


def _addresses(result: RunResult, when: str) -> tuple[str, ...]:
    addresses = _fact(result, when)
    return tuple(map(str, addresses)) if isinstance(addresses, list) else ()


def _fact(result: RunResult, name: str) -> JsonValue:
    return next((o.facts[name] for o in result.outcomes if name in o.facts), None)
