"""A report as HTML, by Jinja with autoescape on: what people and servers wrote is text, never markup.

The picture of the timeline is bars drawn here, not by a plotting library: some rectangles need none of the
hundred megabytes that one brings, and as inline SVG with classes they follow light, dark and print by the
page's own style, and keep their labels readable on a phone because these are HTML beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from qnwis.continuity.executor import OutcomeStatus
from qnwis.continuity.plain_text import plain
from qnwis.continuity.report_simulation import SIMULATED
from qnwis.continuity.report_text import Document, ms
from qnwis.continuity.report_timeline import Bar
from qnwis.continuity.run import StepStatus

WIDTH = 1000.0
"""Of the picture, in its own units; it is stretched to the page's width."""
THINNEST = 4.0
"""A bar that took next to no time can still be seen."""
BAD = frozenset({StepStatus.FAILED.value, OutcomeStatus.UNKNOWN.value, OutcomeStatus.UNDONE.value})


@dataclass(frozen=True)
class Drawn:
    """A row of the picture. `x` and widths in its units; a width of 0 is not drawn."""

    title: str
    action: bool
    became: str
    bad: bool
    over: bool
    """It took longer than expected."""
    x: float
    actual: float
    expected: float
    times: str


def html(document: Document) -> str:
    """The whole page."""
    return _template().render(
        document=document,
        drawn=draw(document.bars),
        compared=any(bar.became != SIMULATED for bar in document.bars),
        width=WIDTH,
        span=ms(_span_ms(document.bars)),
    )


def draw(timeline: Sequence[Bar]) -> tuple[Drawn, ...]:
    """One scale for all rows; each stays within the picture."""
    span_ms = _span_ms(timeline)
    return tuple(_drawn(bar, span_ms) for bar in timeline) if span_ms > 0 else ()


def _span_ms(timeline: Sequence[Bar]) -> float:
    return max(
        (bar.from_ms + max(bar.actual_ms or 0.0, bar.expected_ms or 0.0) for bar in timeline), default=0
    )


def _drawn(bar: Bar, span_ms: float) -> Drawn:
    def wide(length_ms: float | None) -> float:
        return max(length_ms / span_ms * WIDTH, THINNEST) if length_ms else 0.0

    actual, expected = wide(bar.actual_ms), wide(bar.expected_ms)
    return Drawn(
        title=bar.title,
        action=bar.action,
        became=bar.became,
        bad=bar.became in BAD,
        over=bar.expected_ms is not None and (bar.actual_ms or 0.0) > bar.expected_ms > 0,
        x=round(min(bar.from_ms / span_ms * WIDTH, WIDTH - max(actual, expected)), 2),
        actual=round(actual, 2),
        expected=round(expected, 2),
        times=_times(bar),
    )


def _times(bar: Bar) -> str:
    if bar.expected_ms is None and bar.became == SIMULATED:
        return ms(bar.actual_ms)
    return f"{ms(bar.actual_ms) or '–'} of {ms(bar.expected_ms) or '–'}"


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("qnwis.report_page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = plain
    return environment.get_template("report.html.j2")
