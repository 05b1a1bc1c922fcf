"""Documents: what they name is there. Links lead somewhere, commands, make targets and tests exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from qnwis.cli.qnwis_continuity import COMMANDS

from .found import Found, Measured, found, repository

NAME = "documents"
HOLDS = (
    "README.md, SECURITY.md and docs/ name nothing that is not there (links, commands, make targets, tests),"
    " and every runbook has its text"
)
PAGES = ("README.md", "SECURITY.md", "docs/guarantees.md", "docs/security.md")
"""There always."""
RUNBOOKS = ("primary_failure", "planned_maintenance", "region_failure")


def check(top: Path | None = None) -> Found:
    top = top or repository()
    pages = [top / "README.md", top / "SECURITY.md", *sorted((top / "docs").rglob("*.md"))]
    there = [page for page in pages if page.exists()]
    misses = [f"{name} is not there" for name in PAGES if not (top / name).exists()]
    misses += [
        f"runbooks/{name}.md is not there"
        for name in RUNBOOKS
        if not (top / "runbooks" / f"{name}.md").exists()
    ]
    tests = "\n".join(path.read_text() for path in (top / "tests").rglob("test_*.py"))
    targets = _targets((top / "Makefile").read_text())
    for page in there:
        where = page.relative_to(top)
        misses += [f"{where} names {what}" for what in _missing(page, tests, targets)]
    return found(NAME, HOLDS, misses, [Measured(what="pages", value=len(there))])


def _missing(page: Path, tests: str, targets: set[str]) -> Iterator[str]:
    text = page.read_text()
    for link in sorted(set(re.findall(r"\]\(([^)#:]+)\)", text))):
        if not (page.parent / link).exists():
            yield f"the file {link}, which is not there"
    for name in sorted(set(re.findall(r"`(test_\w+)`", text))):
        if f"def {name}(" not in tests:
            yield f"the test {name}, which is not there"
    for target in sorted(set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", text, flags=re.MULTILINE))):
        if target not in targets:
            yield f"`make {target}`, which the Makefile does not have"
    for command in sorted(
        set(re.findall(r"(?:`|^)qnwis-continuity ([a-z][a-z-]*)", text, flags=re.MULTILINE))
    ):
        if command not in COMMANDS:
            yield f"`qnwis-continuity {command}`, which is no command"


def _targets(makefile: str) -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.MULTILINE))
