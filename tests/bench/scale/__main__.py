"""`make bench-scale`: measures each number of clusters in turn, and says how the figures grow.

    python -m tests.bench.scale --clusters 10,100 --seconds 30 --region-up-to 0 --json

Exits non-zero when a goal is missed, a run came to no good end, or something could not be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qnwis.lab.errors import LabError
from qnwis.lab.layout import default_directory
from qnwis.lab.temporal_server import obtain_cli
from tests.bench.document import text_table, write_section
from tests.bench.ending import ends_on_sigterm
from tests.bench.machine import machine

from .bed import KEPT, keep_logs, made, stop_what_is_left
from .beside import compared, missing, version
from .control import How
from .counting import SLACK_S, deadline_s
from .figures import Figures
from .goals import failures, goals
from .measure import SCRAPE_EVERY_S, Plan, measured
from .pictures import SHOWS, pictures
from .table import GOAL_HEAD, goal_rows, head, rows, section
from .world import HEARTBEAT, MOST_CLUSTERS, NODES

CORES = 2
BED = "bed"
WAVE_SIZE = 40
"""So that a hundred clusters leave in three waves."""
REGION_UP_TO = 200
"""With more, two cores are too busy to move a wave of that size: of a thousand, some runs of a wave took
longer than the policy's 60 s and were rolled back."""
IMAGES = "images"
"""Beside the document."""


@dataclass(frozen=True)
class Options:
    clusters: Sequence[int]
    plan: Plan
    beside: bool
    blackbox: bool
    directory: Path
    json: bool
    write: Path | None


def parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="tests.bench.scale")
    parser.add_argument("--clusters", default="10,100,200,1000", help="how many, one number after the other")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each phase without an event")
    flag = argparse.BooleanOptionalAction
    parser.add_argument(
        "--region-up-to",
        type=int,
        default=REGION_UP_TO,
        help="regions are lost where no more clusters are held; 0 for nowhere",
    )
    parser.add_argument("--beside", action=flag, default=True, help="whether others ask the same")
    parser.add_argument("--blackbox", action=flag, default=True, help="the exporter among them")
    parser.add_argument(
        "--wave-size", type=int, default=WAVE_SIZE, help="clusters that leave at the same time"
    )
    parser.add_argument("--how", type=How, choices=list(How), default=How.KILLED, help="how primaries fail")
    parser.add_argument("--ready-within", type=float, default=300.0, help="seconds, for each number")
    parser.add_argument("--seed", type=int, default=1, help="of the moments at which primaries fail")
    parser.add_argument(
        "--directory", type=Path, default=Path("/var/tmp/qnwis-scale"), help="made anew; keeps figures, logs"
    )
    parser.add_argument("--json", action="store_true", help="every figure, and the goals")
    parser.add_argument("--write", type=Path, help="a document whose section is replaced by the result")
    found = parser.parse_args(arguments)
    clusters = [int(text) for text in found.clusters.split(",") if text.isdigit()]
    if not clusters or len(clusters) != len(found.clusters.split(",")):
        parser.error(f"--clusters: {found.clusters!r}; expected numbers with commas between them")
    if not all(0 < number <= MOST_CLUSTERS for number in clusters):
        parser.error(f"--clusters: {found.clusters}; expected 1 to {MOST_CLUSTERS}")
    if found.wave_size < 1:
        parser.error(f"--wave-size: {found.wave_size}; expected at least 1")
    return Options(
        clusters=sorted(clusters),
        plan=Plan(
            seconds=found.seconds,
            region_up_to=found.region_up_to,
            wave_size=found.wave_size,
            how=found.how,
            ready_within_s=found.ready_within,
            seed=found.seed,
        ),
        beside=found.beside,
        blackbox=found.beside and found.blackbox,
        directory=found.directory.absolute(),
        json=found.json,
        write=found.write,
    )


def say(line: str) -> None:
    print(f"· {line}", file=sys.stderr, flush=True)


async def bench(options: Options) -> list[Figures]:
    cli = await obtain_cli(default_directory().with_name(default_directory().name + "-cache"), say)
    every = []
    for clusters in options.clusters:
        root = options.directory / BED
        shutil.rmtree(root, ignore_errors=True)
        try:
            async with made(root, cli, clusters, wave_size=options.plan.wave_size) as bed:
                figures = await measured(bed, clusters, options.plan, say)
                if options.beside:
                    say(f"the same questions of {clusters} clusters by others")
                    seconds = options.plan.seconds
                    others = await compared(bed, clusters, seconds, blackbox=options.blackbox)
                    figures = figures.model_copy(update={"beside": others})
        except LabError as error:
            figures = Figures(clusters=clusters, problem=str(error))
        keep_logs(root, options.directory / "logs" / str(clusters))
        with (options.directory / KEPT).open("a") as log:  # outlives a run that is broken off
            log.write(figures.model_dump_json() + "\n")
        every.append(figures)
    return every


def report(options: Options, every: Sequence[Figures], took_s: float) -> int:
    reached, why = goals(every), failures(every)
    if options.write is not None:
        _write(options.write, options, every, took_s)
    if options.json:
        whole = {
            "machine": measured_on(options),
            "figures": [figures.model_dump(mode="json") for figures in every],
            "goals": [goal.model_dump(mode="json") for goal in reached],
            "failures": why,
        }
        print(json.dumps(whole, indent=1))
    else:
        print("\n".join(measured_on(options)))
        print("\n" + text_table(head(every), rows(every)))
        print("\n" + text_table(GOAL_HEAD, goal_rows(reached)))
        print("\n" + "\n".join(how(options)))
        print("\n".join(why), file=sys.stderr)
    return 1 if why else 0


def _write(document: Path, options: Options, every: Sequence[Figures], took_s: float) -> None:
    images = document.parent / IMAGES
    images.mkdir(exist_ok=True)
    drawn = pictures(every)
    for name, svg in drawn.items():
        (images / f"{name}.svg").write_text(svg)
    paragraphs = section(
        every,
        goals(every),
        measured_on=[*measured_on(options), f"in {took_s / 60:.0f} minutes"],
        how=how(options),
        pictures=[(SHOWS[name], f"{IMAGES}/{name}.svg") for name in drawn],
        failures=failures(every),
    )
    write_section(document, "make bench-scale", paragraphs)


def measured_on(options: Options) -> list[str]:
    used = len(os.sched_getaffinity(0))
    lines = [f"{machine()}; all processes on {used} cores"]
    return [*lines, version()] if options.blackbox else lines


def how(options: Options) -> list[str]:
    """What the figures mean."""
    plan, heartbeat = options.plan, HEARTBEAT
    return [
        f"{NODES} nodes a cluster, asked every {heartbeat.interval_sec:g} s (jitter"
        f" {heartbeat.jitter_percent:g} %, timeout {heartbeat.timeout_sec:g} s,"
        f" {heartbeat.failure_threshold} misses, watch_timeout_sec {heartbeat.watch_timeout_sec:g}) by one"
        f" vantage; without TLS; {plan.seconds:g} s in which nothing happens, but that the worker's metrics"
        f" are scraped every {SCRAPE_EVERY_S:g} s.",
        "CPU per question: of the worker process, all it does included, less what it takes without a cluster;"
        " a bare loop and the exporter likewise. Each health question counts: heartbeats, readiness, deep"
        " checks.",
        f"A heartbeat is past its deadline when it comes more than {deadline_s(heartbeat):g} s after the one"
        f" before (interval, jitter and {SLACK_S:g} s of slack), as the agents' server sees it.",
        f"Failure to the run's start: the primary is {plan.how.value}; from then to the run's start by"
        " Temporal's clock.",
        "Regions: their nodes are silent, as if their hosts were gone, and a person begins the evacuation"
        f" when every guardian has found it, in waves of {plan.wave_size} clusters. The guardians of these"
        " clusters are paused, so that nobody else moves them. Not tried where more than"
        f" {plan.region_up_to:,} clusters are held (--region-up-to): the cores are busy with holding them,"
        " and waves have to be smaller.",
        "Worker killed: from the start of another one until every guardian sees every node by it; for"
        f" {heartbeat.watch_timeout_sec:g} s (watch_timeout_sec) Temporal does not know that the first is"
        " gone.",
        "Databases are not there: what an order does takes no time. DNS is the lab's nameserver.",
    ]


def prepare(directory: Path) -> None:
    """Make it anew. Raises LabError for a folder that is no earlier run's."""
    if directory.exists():
        if not (directory / KEPT).exists():
            raise LabError(f"{directory}: expected a folder with {KEPT}, as this makes it; give another one")
        stop_what_is_left(directory / BED)
        shutil.rmtree(directory)
    directory.mkdir(mode=0o711, parents=True)
    (directory / KEPT).touch()


def main() -> None:
    options = parse(sys.argv[1:])
    if options.blackbox and (lacking := missing()) is not None:
        print(lacking, file=sys.stderr)
        sys.exit(2)
    ends_on_sigterm()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    try:
        prepare(options.directory)
        began = time.monotonic()
        every = asyncio.run(bench(options))
    except LabError as error:
        sys.exit(str(error))
    sys.exit(report(options, every, time.monotonic() - began))


if __name__ == "__main__":
    main()
