"""The figures and goals as people read them: text for a terminal, Markdown for the documents. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from tests.bench.document import Row, markdown_table

from .figures import Figure, Summary
from .goals import Goal
from .settings import Setting

HEAD = ("system", "setting", "event", "n", "min", "median", "max", "writes", "lost")
GOAL_HEAD = ("goal (medians)", "ours", "at most", "beside", "ratio", "")


def rows(summaries: Sequence[Summary]) -> list[Row]:
    """Events together, so that systems stand beside each other."""
    order = list(dict.fromkeys(s.event for s in summaries))
    return [
        (
            *(
                s.system,
                s.setting,
                str(s.event),
                str(s.of) if s.measured == s.of else f"{s.measured} of {s.of}",
            ),
            *(ms(value) for value in (s.min_ms, s.median_ms, s.max_ms)),
            *(str(s.acknowledged), str(s.lost)),
        )
        for s in sorted(summaries, key=lambda s: order.index(s.event))
    ]


def goal_rows(goals: Sequence[Goal]) -> list[Row]:
    return [
        (
            goal.text,
            ms(goal.ours_ms),
            ms(goal.at_most_ms),
            goal.against or "–",
            "–" if goal.ratio is None else f"{goal.ratio:.2f}",
            str(goal.verdict),
        )
        for goal in goals
    ]


def ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def section(
    summaries: Sequence[Summary],
    goals: Sequence[Goal],
    *,
    machine: Sequence[str],
    versions: Mapping[str, str],
    settings: Mapping[str, Sequence[Setting]],
    remarks: Sequence[str],
    figures: Sequence[Figure],
) -> list[str]:
    """The paragraphs of this bench in the document."""
    return [
        "## Beside other failover managers",
        "Written by `make bench-rto`. Milliseconds in which a client had no write acknowledged: the longest"
        " of several fast writers, from the event on. Each figure is of a new cluster of three PostgreSQL,"
        " every node in a network namespace of its own; systems take turns, and only one runs at a time.",
        "A client that lost its connection asks every node, every 20 ms and on a connection that it keeps,"
        " which one takes writes. Before the event what making the nodes left to be written is on disk.",
        "A commit waits for a standby where that is a system's default (this project, pg_auto_failover) and"
        " in Patroni's fastest setting. The floor is a promotion as soon as the primary is killed:"
        " nothing is detected, nothing fenced.",
        "\n".join(f"- {line}" for line in [*machine, *(f"{name} {v}" for name, v in versions.items())]),
        markdown_table(HEAD, rows(summaries)),
        markdown_table(GOAL_HEAD, goal_rows(goals)),
        "Settings, where they differ from a system's defaults:",
        "\n".join(
            f"- {system}, {setting.name}: {_values(setting)} ({setting.source})"
            for system, each in settings.items()
            for setting in each
        ),
        *remarks,
        *(
            f"{f.system}, {f.setting}, {f.event}, round {f.round}: {_first_line(f.problem)}"
            for f in figures
            if f.problem
        ),
    ]


def _values(setting: Setting) -> str:
    pairs: list[tuple[str, JsonValue]] = []
    for name, value in setting.values.items():
        pairs += value.items() if isinstance(value, dict) else [(name, value)]
    return ", ".join(f"`{name} = {value}`" for name, value in pairs) or "none"


def _first_line(problem: str) -> str:
    return problem.splitlines()[0]
