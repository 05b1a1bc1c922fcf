"""What is wrong with a configuration, precisely enough to fix it without searching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """One thing to fix in one file."""

    file: Path
    line: int | None
    """From 1; None when the file as a whole is meant."""
    column: int | None
    field: str
    """Path of the field, for example `nodes[1].capacity`; empty for the file as a whole."""
    value: str
    """What the file has there, as written."""
    expected: str

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        subject = f"{self.field}: " if self.field else ""
        return f"{place}: {subject}found {self.value}; expected {self.expected}"


class ConfigError(Exception):
    """A configuration cannot be used. Holds every problem that was found, in the order of the lines."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (str(p.file), p.line or 0, p.column or 0)))
        super().__init__("\n".join(map(str, self.problems)))
