"""A record that can never be written: it keeps nothing from its end, and people hear that there is none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from temporalio.exceptions import ActivityError, ApplicationError

from .options import UNRECORDABLE


@contextlib.contextmanager
def told_if_unrecordable(tell: Callable[[str], None]) -> Iterator[None]:
    """Whatever else fails is tried again until it works, or is an error here."""
    try:
        yield
    except ActivityError as error:
        cause = error.cause
        if not isinstance(cause, ApplicationError) or cause.type != UNRECORDABLE:
            raise
        tell(f"NOT ON RECORD: {cause.message}")
