"""How a bench is ended before its end."""

from __future__ import annotations

import signal
import sys


def ends_on_sigterm() -> None:
    """As ^C does, with all that was started: Python's own answer to SIGTERM would leave it behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
