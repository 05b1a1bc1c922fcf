"""`docs/PERFORMANCE.md`: what is measured by which command, read off the benches and the Makefile."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from textwrap import dedent

from qnwis.continuity.policy import Policy
from tests.bench.test_bench_domain import PLANNING_MS, SIMULATION_MS, VERIFICATION_MS

from .markdown import cell, table

MAKEFILE = Path(__file__).parents[2] / "Makefile"
TARGET = re.compile(r"^((?:bench|soak)[\w-]*|gate): .*\n\t(.*(?:\n\t.*)*)", re.MULTILINE)


def performance_page() -> str:
    execution_s = Policy.model_fields["max_failover_time_s"].default
    targets = [
        ("planning", f"< {PLANNING_MS} ms, P95", "`make bench`; a miss fails it"),
        ("verification", f"< {VERIFICATION_MS} ms, P95", "`make bench`; a miss fails it"),
        ("simulation", f"< {SIMULATION_MS} ms, P95", "`make bench`; a miss fails it"),
        (
            "execution",
            f"< {execution_s:g} s, by the policy (`max_failover_time_s`)",
            "the verifier, after every run",
        ),
    ]
    parts = [
        "# Performance\n\n",
        "Figures depend on the machine, so this page has none: each command prints them for yours, and"
        " [Benchmarks](benchmarks.md) has what they printed on one. What a running system shows of itself is"
        " in the [metrics](reference/metrics.md).\n\n",
        "## Targets\n\n",
        table(
            ("what", "target", "held by"),
            ((cell(what), cell(target), cell(by)) for what, target, by in targets),
        ),
        "Planning, verification and simulation are pure computations; they are measured in CPU time, for"
        " clusters of 3 and of 1,000 nodes.\n\n",
        "## What measures what\n\n",
        "All but `make bench` start labs of their own on this machine.\n\n",
    ]
    for target, recipe in TARGET.findall(MAKEFILE.read_text()):
        parts.append(f"### make {target}\n\n")
        for module in _modules(recipe):
            source = _source(module)
            parts += [_documented(module), f"[`{source}`](../{source})\n\n"]
    return "".join(parts)


def _source(module: str) -> str:
    """Its file, or the folder of a package."""
    path = Path(import_module(module).__file__ or "").relative_to(MAKEFILE.parent)
    return str(path.parent if path.name == "__init__.py" else path)


def _modules(recipe: str) -> list[str]:
    named = re.search(r"-m ([\w.]+)", recipe)
    assert named is not None, recipe
    if named[1] == "tests.bench":
        return ["tests.bench.__main__", "tests.bench.test_bench_domain", "tests.bench.test_bench_api"]
    return [named[1]]


def _documented(module: str) -> str:
    """The module's own words; what is indented is typed."""
    parts = []
    for block in (import_module(module).__doc__ or "").strip().split("\n\n"):
        typed = block.startswith("    ")
        parts.append(f"```bash\n{dedent(block).strip()}\n```\n\n" if typed else f"{cell(block)}\n\n")
    return "".join(parts)
