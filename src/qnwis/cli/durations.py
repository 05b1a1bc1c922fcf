"""How long, as people type it: `90s`, `30m`, `2h`, `1d`."""

from __future__ import annotations

import re

from .output import Exit, fail

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float | None:
    """In seconds; None for nothing. Ends the command for anything else."""
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        fail(Exit.USAGE, f"{text!r}: expected for example 30m, a number and s, m, h or d")
    return float(found[1]) * _UNITS_S[found[2]]
