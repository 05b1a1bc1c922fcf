"""How often a healthy primary on a loaded machine is fenced: never, if the lease terms are right.

    make soak-lease MINUTES=60
    make soak-lease MINUTES=60 SETTING=fastest

A lab with the default terms, or with those of another setting of `make bench-rto`; four clients that write as
fast as they can, and two busy processes. Prints how many leases ran out and the least that was ever left of
one when it was renewed; fails if any ran out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

from qnwis.continuity.lease_messages import LeaseTerms
from qnwis.lab.cluster import Lab
from qnwis.lab.shape import Shape

from .rto.settings import DEFAULT, OUR_TERMS

BUSY_PROCESSES = 2
SAY_EVERY_S = 60.0


async def soak(minutes: float, directory: Path, terms: LeaseTerms) -> bool:
    """Whether no lease ran out."""
    lab = await Lab.create(directory, shape=Shape(lease=terms))
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BUSY_PROCESSES)]
    try:
        await lab.start_clients()
        end = time.monotonic() + 60 * minutes
        while (left_s := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left_s, SAY_EVERY_S))
            print(f"{minutes - (end - time.monotonic()) / 60:.0f} min: {summary(lab, terms)}", flush=True)
        return not events(lab, "lease_over")
    finally:
        for process in busy:
            process.kill()
        await lab.stop()


def summary(lab: Lab, terms: LeaseTerms) -> str:
    serves_s = terms.held_s - terms.stop_margin_s
    left = [float(line["left_s"]) for line in events(lab, "lease_renewed_with_least_left")]
    with lab.folder.history.open("rb") as log:  # too long to be held in memory
        writes = sum(b'"acknowledged"' in line for line in log)
    return (
        f"{len(events(lab, 'lease_over'))} leases over; the least left of one at a renewal"
        f" {min(left, default=serves_s):.2f} s of {serves_s:.2f} s; {writes} writes"
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--setting", choices=OUR_TERMS, default=DEFAULT)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp/qnwis-soak-lease"))
    arguments = parser.parse_args()
    lease = OUR_TERMS[arguments.setting].lease
    sys.exit(0 if asyncio.run(soak(arguments.minutes, arguments.directory, lease)) else 1)
