"""`make bench-rto`: outside an enclosure it looks what there is and goes into one; inside it measures.

    python -m tests.bench.rto --rounds 3 --write docs/benchmarks.md
    python -m tests.bench.rto --rounds 1 --systems ours,floor --events killed --json

Exits non-zero when this project lost an acknowledged write, missed a goal, or has no figure for a round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qnwis.lab.enclosure import is_inside, run_enclosed
from qnwis.lab.errors import LabError
from qnwis.lab.layout import default_directory
from qnwis.lab.network import Network
from qnwis.lab.temporal_server import ADDRESS_VARIABLE, CLI_VARIABLE, obtain_cli
from tests.bench.document import text_table, write_section
from tests.bench.ending import ends_on_sigterm
from tests.bench.machine import machine

from .auto_failover import AutoFailover
from .bed import AT, PG_BIN
from .figures import Event, Figure, summaries
from .floor import Floor
from .goals import failures, goals
from .measure import measure
from .ours import Ours
from .patroni import Patroni
from .repmgr import Repmgr
from .settings import SETTINGS, Setting
from .systems import System
from .table import GOAL_HEAD, HEAD, goal_rows, rows, section

SYSTEMS: dict[str, System] = {
    "ours": Ours(),
    "patroni": Patroni(),
    "auto_failover": AutoFailover(),
    "repmgr": Repmgr(),
    "floor": Floor(),
}
KEPT = "figures.jsonl"
EVENTS = {event.name.lower(): event for event in Event}


@dataclass(frozen=True)
class Options:
    rounds: int
    systems: Sequence[str]
    settings: Sequence[str]
    events: Sequence[Event]
    directory: Path
    json: bool
    write: Path | None

    @property
    def chosen(self) -> list[System]:
        return [SYSTEMS[name] for name in self.systems]

    def round(self) -> Iterator[tuple[System, Setting, Event]]:
        """What one round measures: systems take turns at each event."""
        for event in self.events:
            for system in self.chosen:
                for setting in system.settings:
                    if setting.name in self.settings and event in setting.events:
                        yield system, setting, event


def parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="tests.bench.rto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--systems", default=",".join(SYSTEMS), help=f"some of {','.join(SYSTEMS)}")
    parser.add_argument("--settings", default=",".join(SETTINGS), help="some of these")
    parser.add_argument("--events", default=",".join(EVENTS), help=f"some of {','.join(EVENTS)}")
    parser.add_argument(
        "--directory", type=Path, default=Path("/var/tmp/qnwis-rto"), help="made anew; keeps figures and logs"
    )
    parser.add_argument("--json", action="store_true", help="every figure, the summary and the goals")
    parser.add_argument("--write", type=Path, help="a document whose section is replaced by the result")
    found = parser.parse_args(arguments)
    for name, known in (
        ("systems", SYSTEMS),
        ("events", EVENTS),
        ("settings", SETTINGS),
    ):
        unknown = set(_names(getattr(found, name))) - set(known)
        if unknown:
            parser.error(f"--{name}: {', '.join(sorted(unknown))}; expected some of {', '.join(known)}")
    if found.rounds < 1:
        parser.error(f"--rounds: {found.rounds}; expected at least 1")
    return Options(
        rounds=found.rounds,
        systems=_names(found.systems),
        settings=_names(found.settings),
        events=[EVENTS[name] for name in _names(found.events)],
        directory=found.directory.absolute(),
        json=found.json,
        write=found.write,
    )


def _names(text_: str) -> list[str]:
    return [name for name in text_.split(",") if name]


async def bench(options: Options) -> list[Figure]:
    network = Network.build(AT)
    measured: list[Figure] = []
    kept = options.directory / KEPT
    for number in range(1, options.rounds + 1):
        for system, setting, event in options.round():
            figure = await measure(number, system, setting, event, network, options.directory)
            measured.append(figure)
            with kept.open("a") as log:  # what was measured outlives a run that is broken off
                log.write(figure.model_dump_json() + "\n")
            gap = figure.problem.splitlines()[0] if figure.problem else f"{figure.gap_ms:.0f} ms"
            print(
                f"round {number}, {system.name}, {setting.name}, {event}: {gap}"
                f" (lost {figure.lost} of {figure.acknowledged}; took {figure.took_s:.0f} s)",
                file=sys.stderr,
                flush=True,
            )
    return measured


def report(options: Options, measured: Sequence[Figure], took_s: float) -> int:
    each = summaries(measured)
    reached, why = goals(each), failures(each)
    versions = {s.name: s.version() + ("" if s.fences else " (fences nothing)") for s in options.chosen}
    if options.write is not None:
        paragraphs = section(
            each,
            reached,
            machine=[*measured_on(), f"rounds: {options.rounds}, in {took_s / 60:.0f} minutes"],
            versions=versions,
            settings={system.name: system.settings for system in options.chosen},
            remarks=[remark for system in options.chosen for remark in system.remarks],
            figures=measured,
        )
        write_section(options.write, "make bench-rto", paragraphs)
    if options.json:
        whole = {
            "machine": measured_on(),
            "versions": versions,
            "figures": [figure.model_dump(mode="json") for figure in measured],
            "summary": [summary.model_dump(mode="json") for summary in each],
            "goals": [goal.model_dump(mode="json") for goal in reached],
            "failures": why,
        }
        print(json.dumps(whole, indent=1))
    else:
        print("\n".join([*measured_on(), *(f"{name} {version}" for name, version in versions.items())]))
        print("\ngap, ms\n" + text_table(HEAD, rows(each)))
        print("\n" + text_table(GOAL_HEAD, goal_rows(reached)))
        print("\n".join(why), file=sys.stderr)
    return 1 if why else 0


def measured_on() -> list[str]:
    postgres = subprocess.run([PG_BIN / "postgres", "--version"], capture_output=True, text=True).stdout
    return [machine(), f"{postgres.strip()}, of every system"]


def prepare(directory: Path) -> None:
    """Make it anew. Raises LabError for a folder that is no earlier run's."""
    if directory.exists():
        if not (directory / KEPT).exists():
            raise LabError(f"{directory}: expected a folder with {KEPT}, as this makes it; give another one")
        shutil.rmtree(directory)
    directory.mkdir(mode=0o711, parents=True)
    (directory / KEPT).touch()


def outside(options: Options, arguments: Sequence[str]) -> int:
    lacking = [f"{system.name}: {why}" for system in options.chosen if (why := system.missing()) is not None]
    if lacking:
        print("\n".join(lacking), file=sys.stderr)
        return 2
    prepare(options.directory)
    # Inside there is no network to fetch it by, and no server of somebody else's to be reached.
    cache = default_directory().with_name(default_directory().name + "-cache")
    cli = asyncio.run(obtain_cli(cache, lambda line: print(line, file=sys.stderr)))
    return run_enclosed(
        [sys.executable, "-m", "tests.bench.rto", *arguments],
        env={CLI_VARIABLE: str(cli), ADDRESS_VARIABLE: "", "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def main() -> None:
    arguments = sys.argv[1:]
    options = parse(arguments)
    try:
        if not is_inside():
            sys.exit(outside(options, arguments))
        ends_on_sigterm()
        began = time.monotonic()
        measured = asyncio.run(bench(options))
        sys.exit(report(options, measured, time.monotonic() - began))
    except LabError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
