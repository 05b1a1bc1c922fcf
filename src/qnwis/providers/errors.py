"""The two ways in which a call to the world fails; providers raise nothing else on purpose."""

from __future__ import annotations

from qnwis.continuity.refusal import Refusal


class Unreachable(Exception):
    """No answer: the party is down, cut off or too slow. An effect that was asked for may have happened."""


class Refused(Exception):
    """The party answered no, and changed nothing."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class Unrecordable(Refused):
    """What was to be recorded can never be a record: trying again, or later, is in vain. Workflows know it by
    its name."""
