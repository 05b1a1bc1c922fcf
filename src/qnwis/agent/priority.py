"""What must be in time runs before what need not, where the right to that is had."""

from __future__ import annotations

import contextlib
import os

NICENESS = -10
"""Needs the right to it (root, or CAP_SYS_NICE)."""


def prefer(pid: int = 0) -> None:
    """Run this process, or another, before ordinary ones. What it starts is ordinary again."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(pid, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, pid, NICENESS)


def run_at_once() -> None:
    """Run whenever there is something to do: with real-time priority, else before ordinary processes."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        prefer()
