"""Findings of scanners, and those that pyproject.toml justifies one by one."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from qnwis.continuity.model import Model

TABLE = "qnwis-security"


class Finding(Model):
    check: str
    """As the scanner names it."""
    file: str
    """From the repository's root; of a package, its name and version."""
    says: str


class Justified(Model):
    """Findings that were looked at and are none."""

    check: str
    file: str
    count: int = 1
    """So many, so that one more in the same file is seen."""
    why: str


def load_justified(pyproject: Path) -> tuple[Justified, ...]:
    table = tomllib.loads(pyproject.read_text())["tool"][TABLE]
    return tuple(Justified.model_validate(one) for one in table["justified"])


def open_findings(
    found: Sequence[Finding], justified: Iterable[Justified], checks: Iterable[str]
) -> list[str]:
    """What is left to be fixed or justified, a line each; also what is justified and not found any more.
    `checks`: those that were made."""
    counted, made = Counter((one.check, one.file) for one in found), set(checks)
    allowed = {(one.check, one.file): one.count for one in justified}
    left = [
        f"{one.file}: {one.check}: {one.says}"
        for one in found
        if counted[one.check, one.file] > allowed.get((one.check, one.file), 0)
    ]
    stale = [
        f"{file}: {check}: justified {count} times and found {counted[check, file]} times"
        for (check, file), count in allowed.items()
        if counted[check, file] < count and check in made
    ]
    return left + stale
