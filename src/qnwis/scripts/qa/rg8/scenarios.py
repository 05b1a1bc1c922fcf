"""The scenario corpus: every story of `tests/scenarios`, played in simulated time and judged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .found import Found, Measured, environment, found, repository

NAME = "scenarios"
HOLDS = (
    "every story of tests/scenarios is played (in simulated time), and no invariant and no expectation is"
    " violated"
)
LONGEST_S = 900


def check(top: Path | None = None) -> Found:
    top = top or repository()
    stories = sorted(path.stem for path in (top / "tests" / "scenarios").glob("*.yaml"))
    if not stories:
        return found(NAME, HOLDS, [f"{top / 'tests' / 'scenarios'} has no story, expected some"])
    command = [sys.executable, "-m", "tests.chaos", "--simulated"]
    try:
        ran = subprocess.run(
            command, cwd=top, env=environment(top), capture_output=True, text=True, timeout=LONGEST_S
        )
    except subprocess.TimeoutExpired:
        return found(NAME, HOLDS, [f"the stories took more than {LONGEST_S} s"])
    lines = ran.stdout.splitlines()
    played = [line.split()[0] for line in lines if line.strip()]
    misses = [f"{story} was not played" for story in stories if not _is_among(story, played)]
    if ran.returncode != 0:
        told = [line.strip() for line in (*lines, *ran.stderr.splitlines()) if line.strip()]
        misses.append(f"`python -m tests.chaos --simulated` ended with {ran.returncode}: {_violated(told)}")
    return found(NAME, HOLDS, misses, [Measured(what="stories", value=len(stories))])


def _is_among(story: str, played: list[str]) -> bool:
    """The table cuts long names short."""
    return any(name == story or (name.endswith("…") and story.startswith(name[:-1])) for name in played)


def _violated(lines: list[str]) -> str:
    """Which stories, and what was violated; else what it said last."""
    told = [line for line in lines if "with violations: " in line or line.startswith("VIOLATED")]
    return "; ".join(told[:6] or lines[-1:])
