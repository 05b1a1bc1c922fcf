"""`make bench-overhead`.

python -m tests.bench.overhead --rounds 10 --write docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from qnwis.lab.errors import LabError
from qnwis.lab.temporal_server import CLI_VERSION
from tests.bench.document import markdown_table, text_table, write_section
from tests.bench.ending import ends_on_sigterm
from tests.bench.machine import machine

from .bed import made
from .figures import GOAL_MS, HEAD, Round, failures, rows

WARM_UP = 2
"""Rounds that do not count: programs are loaded, caches filled, and either has gone both ways."""
NOTHING = 4
"""Exit code: no lab could be started, or a switchover in it failed."""


async def measured(rounds: int, directory: Path) -> list[Round]:
    found: list[Round] = []
    async with made(directory) as bed:
        for number in range(-WARM_UP, rounds):
            one = await bed.round(number)
            found += [one] if number >= 0 else []
            print(
                f"{'warm-up' if number < 0 else f'round {number + 1}'}: run {one.run_ms:.0f} ms,"
                f" script {one.script_ms:.0f} ms, difference {one.difference_ms:.0f} ms,"
                f" overhead {one.overhead_ms:.0f} ms ({one.calls} calls, {one.attempts} attempts)",
                file=sys.stderr,
                flush=True,
            )
    return found


def section(rounds: Sequence[Round], measured_on: str) -> list[str]:
    """The paragraphs of this bench in the document."""
    return [
        "## Overhead of a run",
        "Written by `make bench-overhead`. Planned switchovers of a lab without clients, in turns by a run of"
        " the runbook and by a script that makes the same calls without Temporal. The goal is that the"
        f" medians of overhead and difference are under {GOAL_MS:.0f} ms; lines with a dot are the overhead,"
        " by what the run waited for.",
        f"- {measured_on}\n- Temporal CLI {CLI_VERSION}, its development server on the same machine\n"
        f"- {len(rounds)} rounds of {rounds[0].calls} calls each",
        markdown_table(HEAD, rows(rounds)),
        *(f"**Missed:** {failure}." for failure in failures(rounds)),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.bench.overhead")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp/qnwis-overhead"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", type=Path, help="a document whose section is replaced by the result")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds: {options.rounds}; expected at least 1")
    ends_on_sigterm()
    try:
        rounds = asyncio.run(measured(options.rounds, options.directory.absolute()))
    except LabError as error:
        print(f"nothing was measured: {error}", file=sys.stderr)
        return NOTHING
    missed = failures(rounds)
    if options.write is not None:
        write_section(options.write, "make bench-overhead", section(rounds, machine()))
    if options.json:
        told = [
            {
                **one.model_dump(mode="json"),
                "overhead_ms": one.overhead_ms,
                "difference_ms": one.difference_ms,
            }
            for one in rounds
        ]
        whole = {"machine": machine(), "goal_ms": GOAL_MS, "rounds": told, "failures": missed}
        print(json.dumps(whole, indent=1))
    else:
        print(text_table(HEAD, rows(rounds)))
    print("\n".join(missed), file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
