"""What was typed and makes no request: which field of it, what it is, and what was expected."""

from __future__ import annotations

import traceback

from pydantic import BaseModel, ValidationError

from qnwis.config.load import expectation

LONGEST = 60
"""Characters of a value that are shown."""


def not_usable(error: ValueError) -> str | None:
    """A line for each field. None for every other error: also for a model that was read, from a server or an
    agent, because that is no fault of whoever types."""
    if not isinstance(error, ValidationError) or not _made_from_arguments(error):
        return None
    lines = []
    for one in error.errors(include_url=False):
        field = ".".join(map(str, one["loc"]))
        found = f"{field}: found {repr(one['input'])[:LONGEST]}; " if field else ""
        lines.append(f"{found}expected {expectation(one)}")
    return "\n".join(lines)


def _made_from_arguments(error: ValidationError) -> bool:
    """What is read goes through `model_validate…` or a type adapter; what is typed comes as arguments."""
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    return frame.f_code is BaseModel.__init__.__code__
