"""A rule between several fields of a topology that does not hold."""

from __future__ import annotations

from typing import NamedTuple

from pydantic_core import InitErrorDetails, PydanticCustomError


class BrokenRule(NamedTuple):
    """Which rule, where, and what was expected there."""

    rule: str
    loc: tuple[str | int, ...]
    """The field that most likely needs the edit."""
    value: object
    expected: str

    @property
    def error(self) -> InitErrorDetails:
        return {
            "type": PydanticCustomError(self.rule, "expected {expected}", {"expected": self.expected}),
            "loc": self.loc,
            "input": self.value,
        }
