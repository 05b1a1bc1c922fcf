"""`make matrix`: at every point of a failover the worker, or the Temporal server, gets SIGKILL.

PostgreSQL, agents, DNS, Temporal and worker are real processes, in one lab that the points share: each starts
from a healed cluster whose primary's node is then killed, and ends with a table. `MATRIX=promote,flip` takes
only the points whose name holds one of these words.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from qnwis.continuity.run import RunResult
from qnwis.lab.acks import AckLog, analyse
from qnwis.lab.control_plane import WORKER, ControlPlane
from qnwis.lab.places import CONTROL
from qnwis.lab.processes import python_module
from qnwis.lab.shape import VANTAGES
from qnwis.lab.temporal_server import ADDRESS_VARIABLE
from qnwis.lab.temporal_server import PROCESS_NAME as TEMPORAL
from qnwis.providers.nodes import HttpNodes
from workers.settings import WorkerSettings

from .matrix import Point
from .real import Scene, healed, lab_directory, restart_temporal, running_lab, until

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(3000)]

CLIENTS = 2
WORDS = [word for word in os.environ.get("MATRIX", "").split(",") if word]


@dataclass(frozen=True)
class Row:
    """What came of one point."""

    point: str
    killed: str
    end: str
    primaries_at_most: int
    gap_ms: float
    lost: int
    effects_once: bool

    @property
    def good(self) -> bool:
        return (self.end, self.primaries_at_most, self.lost, self.effects_once) == ("completed", 1, 0, True)


class HeldWorkers:
    """The lab's worker, one after the other, as the points need them."""

    def __init__(self, control: ControlPlane, folder: Path) -> None:
        self.control, self.folder = control, folder

    def start(self) -> None:
        lab = self.control.lab
        settings = WorkerSettings(
            config_dir=lab.folder.config,
            state_dir=lab.folder.audit,
            vantages=(VANTAGES[0],),
            address=self.control.server.address,
        )
        module = "tests.integration.continuity.held_worker"
        command = python_module(module, settings.model_dump_json(), str(self.folder))
        env = lab.certificates.environment(WORKER)
        lab.processes.start(WORKER, command, cwd=lab.folder.run, env=env, place=lab.block.place(CONTROL))

    def hold_at(self, point: Point) -> None:
        for name in ("reached", "go_on"):
            (self.folder / name).unlink(missing_ok=True)
        new = self.folder / "hold.new"
        new.write_text(json.dumps(asdict(point)))
        new.rename(self.folder / "hold.json")

    async def until_held(self) -> None:
        await until((self.folder / "reached").exists)

    def release(self) -> None:
        (self.folder / "go_on").touch()

    def points(self) -> list[Point]:
        """What the undisturbed failover passed."""
        lines = (self.folder / "passed.jsonl").read_text().splitlines()
        return list(dict.fromkeys(Point(**json.loads(line)) for line in lines))


@pytest.fixture(scope="module")
def own_server() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(ADDRESS_VARIABLE, raising=False)
        yield


@pytest.fixture(scope="module")
async def workers(own_server: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HeldWorkers]:
    with lab_directory() as root:
        async with running_lab(root) as control:
            held = HeldWorkers(control, tmp_path_factory.mktemp("held"))
            control.lab.processes.kill(WORKER)
            held.start()
            yield held


async def test_a_worker_or_server_killed_at_any_point_leaves_a_completed_failover(
    workers: HeldWorkers,
) -> None:
    rows: list[Row] = []
    async with HttpNodes(workers.control.lab.certificates.transport) as nodes:
        rows.append(await failover(workers, nodes, "none (undisturbed)", "nobody"))
        points = [p for p in workers.points() if not WORDS or any(word in str(p) for word in WORDS)]
        for point in points:
            for killed in (WORKER, TEMPORAL):
                rows.append(await failover(workers, nodes, str(point), killed, point))
                show(rows[-1:], header=len(rows) == 2)
    show(rows, header=True)
    assert [row for row in rows if not row.good] == []


async def failover(
    workers: HeldWorkers, nodes: HttpNodes, name: str, killed: str, point: Point | None = None
) -> Row:
    """Kill the primary's node, and somebody else at the point; what came of it."""
    control = workers.control
    scene = await healed(control, nodes)
    lab = scene.lab
    await lab.start_clients(CLIENTS)
    if point is not None:
        workers.hold_at(point)
    await lab.kill_node(scene.primary)
    if point is not None:
        await workers.until_held()
        if killed == WORKER:
            lab.processes.kill(WORKER)
            workers.start()
        else:
            lab.processes.kill(TEMPORAL)
            await restart_temporal(control)
            workers.release()
    run = await scene.next_run()
    async with asyncio.timeout(120):
        result = await run.result()
    new = result.new_primary or ""
    if new:
        await until_all_write(scene, new)
    await lab.stop_clients()
    log = lab.ack_log()
    report = analyse(log, await lab.rows(new) if new else ())
    return Row(
        name,
        killed,
        end=end_of(result),
        primaries_at_most=primaries_at_most(log),
        gap_ms=report.gap_ms,
        lost=len(report.lost),
        effects_once=bool(new) and scene.effects(result.run_id) == scene.one_failover(new),
    )


def end_of(result: RunResult) -> str:
    return result.outcome.value if result.verified else f"{result.outcome.value}, not verified"


async def until_all_write(scene: Scene, new: str) -> None:
    def writes() -> bool:
        return len({ack.client for ack in scene.lab.ack_log().acks if ack.server == new}) == CLIENTS

    await until(writes)


def primaries_at_most(log: AckLog) -> int:
    """1 when no server acknowledged a write after another had taken over; else how many did in turn."""
    in_turn = [server for server, _ in groupby(ack.server for ack in sorted(log.acks, key=lambda a: a.at))]
    return 1 if len(in_turn) == len(set(in_turn)) else len(in_turn)


def show(rows: list[Row], *, header: bool) -> None:
    table = Table("point", "killed", "end", "primaries at most", "gap", "lost", "each once", box=None)
    for row in rows:
        table.add_row(
            row.point,
            row.killed,
            row.end,
            str(row.primaries_at_most),
            f"{row.gap_ms / 1000:.2f} s",
            str(row.lost),
            "yes" if row.effects_once else "NO",
        )
    table.show_header = header
    Console(width=150).print(table)
