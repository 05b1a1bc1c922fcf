"""What the lab raises."""

from __future__ import annotations


class LabError(Exception):
    """The lab cannot go on; the text says what was tried, what came back, and what to do."""
