"""What a check found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from qnwis.continuity.model import Model


class Verdict(StrEnum):
    PASSED = "passed"
    MISSED = "missed"
    NOT_RUN = "not run"  # something that it needs is not here; never counts as passed


class Measured(Model):
    """A figure of this machine, in this run."""

    what: str
    value: float
    limit: float | None = None
    unit: str = ""

    def __str__(self) -> str:
        below = "" if self.limit is None else f", limit {self.limit:g} {self.unit}".rstrip()
        return f"{self.what}: {self.value:g} {self.unit}".rstrip() + below

    @property
    def exceeds(self) -> bool:
        return self.limit is not None and not self.value < self.limit


class Found(Model):
    name: str
    holds: str
    """What is true of the project if it passed, one sentence."""
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    """Why it is missed, or could not be run: each names what was found and what was expected."""
    measured: tuple[Measured, ...] = ()
    notes: tuple[str, ...] = ()
    """What this machine could not compare, and the like."""


class NotHere(Exception):
    """What a check needs is not on this machine: it is not run, and says so."""


def found(
    name: str,
    holds: str,
    misses: Sequence[str],
    measured: Sequence[Measured] = (),
    notes: Sequence[str] = (),
) -> Found:
    """Passed without misses. A figure that is not below its limit is one."""
    beyond = [
        f"{one.what} is {one.value:g} {one.unit}, expected below {one.limit:g} {one.unit}"
        for one in measured
        if one.exceeds
    ]
    reasons = (*misses, *beyond)
    return Found(
        name=name,
        holds=holds,
        verdict=Verdict.MISSED if reasons else Verdict.PASSED,
        reasons=reasons,
        measured=tuple(measured),
        notes=tuple(notes),
    )


def environment(top: Path | None = None) -> dict[str, str]:
    """Of a process that runs this project, or that of another source tree."""
    source = Path(__file__).resolve().parents[4]
    places = [str(source), str(source.parent)] if top is None else [str(top / "src"), str(top)]
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*places, *([inherited] if inherited else [])])}


def repository() -> Path:
    """The source tree that this program is part of. Raises NotHere where it is an installed package."""
    top = Path(__file__).resolve().parents[5]
    if (top / "pyproject.toml").exists() and (top / "tests" / "scenarios").is_dir():
        return top
    raise NotHere(
        f"it needs the files of the repository (tests, docs, grafana), and {top} has none of them: this is an"
        " installed package; run `make gate` in a clone of the repository"
    )
