"""How late a guard wakes, and how long until every process of the database is gone: for `stop_margin_s`.

    python -m tests.bench.stopping --rounds 20

A lab whose primary has forty idle connections and eight clients that write, with four busy processes
besides. In each round one more guard is started beside the primary's, with a lease that ends soon.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import subprocess
import sys
from pathlib import Path

import psycopg

from qnwis.agent.guard import now
from qnwis.lab.cluster import Lab
from qnwis.lab.layout import DATABASE_PORT
from qnwis.lab.postgres import APP, APP_DATABASE
from qnwis.providers.nodes import HttpNodes

CLIENTS, CONNECTIONS, BUSY = 8, 40, 4
LEASE_S = 4.0
"""Longer than a guard needs to start on a busy machine."""
SAID = re.compile(r"woken ([0-9.]+) ms after, all gone ([0-9.]+) ms after")


async def measure(rounds: int, directory: Path) -> None:
    lab = await Lab.create(directory)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BUSY)]
    found: list[tuple[float, float]] = []
    try:
        await lab.start_clients(CLIENTS)
        async with HttpNodes(lab.certificates.transport) as nodes:
            for _ in range(rounds):
                found.append(await one_round(lab, nodes))
                print(
                    "woken {:.1f} ms after the end, all gone {:.1f} ms after".format(*found[-1]), flush=True
                )
    finally:
        for process in busy:
            process.kill()
        await lab.stop()
    for what, values in (("woken", [f[0] for f in found]), ("all gone", [f[1] for f in found])):
        print(f"{what}: median {sorted(values)[len(values) // 2]:.1f} ms, longest {max(values):.1f} ms")


async def one_round(lab: Lab, nodes: HttpNodes) -> tuple[float, float]:
    """Milliseconds after the lease's end, of its waking and of the database's last process."""
    async with asyncio.timeout(60), contextlib.AsyncExitStack() as connections:
        while not (await nodes.state(lab.primary, timeout_s=5)).writable:
            await asyncio.sleep(0.05)
        for _ in range(CONNECTIONS):
            await connections.enter_async_context(
                await psycopg.AsyncConnection.connect(
                    host=lab.primary.hostname,
                    port=DATABASE_PORT,
                    user=APP,
                    dbname=APP_DATABASE,
                    password=lab.folder.password(APP).read_text().strip(),
                )
            )
        data_dir = lab.machine(lab.primary.node_id).data_dir
        guard = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "qnwis.agent.guard", str(data_dir), str(now() + LEASE_S)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert guard.stdout is not None
        said = SAID.search((await guard.stdout.read()).decode())
        assert said is not None
        return float(said[1]), float(said[2])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp/qnwis-stopping"))
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.rounds, arguments.directory))
