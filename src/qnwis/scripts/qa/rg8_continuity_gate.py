"""The RG-8 gate: what the specification asks of continuity, checked.

    make gate
    python src/qnwis/scripts/qa/rg8_continuity_gate.py [--only NAME …] [--without NAME …]
    python -m qnwis.scripts.qa.rg8_continuity_gate

Writes `docs/audit/rg8/CONTINUITY_SUMMARY.md`, and every verdict, reason and figure as JSON beside it
(`continuity_summary.json`). Ends with 0 if every check passed, 1 if one is missed (each with what was found
and what was expected), 3 if none is missed and one could not be run here, or was left out.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[4]
"""Of the source tree, where this is one."""


def _with_what_it_needs(error: ModuleNotFoundError) -> None:
    """Run by an interpreter that has not what the project needs: go on as the one that has it."""
    own = TOP / ".venv" / "bin" / "python"
    if own.exists() and Path(sys.prefix) != own.parents[1]:
        os.execv(own, [str(own), *sys.argv])
    sys.exit(
        f"{error}: this interpreter ({sys.executable}) cannot run the project;"
        " `make gate` installs what it needs"
    )


if __name__ == "__main__":
    # By its path alone, the packages beside it are not found by themselves.
    sys.path[:0] = [place for place in (str(TOP / "src"), str(TOP)) if place not in sys.path]

try:
    from qnwis.scripts.qa.rg8 import (
        audit,
        dashboards,
        determinism,
        documents,
        execution,
        histories,
        metric_names,
        rbac,
        scenarios,
        summary,
        targets,
    )
    from qnwis.scripts.qa.rg8.found import Found, NotHere, Verdict, repository
except ModuleNotFoundError as error:
    _with_what_it_needs(error)
    raise

PASSED, MISSED, USAGE, NOT_RUN = 0, 1, 2, 3
MODULES = (
    targets,
    execution,
    determinism,
    scenarios,
    histories,
    rbac,
    audit,
    metric_names,
    dashboards,
    documents,
)
HOLDS = {module.NAME: module.HOLDS for module in MODULES}
SIGNS = {Verdict.PASSED: "✓", Verdict.MISSED: "✗", Verdict.NOT_RUN: "–"}

Check = Callable[[], Found]


def _say(line: str) -> None:
    print(line, flush=True)


def checks(interpreters: Sequence[str] = ()) -> dict[str, Check]:
    """By name, in the order in which they are run."""
    every: dict[str, Check] = {module.NAME: module.check for module in MODULES}
    if interpreters:
        given = dict(zip(interpreters, interpreters, strict=True))
        every[determinism.NAME] = partial(determinism.check, {**determinism.others_here(), **given})
    return every


def gate(
    every: Mapping[str, Check],
    *,
    without: Sequence[str] = (),
    say: Callable[[str], None] = _say,
) -> list[Found]:
    """Run the checks, each to its end whatever the others came to."""
    results = []
    for name, check in every.items():
        result = _left_out(name, "it was left out") if name in without else _run(name, check)
        say(f"{SIGNS[result.verdict]} {name:13} {result.verdict.value}")
        for line in (*result.reasons, *map(str, result.measured), *result.notes):
            say(f"    {line}")
        results.append(result)
    return results


def _run(name: str, check: Check) -> Found:
    try:
        return check()
    except NotHere as error:
        return _left_out(name, str(error))
    except Exception as error:
        # A check that breaks has shown nothing; the others still have their say.
        reason = f"the check itself ended with {type(error).__name__}: {error}"
        return Found(name=name, holds=HOLDS.get(name, ""), verdict=Verdict.MISSED, reasons=(reason,))


def _left_out(name: str, why: str) -> Found:
    return Found(name=name, holds=HOLDS.get(name, ""), verdict=Verdict.NOT_RUN, reasons=(why,))


def main(arguments: Sequence[str] | None = None, every: Mapping[str, Check] | None = None) -> int:
    options = _options(arguments)
    results = gate(
        every or checks(options.interpreter),
        without=[
            name for name in HOLDS if name in options.without or (options.only and name not in options.only)
        ],
    )
    folder = options.output or _folder()
    if folder is not None and not options.only:
        for path in summary.write(results, folder):
            print(path)
    verdict = summary.verdict(results)
    print(f"RG-8: {verdict.value}")
    for result in results:
        if result.verdict is not Verdict.PASSED:
            print(f"  {result.name} ({result.verdict.value}): {'; '.join(result.reasons)}")
    return {Verdict.PASSED: PASSED, Verdict.MISSED: MISSED, Verdict.NOT_RUN: NOT_RUN}[verdict]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="rg8_continuity_gate", description="Checks what the specification asks of continuity."
    )
    one_of: dict[str, Any] = {"action": "append", "default": [], "choices": list(HOLDS)}
    parser.add_argument("--only", help="this check; nothing is written then", **one_of)
    parser.add_argument("--without", help="leave this check out; the gate is not passed then", **one_of)
    parser.add_argument("--interpreter", action="append", default=[], help="compare with this one, too")
    parser.add_argument("--output", type=Path, help=f"folder of the summary; by default {summary.FOLDER}")
    return parser.parse_args(arguments)


def _folder() -> Path | None:
    try:
        return repository() / summary.FOLDER
    except NotHere:
        print("no summary is written: this is an installed package; --output names a folder for it")
        return None


if __name__ == "__main__":
    sys.exit(main())
