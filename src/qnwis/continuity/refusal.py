"""A refusal: which rule said no, with which values, and what would change it."""

from __future__ import annotations

from pydantic import Field, JsonValue

from .model import Model


class Refusal(Model):
    """A decision not to act. Returned, never raised: refusing is a normal answer."""

    rule: str
    """Stable snake_case name of the rule, for alerts and tests."""
    message: str
    """One sentence for a person, naming the values that decided."""
    values: dict[str, JsonValue] = Field(default_factory=dict)
    """Every operand the rule compared."""
    remedy: str
    """What would change the answer."""

    def __str__(self) -> str:
        return f"{self.message} [{self.rule}] {self.remedy}"
