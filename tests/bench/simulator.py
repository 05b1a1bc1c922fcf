"""Whether the simulator at scale tells the truth: its median write gap of a killed node, beside the lab's.

    make bench-simulator ROUNDS=5

Each round kills the primary's node of a new lab, under its default settings. The same topology, policy and
lease are then simulated in the world `config/simulator/lab.yaml`. For clients that know the nodes and for
those that go by the service's name it prints both medians and their ratio; it fails beyond 15 %.

`ARGS=--json` prints every figure as JSON; `ARGS='--write docs/benchmarks.md'` has its section of that page
written anew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from qnwis.continuity.access import ApprovalWorkflow
from qnwis.lab.errors import LabError
from qnwis.lab.layout import Block, Folder
from qnwis.lab.shape import LEASE, THREE_NODES, lab_cluster, lab_policy
from qnwis.montecarlo.study import Settings, play
from qnwis.montecarlo.world import Clients, Finds, World, load_world

from .document import Row, markdown_table, text_table, write_section
from .ending import ends_on_sigterm
from .gaps import measure
from .machine import machine

WITHIN = 0.15
"""Of the measured median."""
RUNS, SEED = 100_000, 42
HEAD: Row = ("clients go by", "measured, ms", "simulated, ms", "ratio", f"within {WITHIN:.0%}")
NOTHING = 4
"""Exit code: no lab could be started, or no run began in one."""


@dataclass(frozen=True)
class Compared:
    """Medians, milliseconds."""

    what: str
    measured_ms: float
    simulated_ms: float

    @property
    def ratio(self) -> float:
        return self.simulated_ms / self.measured_ms

    @property
    def holds(self) -> bool:
        return abs(self.ratio - 1) <= WITHIN


def simulated_ms(directory: Path) -> dict[Finds, float]:
    """By how clients find the primary, the median of the simulated gap."""
    world = load_world("lab")
    assert (world.lease.duration_s, world.lease.renew_every_s) == (LEASE.duration_s, LEASE.renew_every_s)
    settings = Settings(
        lab_cluster(THREE_NODES, Folder(directory), Block.on_loopback(1), cluster_id="lab"),
        lab_policy(THREE_NODES),
        world,
        # The lab's policy is automatic: nobody is asked.
        ApprovalWorkflow(required_approvers=1, allowed_roles=("continuity_admin",), timeout_sec=600),
    )
    return {
        finds: 1000 * play(replace(settings, world=_with(world, finds)), RUNS, SEED).figures.rto_s.p50
        for finds in Finds
    }


def _with(world: World, finds: Finds) -> World:
    clients: Clients = world.clients.model_copy(
        update={"finds": finds, "count": world.clients.count if finds is Finds.NAME else 1}
    )
    return world.model_copy(update={"clients": clients})


async def measured_ms(rounds: int, directory: Path) -> dict[Finds, list[float]]:
    gaps: dict[Finds, list[float]] = {finds: [] for finds in Finds}
    for number in range(rounds):
        one = await measure(directory)
        if one.outcome != "completed" or one.lost:
            sys.exit(f"round {number + 1}: the run ended {one.outcome}, {one.lost} acknowledged writes lost")
        gaps[Finds.HOSTS].append(one.gap_by_hosts_ms)
        gaps[Finds.NAME].append(one.gap_by_name_ms)
        print(
            f"round {number + 1}: run started {one.run_started_ms:.0f} ms,"
            f" by hosts {one.gap_by_hosts_ms:.0f} ms, by name {one.gap_by_name_ms:.0f} ms",
            file=sys.stderr,
            flush=True,
        )
    return gaps


def rows(compared: Sequence[Compared]) -> list[Row]:
    return [
        (
            one.what,
            f"{one.measured_ms:.0f}",
            f"{one.simulated_ms:.0f}",
            f"{one.ratio:.2f}",
            "yes" if one.holds else "NO",
        )
        for one in compared
    ]


def section(compared: Sequence[Compared], rounds: int) -> list[str]:
    """The paragraphs of this bench in the document."""
    return [
        "## The simulator beside the lab",
        f"Written by `make bench-simulator`. {machine()}; {rounds} killed nodes, {RUNS:,} simulated ones.",
        "The write gap of a killed node, the median, by how clients find the primary: by the nodes that they"
        " know, or by the service's name.",
        markdown_table(HEAD, rows(compared)),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.bench.simulator")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp/qnwis-simulator"))
    parser.add_argument("--json", action="store_true", help="every figure")
    parser.add_argument("--write", type=Path, help="a document whose section is replaced by the result")
    options = parser.parse_args()
    on_paper = simulated_ms(options.directory)
    ends_on_sigterm()
    try:
        real = asyncio.run(measured_ms(options.rounds, options.directory))
    except LabError as error:
        print(f"nothing was measured: {error}", file=sys.stderr)
        return NOTHING
    compared = [Compared(finds.value, statistics.median(real[finds]), on_paper[finds]) for finds in Finds]
    if options.json:
        told = [{**asdict(one), "ratio": one.ratio, "holds": one.holds} for one in compared]
        each = {finds.value: gaps_ms for finds, gaps_ms in real.items()}
        whole = {"machine": machine(), "measured_ms": each, "within": WITHIN, "gaps": told}
        print(json.dumps(whole, indent=1))
    else:
        print(text_table(HEAD, rows(compared)))
    if options.write is not None:
        write_section(options.write, "make bench-simulator", section(compared, options.rounds))
    return 0 if all(one.holds for one in compared) else 1


if __name__ == "__main__":
    sys.exit(main())
