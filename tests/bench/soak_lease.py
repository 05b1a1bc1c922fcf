"""How often a healthy primary on a loaded machine is fenced: never, if the lease terms are right.

    make soak-lease MINUTES=60
    make soak-lease MINUTES=60 SETTING=fastest

A lab with the default terms, or with those of another setting of `make bench-rto`; four clients that write as
fast as they can, and two busy processes. Prints how many leases ran out and the least that was ever left of
one when it was renewed; fails if any ran out. `ARGS=--json` prints it as JSON, `ARGS='--write
docs/benchmarks.md'` has its section of that page written anew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from qnwis.continuity.lease_messages import LeaseTerms
from qnwis.lab.cluster import Lab
from qnwis.lab.errors import LabError
from qnwis.lab.shape import Shape

from .document import Row, markdown_table, text_table, write_section
from .ending import ends_on_sigterm
from .machine import machine
from .rto.settings import DEFAULT, OUR_TERMS

BUSY_PROCESSES = 2
SAY_EVERY_S = 60.0
NOTHING = 4
"""Exit code: no lab could be started."""
HEAD: Row = ("setting", "lease, s", "renewed every, s", "minutes", "leases over", "least left, s", "writes")


@dataclass(frozen=True)
class Found:
    """Of one soak."""

    setting: str
    duration_s: float
    renew_every_s: float
    minutes: float
    leases_over: int
    """That ran out, though their primaries were healthy."""
    least_left_s: float
    """Of any lease when it was renewed."""
    of_s: float
    """For so long a lease that is new lets its primary serve."""
    writes: int

    @property
    def row(self) -> Row:
        return (
            self.setting,
            f"{self.duration_s:g}",
            f"{self.renew_every_s:g}",
            f"{self.minutes:.0f}",
            str(self.leases_over),
            f"{self.least_left_s:.2f} of {self.of_s:.2f}",
            str(self.writes),
        )


async def soak(setting: str, minutes: float, directory: Path) -> Found:
    """Raises LabError where there is no lab to begin with."""
    terms = OUR_TERMS[setting].lease
    lab = await Lab.create(directory, shape=Shape(lease=terms))
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BUSY_PROCESSES)]
    try:
        await lab.start_clients()
        began = time.monotonic()
        end = began + 60 * minutes
        while (left_s := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left_s, SAY_EVERY_S))
            so_far = found(lab, setting, terms, (time.monotonic() - began) / 60)
            print(text_table(HEAD, [so_far.row]), file=sys.stderr, flush=True)
        return found(lab, setting, terms, (time.monotonic() - began) / 60)
    finally:
        for process in busy:
            process.kill()
        await lab.stop()


def found(lab: Lab, setting: str, terms: LeaseTerms, minutes: float) -> Found:
    serves_s = terms.held_s - terms.stop_margin_s
    left = [float(line["left_s"]) for line in events(lab, "lease_renewed_with_least_left")]
    with lab.folder.history.open("rb") as log:  # too long to be held in memory
        writes = sum(b'"acknowledged"' in line for line in log)
    return Found(
        setting=setting,
        duration_s=terms.duration_s,
        renew_every_s=terms.renew_every_s,
        minutes=minutes,
        leases_over=len(events(lab, "lease_over")),
        least_left_s=min(left, default=serves_s),
        of_s=serves_s,
        writes=writes,
    )


def events(lab: Lab, name: str) -> list[dict[str, str]]:
    """The events of that name in the agents' logs."""
    lines = [
        json.loads(line)
        for node in lab.cluster.nodes
        for line in (lab.folder.logs / f"agent-{node.node_id}.log").read_text().splitlines()
        if line.startswith("{")
    ]
    return [line for line in lines if line["event"] == name]


def section(one: Found) -> list[str]:
    """The paragraphs of this soak in the document."""
    return [
        "## Is a healthy primary ever fenced?",
        "Written by `make soak-lease`. A lab whose clients write as fast as they can, beside"
        f" {BUSY_PROCESSES} processes that are busy without end: a lease that runs out here ends a primary"
        " that is well.",
        f"- {machine()}",
        markdown_table(HEAD, [one.row]),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.bench.soak_lease")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--setting", choices=OUR_TERMS, default=DEFAULT)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp/qnwis-soak-lease"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", type=Path, help="a document whose section is replaced by the result")
    options = parser.parse_args()
    if options.minutes <= 0:
        parser.error(f"--minutes: {options.minutes:g}; expected more than 0")
    ends_on_sigterm()
    try:
        one = asyncio.run(soak(options.setting, options.minutes, options.directory))
    except LabError as error:
        print(f"no lab: {error}", file=sys.stderr)
        return NOTHING
    if options.write is not None:
        write_section(options.write, "make soak-lease", section(one))
    if options.json:
        print(json.dumps({"measured_on": machine(), **asdict(one)}, indent=1))
    else:
        print(text_table(HEAD, [one.row]))
    return 1 if one.leases_over else 0


if __name__ == "__main__":
    sys.exit(main())
