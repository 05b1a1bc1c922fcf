"""For how long writes stand still in a planned switchover, beside Patroni's, in one run.

    make bench-switchover ROUNDS=5

In alternation, each round on new clusters of three nodes: the lab with its default settings, moved by the
runbook of planned maintenance (synchronous, an approval included), and Patroni with the least ttl that it
takes (20 s, loop_wait 1 s), moved by its REST API. Both run the same PostgreSQL, commit to the disk, and have
the same four clients, which know the nodes and write every 20 ms to the one that takes writes. Only one runs
at a time. Prints a table and the ratio of the medians, and JSON with `--json`; fails if an acknowledged write
was lost or a switchover failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psycopg
from patroni.version import __version__ as patroni_version

from qnwis.lab.cluster import Lab
from qnwis.lab.control_plane import ControlPlane
from qnwis.lab.maintenance_demo import play_maintenance
from tests.integration.continuity.patroni_lab import (
    API_PASSWORD,
    API_USER,
    PASSWORD,
    PatroniLab,
    missing,
    patroni_lab,
)

from .gaps import dsn
from .hosts_client import HostsClient, dsn_of, writing

CLIENTS = 4
BEFORE_S, AFTER_S = 3.0, 3.0
MEMBERS = ("p1", "p2", "p3")


@dataclass(frozen=True)
class Round:
    """One switchover."""

    system: str
    gap_ms: float
    """The longest time that any one client had no write acknowledged."""
    acknowledged: int
    lost: int
    succeeded: bool


def clients(to: str) -> list[HostsClient]:
    return [HostsClient(to, f"hosts-{number}") for number in range(CLIENTS)]


def told(system: str, writers: list[HostsClient], rows: set[tuple[str, int]], *, succeeded: bool) -> Round:
    acknowledged = set().union(*(writer.rows for writer in writers))
    return Round(
        system, max(w.gap_ms for w in writers), len(acknowledged), len(acknowledged - rows), succeeded
    )


async def ours(directory: Path) -> Round:
    lab = await Lab.create(directory)
    try:
        control = await ControlPlane.start(lab, lambda _: None)
        writers = clients(dsn(lab))
        with writing(writers):
            await asyncio.sleep(BEFORE_S)
            report = await play_maintenance(
                control, clients=1, say=lambda _: None, follow=lambda handle: handle.result()
            )
            await asyncio.sleep(AFTER_S)
        rows = await lab.rows(report.result.new_primary or lab.primary.node_id)
        return told("this project", writers, rows, succeeded=report.verified)
    finally:
        await lab.stop()


async def patroni(_: Path) -> Round:
    async with patroni_lab(MEMBERS, (), fsync=True) as lab:
        leader, candidate, *_rest = MEMBERS
        await lab.sql(leader, "CREATE TABLE rows (client text, n bigint)")
        to = dsn_of(
            [lab.host(name) for name in MEMBERS],
            lab.port,
            user="postgres",
            password=PASSWORD,
            database="postgres",
        )
        writers = clients(to)
        with writing(writers):
            await asyncio.sleep(BEFORE_S)
            answer = await _switch(lab, leader, candidate)
            await lab.until(candidate, role="primary", state="running")
            await asyncio.sleep(AFTER_S)
        rows = {(str(c), int(n)) for c, n in await lab.sql(candidate, "SELECT client, n FROM rows")}
        return told("Patroni", writers, rows, succeeded=answer.is_success)


async def _switch(lab: PatroniLab, leader: str, candidate: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60, trust_env=False, auth=(API_USER, API_PASSWORD)) as client:
        wanted = {"leader": leader, "candidate": candidate}
        return await client.post(f"{lab.url(leader)}/switchover", json=wanted)


SYSTEMS: tuple[Callable[[Path], Awaitable[Round]], ...] = (ours, patroni)


async def bench(rounds: int, directory: Path) -> list[Round]:
    measured: list[Round] = []
    for number in range(rounds):
        for system in SYSTEMS:
            measured.append(await system(directory))
            print(
                f"round {number + 1}, {measured[-1].system}: {measured[-1].gap_ms:.0f} ms",
                file=sys.stderr,
                flush=True,
            )
    return measured


def table(measured: list[Round]) -> str:
    lines = [f"{'gap, ms':14} {'min':>6} {'median':>6} {'max':>6}  {'writes':>7} {'lost':>5}"]
    medians = {}
    for system in dict.fromkeys(r.system for r in measured):
        rounds = [r for r in measured if r.system == system]
        gaps = [r.gap_ms for r in rounds]
        medians[system] = statistics.median(gaps)
        lines.append(
            f"{system:14} {min(gaps):6.0f} {medians[system]:6.0f} {max(gaps):6.0f}  "
            f"{sum(r.acknowledged for r in rounds):7} {sum(r.lost for r in rounds):5}"
        )
    mine, theirs = medians.values()
    return "\n".join([*lines, f"ratio of the medians: {mine / theirs:.2f}"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.switchover")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp/qnwis-switchover"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if (why := missing()) is not None:
        sys.exit(why)
    measured = asyncio.run(bench(options.rounds, options.directory))
    if options.json:
        print(json.dumps([asdict(r) for r in measured], indent=1))
    else:
        print(f"Patroni {patroni_version}, libpq {psycopg.pq.version()}")
        print(table(measured))
    sys.exit(1 if any(r.lost or not r.succeeded for r in measured) else 0)


if __name__ == "__main__":
    main()
