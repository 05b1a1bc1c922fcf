"""For how long writes stand still: a killed node, and a database that crashes under a living agent.

    make bench-gaps ROUNDS=5

Each round is a new lab with its default settings. Two kinds of clients write: four as fast as they can by the
service's name, whose TTL they honour; and one every 20 ms that knows the nodes and looks for the one that
takes writes (`target_session_attrs=read-write`), as those do by which other failover managers are measured.
Prints a table, and JSON with `--json`; fails if an acknowledged write was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
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
    """One failure. Times in milliseconds, from the failure on."""

    event: str
    run_started_ms: float
    promoted_and_followed_ms: float
    """The first write that the new primary acknowledged to the client that knows the nodes."""
    run_ended_ms: float
    gap_by_hosts_ms: float
    gap_by_name_ms: float
    """The longest of four clients; up to one TTL (1 s) of it is theirs."""
    acknowledged: int
    lost: int
    outcome: str


async def kill_node(lab: Lab) -> None:
    await lab.kill_node(lab.primary.node_id)


async def crash_database(lab: Lab) -> None:
    postmaster = lab.machine(lab.primary.node_id).data_dir / "postmaster.pid"
    os.kill(int(postmaster.read_text().splitlines()[0]), signal.SIGKILL)


EVENTS: dict[str, Callable[[Lab], Awaitable[None]]] = {
    "killed node": kill_node,
    "crashed database": crash_database,
}


async def measure(event: str, directory: Path) -> Round:
    lab = await Lab.create(directory)
    client = HostsClient(dsn(lab))
    try:
        control = await ControlPlane.start(lab, lambda _: None)
        await lab.start_clients(4)
        with writing([client]):
            await asyncio.sleep(BEFORE_S)
            failed_at, failed = time.time(), time.monotonic()
            await EVENTS[event](lab)
            result = await (await control.next_run(within_s=60)).result()
            await asyncio.sleep(AFTER_S)
        await lab.stop_clients()
        rows = await lab.rows(result.new_primary or lab.primary.node_id)
        writes = analyse(lab.ack_log(), rows, since=failed)
        after = [at for at, _ in client.acknowledged if at > failed + 0.1]
        return Round(
            event,
            run_started_ms=1000 * (result.started_at.timestamp() - failed_at),
            promoted_and_followed_ms=1000 * (after[0] - failed) if after else float("inf"),
            run_ended_ms=1000 * (result.ended_at.timestamp() - failed_at),
            gap_by_hosts_ms=client.gap_ms,
            gap_by_name_ms=writes.gap_ms,
            acknowledged=writes.acked,
            lost=len(writes.lost),
            outcome=result.outcome.value,
        )
    finally:
        await lab.stop()


def dsn(lab: Lab) -> str:
    hosts = [node.database.host for node in lab.cluster.nodes if node.database is not None]
    password = lab.folder.password(APP).read_text().strip()
    return dsn_of(hosts, DATABASE_PORT, user=APP, password=password, database=APP_DATABASE)


def row(name: str, rounds: list[Round]) -> str:
    def told(values: list[float]) -> str:
        return f"{min(values):6.0f} {statistics.median(values):6.0f} {max(values):6.0f}"

    return (
        f"{name:18} {told([r.run_started_ms for r in rounds])}  {told([r.gap_by_hosts_ms for r in rounds])}  "
        f"{told([r.gap_by_name_ms for r in rounds])}  {sum(r.acknowledged for r in rounds):8}"
        f" {sum(r.lost for r in rounds):5}"
    )


async def bench(rounds: int, directory: Path) -> list[Round]:
    measured: list[Round] = []
    for number in range(rounds):
        for event in EVENTS:
            measured.append(await measure(event, directory))
            print(
                f"round {number + 1}, {event}: {measured[-1].gap_by_hosts_ms:.0f} ms",
                file=sys.stderr,
                flush=True,
            )
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.gaps")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp/qnwis-gaps"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured = asyncio.run(bench(options.rounds, options.directory))
    if options.json:
        print(json.dumps([asdict(r) for r in measured], indent=1))
    else:
        print(
            f"{'ms: min median max':18} {'run started':>20}  {'gap by hosts':>20}  {'gap by name':>20}  "
            f"{'writes':>8} {'lost':>5}"
        )
        for event in EVENTS:
            print(row(event, [r for r in measured if r.event == event]))
    sys.exit(1 if any(r.lost or r.outcome != "completed" for r in measured) else 0)


if __name__ == "__main__":
    main()
