"""Speed of planning, verification and simulation, and of the HTTP API.

    make bench
    make bench ARGS='-k planning'

Prints tables; fails where a target is missed. What is in `ARGS` goes to pytest, besides this:

`ARGS=--json` prints every figure as JSON; `ARGS='--write docs/benchmarks.md'` has its section of that page
written anew.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .document import Row, markdown_table, text_table, write_section
from .machine import machine
from .test_bench_api import CLIENTS, EACH
from .test_bench_domain import ROUNDS

PYTEST = (sys.executable, "-m", "pytest", "tests/bench", "-q", "-m", "bench", "--benchmark-only")
DOMAIN_HEAD: Row = ("what", "P95, ms", "target, ms")
API_HEAD: Row = ("what", "P50, ms", "P99, ms")


@dataclass(frozen=True)
class Figures:
    """Of one benchmark, milliseconds: with a target its P95, else median and P99."""

    what: str
    p95_ms: float | None = None
    target_ms: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None


def figures_of(written: dict[str, Any]) -> list[Figures]:
    """From what pytest-benchmark wrote."""
    known = Figures.__dataclass_fields__
    return [
        Figures(**{name: value for name, value in one["extra_info"].items() if name in known})
        for one in written["benchmarks"]
    ]


def domain_rows(figures: Sequence[Figures]) -> list[Row]:
    return [
        (one.what, f"{one.p95_ms:.1f}", f"{one.target_ms:g}") for one in figures if one.p95_ms is not None
    ]


def api_rows(figures: Sequence[Figures]) -> list[Row]:
    return [(one.what, f"{one.p50_ms:.1f}", f"{one.p99_ms:.1f}") for one in figures if one.p99_ms is not None]


def section(figures: Sequence[Figures]) -> list[str]:
    """The paragraphs of this bench in the document."""
    paragraphs = ["## Decisions and the API", f"Written by `make bench`. {machine()}."]
    if domain := domain_rows(figures):
        paragraphs += [
            f"CPU time; the 95th percentile of one series of {ROUNDS}.",
            markdown_table(DOMAIN_HEAD, domain),
        ]
    if api := api_rows(figures):
        paragraphs += [
            f"The time of an answer with {CLIENTS} clients at once, {EACH} requests each, in one process and"
            " without a network; with the door (credentials, permissions, limits) and without it.",
            markdown_table(API_HEAD, api),
        ]
    return paragraphs


def report(figures: Sequence[Figures], *, as_json: bool) -> str:
    if as_json:
        told = [{name: v for name, v in asdict(one).items() if v is not None} for one in figures]
        return json.dumps({"machine": machine(), "figures": told}, indent=1)
    tables = [(DOMAIN_HEAD, domain_rows(figures)), (API_HEAD, api_rows(figures))]
    return "\n\n".join(text_table(head, rows) for head, rows in tables if rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.bench")
    parser.add_argument("--json", action="store_true", help="every figure")
    parser.add_argument("--write", type=Path, help="a document whose section is replaced by the result")
    options, for_pytest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "figures.json"
        ran = subprocess.run(
            [*PYTEST, f"--benchmark-json={written}", *for_pytest], stdout=sys.stderr.fileno()
        ).returncode
        # Without a benchmark nothing is written, or a file without content.
        text = written.read_text() if written.exists() else ""
    if not text:
        return ran or 1
    figures = figures_of(json.loads(text))
    print(report(figures, as_json=options.json))
    if options.write is not None and figures:
        write_section(options.write, "make bench", section(figures))
    return ran


if __name__ == "__main__":
    sys.exit(main())
