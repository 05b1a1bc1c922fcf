"""`make soak`.

python -m tests.bench.soak --cycles 100 --minutes 60 --write docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from qnwis.lab.cluster import Lab
from qnwis.lab.control_plane import ControlPlane
from qnwis.lab.errors import LabError
from qnwis.lab.shape import HEARTBEAT, Shape
from qnwis.lab.temporal_server import CLI_VERSION
from qnwis.providers.nodes import HttpNodes
from tests.bench.document import text_table, write_section
from tests.bench.ending import ends_on_sigterm
from tests.bench.machine import machine

from .asking import asking
from .cycles import Cycle
from .levels import beyond, trends
from .play import Soak
from .sampling import Sampler
from .table import GROWTH_HEAD, LEVELS_HEAD, TIMES_HEAD, growth, levels, line, note, section, times

CYCLES = 100
"""Where nobody says for how long."""
SHAPE = Shape(
    policy={"cooldown_s": 0, "max_failovers_per_hour": 100_000},
    heartbeat=HEARTBEAT.model_copy(update={"flap_window_sec": 0.0}),
    power_switch=False,
    parameters={"max_wal_size": "192MB"},
)
"""The guardian acts on every kill, and believes a node that was killed often as soon as any other: its
patience is not what is asked here. A node keeps up to about max_wal_size of its log of writes beyond
wal_keep_size: a gigabyte more, by default, which would not be reached within the warm-up."""
NOTHING = 4
"""Exit code: no lab could be started."""


@dataclass(frozen=True)
class Options:
    cycles: int | None
    minutes: float | None
    directory: Path
    json: bool
    write: Path | None


def parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="tests.bench.soak")
    parser.add_argument(
        "--cycles", type=int, help=f"end after so many; {CYCLES} where no time is given either"
    )
    parser.add_argument("--minutes", type=float, help="begin no further cycle after so long")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp/qnwis-soak"))
    parser.add_argument("--json", action="store_true", help="every cycle, every trend")
    parser.add_argument("--write", type=Path, help="a document whose section is replaced by the result")
    found = parser.parse_args(arguments)
    for name in ("cycles", "minutes"):
        value = getattr(found, name)
        if value is not None and value <= 0:
            parser.error(f"--{name}: {value}; expected more than 0")
    return Options(
        cycles=CYCLES if found.cycles is None and found.minutes is None else found.cycles,
        minutes=found.minutes,
        directory=found.directory.absolute(),
        json=found.json,
        write=found.write,
    )


async def soak(options: Options, played: list[Cycle]) -> str | None:
    """Add each cycle to `played`; why the last one did not come to its end, if it did not. Raises LabError
    where there is no lab to begin with."""
    ends = float("inf") if options.minutes is None else time.monotonic() + 60 * options.minutes
    async with _begun(options.directory) as one:
        while time.monotonic() < ends and len(played) != options.cycles:
            number = len(played) + 1
            try:
                cycle = await one.cycle(number)
            except LabError as error:
                return f"cycle {number} did not come to its end: {error}"
            played.append(cycle)
            print(line(cycle), *cycle.violations, sep="\n  ", file=sys.stderr, flush=True)
    return None


@asynccontextmanager
async def _begun(directory: Path) -> AsyncIterator[Soak]:
    """On a new lab. Raises LabError."""
    lab = await Lab.create(directory, shape=SHAPE)
    try:
        control = await ControlPlane.start(lab, lambda _: None)
        async with HttpNodes(lab.certificates.transport) as nodes, asking(control) as console:
            yield Soak(control, nodes, console, Sampler(control))
    finally:
        await lab.stop()


def report(options: Options, played: Sequence[Cycle], broken_off: str | None, took_s: float) -> int:
    """Print and write what came of it; the exit code."""
    found = trends([cycle.readings for cycle in played])
    failures = [
        *([broken_off] if broken_off is not None else []),
        *(f"cycle {cycle.number}: {why}" for cycle in played for why in cycle.violations),
        *beyond(found),
    ]
    measured_on = [
        machine(),
        f"Temporal CLI {CLI_VERSION}, its development server on the same machine",
        f"{took_s / 60:.0f} minutes",
    ]
    if options.write is not None and played:
        write_section(options.write, "make soak", section(played, failures, measured_on))
    if options.json:
        whole = {
            "measured_on": measured_on,
            "cycles": [cycle.model_dump(mode="json") for cycle in played],
            "trends": [
                {**trend.model_dump(mode="json"), "judged": trend.judged, "within": trend.within}
                for trend in found
            ],
            "failures": failures,
        }
        print(json.dumps(whole, indent=1))
    elif played:
        for head, body in (
            (TIMES_HEAD, times(played)),
            (LEVELS_HEAD, levels(found)),
            (GROWTH_HEAD, growth(found)),
        ):
            print(text_table(head, body), end="\n\n")
        print(note(played))
        print(f"{len(played)} cycles, {sum(cycle.writes for cycle in played)} acknowledged writes")
    print("\n".join(failures) or "no violation, and nothing beyond its bound", file=sys.stderr)
    return 1 if failures else 0


def main() -> int:
    options, began, played = parse(sys.argv[1:]), time.monotonic(), list[Cycle]()
    ends_on_sigterm()
    try:
        broken_off = asyncio.run(soak(options, played))
    except LabError as error:
        print(f"no lab: {error}", file=sys.stderr)
        return NOTHING
    return report(options, played, broken_off, time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
