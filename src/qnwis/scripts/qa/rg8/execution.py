"""The execution of a plan stays within its policy: measured on a real failover, in the lab.

Three PostgreSQL nodes with their agents, a DNS server, Temporal, clients that write; the primary's node is
killed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from .found import Found, Measured, NotHere, environment, found

NAME = "execution"
HOLDS = (
    "a killed primary is failed over and verified, no acknowledged write is lost, and the execution takes"
    " less than the policy's max_failover_time_s"
)
POLICY_MS = 60_000
"""The lab's policy has the specification's default."""
COMMAND = (sys.executable, "-m", "qnwis.cli.qnwis_continuity", "lab", "demo", "--json")
LONGEST_S = 600


def check(demo: Callable[[], dict[str, Any]] | None = None) -> Found:
    report = (demo or run_demo)()
    took_ms = {step["name"]: step["elapsed_ms"] for step in report["result"]["steps"]}
    misses = []
    if not report["verified"]:
        refusal = report["result"].get("refusal")
        why = "" if refusal is None else f" ({refusal['message']})"
        misses.append(f"the failover ended {report['result']['outcome']}{why}, expected it verified")
    # Where no new primary is, none was asked what it has.
    if report["result"].get("new_primary") and (lost := report["writes"]["lost"]):
        misses.append(f"{len(lost)} acknowledged writes are lost, expected none")
    if took_ms.get("execution") is None:
        misses.append("the run has no execution, expected one")
        return found(NAME, HOLDS, misses)
    return found(
        NAME,
        HOLDS,
        misses,
        [
            Measured(what="execution", value=round(took_ms["execution"]), limit=POLICY_MS, unit="ms"),
            *(
                Measured(what=what, value=round(report[field]), unit="ms")
                for what, field in (
                    ("time to detect", "detect_ms"),
                    ("writes acknowledged again", "writes_back_ms"),
                )
                if report[field] is not None
            ),
        ],
    )


def run_demo() -> dict[str, Any]:
    """What `lab demo --json` measured. Raises NotHere where there can be no lab."""
    try:
        ran = subprocess.run(COMMAND, env=environment(), capture_output=True, text=True, timeout=LONGEST_S)
    except subprocess.TimeoutExpired as error:
        raise NotHere(f"`lab demo` did not end within {LONGEST_S} s") from error
    try:
        report: dict[str, Any] = json.loads(ran.stdout)
    except ValueError as error:
        # What it does begins with a dot; what stopped it comes after that, before the logs of its parts.
        said = [line for line in ran.stderr.splitlines() if line.strip() and not line.startswith("·")]
        why = (said or ["it said nothing"])[0]
        raise NotHere(f"`lab demo` ended with {ran.returncode} and no report: {why}") from error
    return report
