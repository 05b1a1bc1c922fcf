"""A study's pictures, by matplotlib, as SVG to stand in a page: same study, same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .draws import Floats
from .result import Study

INK, FIRST, SECOND = "#7a8490", "#2f6fd0", "#b5610a"
"""Each can be read on white and on black: a page follows the reader's choice."""
POINTS = 400
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "qnwis",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "legend.framealpha": 0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def pictures(study: Study) -> dict[str, str]:
    """SVG by title."""
    names = ["as it is"]
    every = [study.outcomes]
    if study.other is not None and study.result.comparison is not None:
        names.append(study.result.comparison.name)
        every.append(study.other)
    drawn = {
        "RTO: how many failures are over by then": _shares(
            names, [one.rto_s for one in every], "seconds since the failure", up_to=99.9
        ),
        "Downtime: how many years had at most so much": _shares(
            names, [one.down_by_year_s for one in every], "seconds in a year", up_to=99.9
        ),
    }
    if any(one.rpo_s.any() for one in every):
        drawn["RPO: how many failures lose at most so much"] = _shares(
            names, [one.rpo_s for one in every], "seconds of writes", up_to=99.5
        )
    if study.result.settings:
        drawn["What each setting buys"] = _trade(study)
    return drawn


def _shares(names: Sequence[str], every: Sequence[Floats], label: str, *, up_to: float) -> str:
    with _axes(4.0) as (figure, axes):
        share = np.linspace(0, up_to, POINTS)
        for name, values, colour in zip(names, every, (FIRST, SECOND), strict=False):
            at = np.percentile(values, share, method="inverted_cdf")
            axes.plot(at, share, color=colour, label=name)
            p95 = np.percentile(values, 95, method="inverted_cdf")
            axes.plot([p95], [95], "o", color=colour)
            axes.annotate(f"P95 {p95:.1f} s", (p95, 95), xytext=(6, -14), textcoords="offset points")
        axes.set(xlabel=label, ylabel="percent", ylim=(0, 101), xlim=(0, None))
        axes.grid(visible=True)
        axes.legend(loc="lower right")
        return _svg(figure)


def _trade(study: Study) -> str:
    """P95 of the RTO against false failovers: down and to the left is better."""
    with _axes(4.5) as (figure, axes):
        now = study.result.figures
        axes.plot([now.rto_s.p95], [now.false_failovers_per_year], "s", color=FIRST, markersize=8)
        axes.annotate(
            "as it is",
            (now.rto_s.p95, now.false_failovers_per_year),
            xytext=(7, 7),
            textcoords="offset points",
        )
        for one in study.result.settings:
            at = (one.figures.rto_s.p95, one.figures.false_failovers_per_year)
            axes.plot([at[0]], [at[1]], "o", color=SECOND)
            axes.annotate(f"{one.setting} {one.after}", at, xytext=(7, -12), textcoords="offset points")
        axes.set(xlabel="P95 of the RTO, seconds", ylabel="false failovers a year")
        axes.margins(0.2)
        axes.grid(visible=True)
        return _svg(figure)


@contextmanager
def _axes(height: float) -> Iterator[tuple[Figure, Axes]]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, height), layout="constrained")
        yield figure, figure.subplots()


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    # Without the XML head, and as wide as the page.
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"',
        r'\1 width="100%"',
        re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1),
        count=1,
    )
