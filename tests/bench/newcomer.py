"""How long a newcomer waits: from a clone of the present commit to the first verified failover.

    make bench-newcomer

Clones the commit into a temporary folder, lets `make` install into it as the README says, and runs
`make demo` there. Timed are the clone, the installation, the start of the lab until its guardian sees every
node healthy (a Temporal server is found, downloaded or built in it), and from the kill of the primary to the
verdict. Prints a table; fails where the failover was not verified. pip's cache counts where there is one;
`ARGS=--no-cache` leaves it out.

`ARGS=--json` prints every figure as JSON; `ARGS='--write docs/benchmarks.md'` has its section of that page
written anew.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from .document import Row, markdown_table, text_table, write_section
from .machine import machine

HEAD: Row = ("what", "seconds")
PROJECT = Path(__file__).parents[2]
HEALTHY = "the guardian sees every node healthy"
KILLED = re.compile(r"· \S+ is killed: ")
SERVER = re.compile(r"· (?:.*temporal|no Temporal|TEMPORAL_ADDRESS)", re.IGNORECASE)


@dataclass(frozen=True)
class Newcomer:
    """One newcomer's wait, seconds; None for what was not come to."""

    commit: str
    clone_s: float
    install_s: float
    lab_s: float | None
    """Until the guardian sees every node healthy."""
    server_s: float | None
    """Of that, from the search for a Temporal server on: to find, download or build one, to start it, and for
    worker and vantages to see the nodes."""
    writing_s: float | None
    """From there to the kill: clients write for a while first."""
    failover_s: float | None
    """From the kill to the verdict; clients write on for a while in it."""
    total_s: float
    verified: bool
    report: Mapping[str, object]
    """What the demonstration measured; empty where it ended before that."""


@contextmanager
def timed(into: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    print(f"{name} …", file=sys.stderr, flush=True)
    yield
    into[name] = time.monotonic() - began


def run(*command: str | Path, cwd: Path, env: Mapping[str, str]) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}")
    return done.stdout.strip()


def demonstrate(
    clone: Path, directory: Path, env: Mapping[str, str]
) -> tuple[dict[str, float], Mapping[str, object]]:
    """`make demo`: when it said what, seconds after its start, and its report."""
    said: dict[str, float] = {}
    began = time.monotonic()
    demo = subprocess.Popen(
        ["make", "-s", "demo", f"ARGS=--json --directory {directory}"],
        cwd=clone,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stderr is not None and demo.stdout is not None
    for line in demo.stderr:
        print(line, end="", file=sys.stderr, flush=True)
        at = time.monotonic() - began
        if SERVER.match(line):
            said.setdefault("asked", at)
        if HEALTHY in line:
            said["healthy"] = at
        if KILLED.match(line):
            said["killed"] = at
    text = demo.stdout.read()
    said["ended"] = time.monotonic() - began
    demo.wait()
    return said, json.loads(text) if text else {}


def measure(*, no_cache: bool) -> Newcomer:
    env = {**os.environ, **({"PIP_NO_CACHE_DIR": "1"} if no_cache else {})}
    for name in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"):
        env.pop(name, None)
    took: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="qnwis-newcomer-") as home, _lab_directory() as directory:
        clone, commit = Path(home) / "clone", run("git", "rev-parse", "HEAD", cwd=PROJECT, env=env)
        with timed(took, "clone"):
            run("git", "clone", "-q", "--no-local", PROJECT, clone, cwd=PROJECT, env=env)
            run("git", "checkout", "-q", commit, cwd=clone, env=env)
        with timed(took, "install"):
            run("make", "-s", ".venv/.installed", cwd=clone, env=env)
        said, report = demonstrate(clone, directory, env)
    return Newcomer(
        commit=commit,
        clone_s=took["clone"],
        install_s=took["install"],
        lab_s=said.get("healthy"),
        server_s=_between(said, "asked", "healthy"),
        writing_s=_between(said, "healthy", "killed"),
        failover_s=_between(said, "killed", "ended"),
        total_s=sum(took.values()) + said["ended"],
        verified=report.get("verified") is True,
        report=report,
    )


def _between(said: Mapping[str, float], one: str, other: str) -> float | None:
    return said[other] - said[one] if one in said and other in said else None


@contextmanager
def _lab_directory() -> Iterator[Path]:
    """A lab of its own; programs that are downloaded for it are its own too, as a newcomer has none."""
    with tempfile.TemporaryDirectory(prefix="qnwis-newcomer-lab-", dir="/var/tmp") as home:
        Path(home).chmod(0o711)
        yield Path(home) / "lab"


def rows(found: Newcomer) -> list[Row]:
    parts = [
        ("clone", found.clone_s),
        ("install into .venv", found.install_s),
        ("lab and control plane started", found.lab_s),
        ("of that from the search for a Temporal server on", found.server_s),
        ("clients write before the kill", found.writing_s),
        ("from the kill to the verdict", found.failover_s),
        (
            "from the clone to the first verified failover" if found.verified else "NOT verified, after",
            found.total_s,
        ),
    ]
    return [(name, "–" if took is None else f"{took:.1f}") for name, took in parts]


def section(found: Newcomer, *, no_cache: bool) -> list[str]:
    """The paragraphs of this bench in the document."""
    cache = "without pip's cache" if no_cache else "with what pip's cache has"
    return [
        "## A newcomer's wait",
        f"Written by `make bench-newcomer`. {machine()}; {cache}.",
        markdown_table(HEAD, rows(found)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.newcomer")
    parser.add_argument("--no-cache", action="store_true", help="without pip's cache")
    parser.add_argument("--json", action="store_true", help="every figure")
    parser.add_argument("--write", type=Path, help="a document whose section is replaced by the result")
    options = parser.parse_args()
    found = measure(no_cache=options.no_cache)
    told = {"machine": machine(), "no_cache": options.no_cache, **asdict(found)}
    print(json.dumps(told, indent=1) if options.json else text_table(HEAD, rows(found)))
    if options.write is not None:
        write_section(options.write, "make bench-newcomer", section(found, no_cache=options.no_cache))
    sys.exit(0 if found.verified else 1)


if __name__ == "__main__":
    main()
