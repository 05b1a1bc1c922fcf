"""How the figures grow, drawn by matplotlib as SVG: same figures, same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from qnwis.montecarlo.pictures import FIRST, SECOND, STYLE

from .figures import Figures, percentile
from .names import BARE, BLACKBOX, OURS
from .table import Value, of_steady

THIRD = "#3c8f4f"
COLOURS = (FIRST, SECOND, THIRD)
CPU, MEMORY, START = "scale-cpu", "scale-memory", "scale-start"
SHOWS = {
    CPU: "CPU time per health question, by the number of clusters",
    MEMORY: "Memory and cores, by the number of clusters",
    START: "Time from a failure to the run's start, by the number of clusters",
}
"""What each picture shows, by its name."""


def pictures(every: Sequence[Figures]) -> dict[str, str]:
    """SVG by name."""
    return {CPU: _cpu(every), MEMORY: _memory(every), START: _start(every)}


def _cpu(every: Sequence[Figures]) -> str:
    with _panels(1) as (figure, (axes,)):
        lines: list[tuple[str, Value]] = [
            (OURS, of_steady(lambda s: s.us_per_probe)),
            (BARE, lambda one: one.beside_named(BARE)),
            (BLACKBOX, lambda one: one.beside_named(BLACKBOX)),
        ]
        _draw(axes, every, lines, "µs of CPU per health question")
        return _svg(figure)


def _memory(every: Sequence[Figures]) -> str:
    with _panels(2) as (figure, (left, right)):
        worker, temporal = "worker", "Temporal server"
        _draw(
            left,
            every,
            [
                (worker, of_steady(lambda s: s.worker.memory.pss / 1024)),
                (temporal, of_steady(lambda s: s.temporal.memory.pss / 1024)),
            ],
            "MiB (PSS)",
        )
        _draw(
            right,
            every,
            [
                (worker, of_steady(lambda s: s.worker.cpu_s / s.seconds)),
                (temporal, of_steady(lambda s: s.temporal.cpu_s / s.seconds)),
                ("the agents' server", of_steady(lambda s: s.agents_cpu_s / s.seconds)),
            ],
            "cores",
        )
        return _svg(figure)


def _start(every: Sequence[Figures]) -> str:
    with _panels(1) as (figure, (axes,)):
        lines: list[tuple[str, Value]] = [
            ("P50", lambda one: percentile(one.after_s, 50)),
            ("P99", lambda one: percentile(one.after_s, 99)),
        ]
        _draw(axes, every, lines, "seconds from the failure to the run's start")
        return _svg(figure)


def _draw(axes: Axes, every: Sequence[Figures], lines: Sequence[tuple[str, Value]], label: str) -> None:
    for (name, value), colour in zip(lines, COLOURS, strict=False):
        known = [(one.clusters, found) for one in every if (found := value(one)) is not None]
        if known:
            axes.plot(*zip(*known, strict=True), "o-", color=colour, label=name)
    axes.set(xlabel="clusters", ylabel=label, xscale="log", ylim=(0, None))
    axes.set_xticks([one.clusters for one in every], minor=False)
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(visible=True)
    if axes.lines:
        axes.legend()


@contextmanager
def _panels(count: int) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 4), layout="constrained")
        yield figure, figure.subplots(1, count, squeeze=False)[0]


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return file.getvalue()
