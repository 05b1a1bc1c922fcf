"""For how long writes stand still when the primary's node of a lab is killed, under its default settings.

Two kinds of clients write: four as fast as they can by the service's name, whose TTL they honour; and one
every 20 ms that knows the nodes and looks for the one that takes writes (`target_session_attrs=read-write`).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from qnwis.lab.acks import analyse
from qnwis.lab.cluster import Lab
from qnwis.lab.control_plane import ControlPlane
from qnwis.lab.layout import DATABASE_PORT
from qnwis.lab.postgres import APP, APP_DATABASE

from .hosts_client import HostsClient, dsn_of, writing

BEFORE_S, AFTER_S = 3.0, 3.0


@dataclass(frozen=True)
class Round:
    """One killed node. Times in milliseconds, from the kill on."""

    run_started_ms: float
    gap_by_hosts_ms: float
    gap_by_name_ms: float
    """The longest of four clients; up to one TTL (1 s) of it is theirs."""
    lost: int
    outcome: str


async def measure(directory: Path) -> Round:
    """In a new lab. Raises LabError where it cannot be made."""
    lab = await Lab.create(directory)
    client = HostsClient(_dsn(lab))
    try:
        control = await ControlPlane.start(lab, lambda _: None)
        await lab.start_clients(4)
        with writing([client]):
            await asyncio.sleep(BEFORE_S)
            failed_at, failed = time.time(), time.monotonic()
            await lab.kill_node(lab.primary.node_id)
            result = await (await control.next_run(within_s=60)).result()
            await asyncio.sleep(AFTER_S)
        await lab.stop_clients()
        rows = await lab.rows(result.new_primary or lab.primary.node_id)
        writes = analyse(lab.ack_log(), rows, since=failed)
        return Round(
            run_started_ms=1000 * (result.started_at.timestamp() - failed_at),
            gap_by_hosts_ms=client.gap_ms,
            gap_by_name_ms=writes.gap_ms,
            lost=len(writes.lost),
            outcome=result.outcome.value,
        )
    finally:
        await lab.stop()


def _dsn(lab: Lab) -> str:
    hosts = [node.database.host for node in lab.cluster.nodes if node.database is not None]
    password = lab.folder.password(APP).read_text().strip()
    return dsn_of(hosts, DATABASE_PORT, user=APP, password=password, database=APP_DATABASE)
