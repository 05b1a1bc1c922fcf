"""What one played story came to, and the table of all that `make chaos` prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from qnwis.continuity.topology import ReplicationMode
from qnwis.lab.history import History

from .checker import (
    Violation,
    broken_promises,
    check,
    losses,
    lost_writes,
    primaries_at_most,
    write_gap_s,
)
from .facts import Facts
from .story import Story

HEADINGS = ("story", "outcome", "write gap", "loss", "primaries at most")
WIDTHS = (58, 38, 10, 10, 17)


@dataclass(frozen=True)
class Result:
    """One played story."""

    name: str
    outcome: str
    """How its last run ended, or that there was none; a refusal with its rule."""
    write_gap_s: float
    """The longest time without an acknowledged write through the service's name."""
    loss: str
    """Acknowledged writes lost (synchronous) or bytes left behind (asynchronous); `?` where nobody knows."""
    primaries_at_most: int
    violations: tuple[Violation, ...]
    """Of the invariants, and of what the story says must hold."""

    @property
    def ok(self) -> bool:
        return not self.violations


def judge(name: str, story: Story, history: History, facts: Facts) -> Result:
    """Hold the history and the facts against the invariants and the story."""
    return Result(
        name=name,
        outcome=_outcome(facts),
        write_gap_s=write_gap_s(history),
        loss=_loss(history, facts),
        primaries_at_most=primaries_at_most(history),
        violations=(*check(history, facts), *broken_promises(story.must_hold, history, facts)),
    )


def _outcome(facts: Facts) -> str:
    if facts.runs:
        last = facts.runs[-1]
        how = last.outcome.value if last.rule is None else f"{last.outcome.value}: {last.rule}"
        return how if len(facts.runs) == 1 else f"{how} (run {len(facts.runs)})"
    return f"none: {facts.held_by[-1]}" if facts.held_by else "none"


def _loss(history: History, facts: Facts) -> str:
    if facts.replication is ReplicationMode.ASYNCHRONOUS:
        return f"{sum(loss for _, loss in losses(history, facts))} bytes"
    return "?" if facts.rows is None else str(len(lost_writes(history, facts)))


# --- The table ----------------------------------------------------------------------------------------------


def header() -> str:
    return _line(*HEADINGS) + "\n" + _line(*("-" * width for width in WIDTHS))


def row(result: Result) -> str:
    """One line, and one more for each violation."""
    first = _line(
        result.name,
        result.outcome,
        f"{result.write_gap_s:.2f} s",
        result.loss,
        str(result.primaries_at_most),
    )
    return "\n".join([first, *(f"  VIOLATED {violation}" for violation in result.violations)])


def summary(results: Iterable[Result]) -> str:
    results = tuple(results)
    bad = [result.name for result in results if not result.ok]
    told = f"{len(results)} stories, {len(bad)} with violations"
    return told + (f": {', '.join(bad)}" if bad else "")


def _line(*cells: str) -> str:
    fitted = (
        (cell if len(cell) <= width else cell[: width - 1] + "…").ljust(width)
        for cell, width in zip(cells, WIDTHS, strict=True)
    )
    return "  ".join(fitted).rstrip()
