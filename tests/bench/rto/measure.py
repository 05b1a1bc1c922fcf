"""One event on one new cluster, under the clients."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import time
from collections.abc import Collection
from pathlib import Path

import psycopg

from qnwis.lab.acks import Row
from qnwis.lab.errors import LabError
from qnwis.lab.network import Link, Network
from qnwis.lab.procfs import kill_inside, signal_process

from .bed import AT, Bed
from .client import WRITERS, Writers
from .figures import Event, Figure, gap_ms, lost
from .settings import Setting
from .systems import Running, System

BEFORE_S, AFTER_S = 2.0, 3.0
"""How long the clients are seen writing before the event, a random part of the system's phase besides; and
after every one of them writes again."""
BACK_WITHIN_S = 150.0
IN_FLIGHT_S = 0.2
"""So long after an event an old primary's answers may still arrive: they are no sign that writes are back."""


async def measure(
    number: int, system: System, setting: Setting, event: Event, network: Network, folder: Path
) -> Figure:
    """The figure of it; what goes wrong is said in it, and the next can be taken."""
    began = time.monotonic()
    figure = Figure(round=number, system=system.name, setting=setting.name, event=event)
    root = folder / "bed"
    root.mkdir(mode=0o711)
    bed = Bed(root, network, folder / "cache")
    try:
        bed.prepare()
        async with system.running(bed, setting) as running:
            figure = await _struck(figure, running, setting, bed)
    except Exception as error:  # whatever it is, it must not end a run of many others
        figure = figure.model_copy(update={"problem": f"{type(error).__name__}: {error}"})
    finally:
        network.heal_all()
        name = f"{number}-{system.name}-{setting.name}-{event}".replace(" ", "-")
        _keep_logs(root, folder / "logs" / name)
        bed.clear()
    return figure.model_copy(update={"took_s": time.monotonic() - began})


async def _struck(figure: Figure, running: Running, setting: Setting, bed: Bed) -> Figure:
    event, old = figure.event, running.primary
    writers = Writers(bed.root / "clients")
    writers.start(running)
    try:
        if not await writers.until_all(after_s=0, within_s=30):
            raise LabError("the clients cannot write to the new cluster")
        # The copies of which the nodes were just made are no part of what a database has to write.
        await asyncio.to_thread(os.sync)
        await asyncio.sleep(BEFORE_S + random.uniform(0, setting.phase_s))
        load, since_s = os.getloadavg()[0], time.monotonic()
        try:
            async with asyncio.timeout(BACK_WITHIN_S):
                await _strike(event, running, bed.network)
        except TimeoutError:
            raise LabError(f"{event}: not done within {BACK_WITHIN_S:g} s") from None
        moved = event is Event.SWITCHOVER
        back = await writers.until_all(
            after_s=since_s + IN_FLIGHT_S, not_on=old if moved else None, within_s=BACK_WITHIN_S
        )
        await asyncio.sleep(AFTER_S)
        ended_s = time.monotonic()
    finally:
        writers.stop()
    log = writers.ack_log()
    last = max(log.acks, key=lambda ack: ack.at)
    rows = await _rows(running, last.server)
    clients = [str(number) for number in range(WRITERS)]
    gap = gap_ms(log.acks, since_s=since_s, ended_s=ended_s, clients=clients)
    return figure.model_copy(
        update={
            "gap_ms": gap if back else None,
            "acknowledged": len(log.acks),
            "lost": lost(log, rows),
            "served_after": last.server,
            "load": load,
            "problem": None if back else f"not every client wrote again within {BACK_WITHIN_S:g} s",
        }
    )


async def _strike(event: Event, running: Running, network: Network) -> None:
    primary = running.primary
    match event:
        case Event.KILLED:
            await asyncio.to_thread(kill_inside, running.home(primary))
            await running.after_kill()
        case Event.BLACKHOLED:
            await asyncio.to_thread(network.cut, around(primary))
        case Event.CRASHED:
            crash(running.data_dir(primary))
        case Event.SWITCHOVER:
            await running.switch_over()


def around(node: str) -> list[Link]:
    """Every link from and to it."""
    return [link for other in AT if other != node for link in ((node, other), (other, node))]


def crash(data_dir: Path) -> None:
    """SIGKILL the database in it, its postmaster first, and nothing else of the node."""
    postmaster = int((data_dir / "postmaster.pid").read_text().split("\n", 1)[0])
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    for pid in (postmaster, *map(int, children)):
        signal_process(pid, signal.SIGKILL)


async def _rows(running: Running, server: str) -> Collection[Row]:
    async with await psycopg.AsyncConnection.connect(
        host=running.hosts[server],
        port=running.port,
        user=running.user,
        password=running.password_file.read_text().strip(),
        dbname=running.database,
        connect_timeout=5,
    ) as connection:
        cursor = await connection.execute("SELECT client, n FROM rows")
        return {(str(client), int(n)) for client, n in await cursor.fetchall()}


def _keep_logs(root: Path, where: Path) -> None:
    """To be looked at, whatever came of it."""
    where.mkdir(parents=True, exist_ok=True)
    for log in root.glob("**/*.log"):
        shutil.copy(log, where / "-".join(log.relative_to(root).parts))
