"""What came of a goal."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    HELD = "held"
    MISSED = "missed"
    NOT_MEASURED = "not measured"


def verdict(held: bool | None) -> Verdict:
    """None: it was not measured."""
    if held is None:
        return Verdict.NOT_MEASURED
    return Verdict.HELD if held else Verdict.MISSED
