"""What was measured, and what it comes to: pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from qnwis.continuity.model import Model
from tests.bench.document import Row

from .timeline import EFFECTS, Doing

GOAL_MS = 300.0
"""Of the median overhead of a run, and of the median difference to the script."""
HEAD = ("ms", "median", "min", "max")


class Round(Model):
    """A switchover by a run, and one by the script. Times in milliseconds."""

    run_ms: float
    """From the call that starts it to its answer."""
    script_ms: float
    doing: dict[Doing, float]
    """The run's time, by what it did: together `run_ms`."""
    calls: int
    attempts: int
    """Of the run's calls together; more than there are calls where one was tried again."""

    @property
    def overhead_ms(self) -> float:
        return sum(ms for doing, ms in self.doing.items() if doing not in EFFECTS)

    @property
    def difference_ms(self) -> float:
        return self.run_ms - self.script_ms


def rows(rounds: Sequence[Round]) -> list[Row]:
    """Of the table whose head is `HEAD`."""
    series = {
        "run of the runbook": [r.run_ms for r in rounds],
        "plain script": [r.script_ms for r in rounds],
        "run less script": [r.difference_ms for r in rounds],
        "overhead: run less its calls": [r.overhead_ms for r in rounds],
        **{f"· {d}" if d not in EFFECTS else str(d): [r.doing[d] for r in rounds] for d in Doing},
    }
    return [(what, *(f"{f(ms):.0f}" for f in (statistics.median, min, max))) for what, ms in series.items()]


def failures(rounds: Sequence[Round]) -> list[str]:
    """Which median is over the goal."""
    medians = {
        "the overhead of a run": statistics.median(r.overhead_ms for r in rounds),
        "the difference to the script": statistics.median(r.difference_ms for r in rounds),
    }
    return [
        f"the median of {what} is {ms:.0f} ms, over {GOAL_MS:.0f} ms"
        for what, ms in medians.items()
        if ms > GOAL_MS
    ]
